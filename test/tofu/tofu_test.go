package tofu_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/client"
	"kluis/internal/tooltest"
	"kluis/test/conformance"
	"kluis/test/stage"
)

// folderVariable names the folder in which `make test-tofu` has built tofu and the provider.
const folderVariable = "KLUIS_TEST_TOFU"

var update = flag.Bool("update", false, "list anew what the provider calls")

// What Terraform is for: it makes what is written down, finds nothing to change afterwards, and takes it all away again. The
// VM is there before, since its disks come from image files.
func TestApplyPlanDestroy(t *testing.T) {
	bin := os.Getenv(folderVariable)
	if bin == "" {
		t.Skip("make test-tofu builds OpenTofu and its provider, and runs this")
	}
	tooltest.Need(t, "cryptsetup", "qemu-img", "mke2fs")
	binary, err := stage.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := stage.Start(binary, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	keys, err := s.NewKeys(t.Context(), "machines", "machines-keys")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.NewMachine(t.Context(), "machines", "web1", keys); err != nil {
		t.Fatal(err)
	}

	w := newWorkspace(t, s, bin)
	w.tofu(0, "apply", "-auto-approve")
	w.tofu(0, "plan", "-detailed-exitcode") // 2 would be a difference
	items, err := s.Items(t.Context(), s.RecoveryVaultID("tofu", "nightly"))
	if err != nil || len(items) != 1 || items[0].Properties.FriendlyName != "web1" {
		t.Errorf("the vault protects %+v: %v", items, err)
	}
	// The provider has no word for soft delete, and a vault that holds deleted items stays.
	if _, err := s.UpdateRecoveryVault(t.Context(), s.RecoveryVaultID("tofu", "nightly"), "", &client.SoftDeleteSettings{State: "Disabled"}); err != nil {
		t.Fatal(err)
	}
	w.tofu(0, "destroy", "-auto-approve")
	if _, err := s.Group(t.Context(), "tofu"); err == nil {
		t.Error("the group is still there")
	}
	if err := conformance.Tofu.Compare("../conformance/testdata", s.Log(), *update); err != nil {
		t.Error(err)
	}
}

// workspace is a folder with a configuration, and what tofu needs to run there.
type workspace struct {
	t   *testing.T
	dir string
	bin string
	env []string
}

func newWorkspace(t *testing.T, s *stage.Server, bin string) *workspace {
	t.Helper()
	bin, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	w := &workspace{t: t, dir: t.TempDir(), bin: bin}
	provider, err := exec.Command(s.Binary, "cloud", "terraform", "--admin", s.Admin()).Output()
	if err != nil {
		t.Fatal(err)
	}
	secret, err := exec.Command(s.Binary, "cloud", "secret", "--admin", s.Admin()).Output()
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(w.dir, "tofurc")
	for file, content := range map[string]string{
		filepath.Join(w.dir, "provider.tf"): string(provider),
		filepath.Join(w.dir, "main.tf"):     fmt.Sprintf(configuration, s.TenantID(), s.VMID("machines", "web1")),
		config:                              fmt.Sprintf("provider_installation {\n  dev_overrides {\n    \"hashicorp/azurerm\" = %q\n  }\n  direct {}\n}\n", bin),
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+config, "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1",
		"SSL_CERT_FILE="+filepath.Join(s.Data, "tls", "ca.pem"), "ARM_CLIENT_SECRET="+strings.TrimSpace(string(secret)), "NO_PROXY=localhost,127.0.0.1")
	return w
}

const configuration = `
resource "azurerm_resource_group" "tofu" {
  name     = "tofu"
  location = "westeurope"
}

resource "azurerm_key_vault" "keys" {
  name                        = "tofu-keys"
  resource_group_name         = azurerm_resource_group.tofu.name
  location                    = azurerm_resource_group.tofu.location
  tenant_id                   = %q
  sku_name                    = "standard"
  enabled_for_disk_encryption = true
  soft_delete_retention_days  = 7
  rbac_authorization_enabled  = false
}

resource "azurerm_recovery_services_vault" "nightly" {
  name                = "nightly"
  resource_group_name = azurerm_resource_group.tofu.name
  location            = azurerm_resource_group.tofu.location
  sku                 = "Standard"
  storage_mode_type   = "LocallyRedundant"
}

resource "azurerm_backup_policy_vm" "weeks" {
  name                = "weeks"
  resource_group_name = azurerm_resource_group.tofu.name
  recovery_vault_name = azurerm_recovery_services_vault.nightly.name
  timezone            = "UTC"

  backup {
    frequency = "Daily"
    time      = "23:00"
  }
  retention_daily {
    count = 14
  }
}

resource "azurerm_backup_protected_vm" "web1" {
  resource_group_name = azurerm_resource_group.tofu.name
  recovery_vault_name = azurerm_recovery_services_vault.nightly.name
  source_vm_id        = %q
  backup_policy_id    = azurerm_backup_policy_vm.weeks.id
}
`

// tofu runs a command, which must end with this code.
func (w *workspace) tofu(want int, command string, args ...string) {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), filepath.Join(w.bin, "tofu"), append([]string{command, "-no-color", "-input=false"}, args...)...)
	cmd.Dir, cmd.Env = w.dir, w.env
	out, err := cmd.CombinedOutput()
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got, err = exit.ExitCode(), nil
	}
	if err != nil || got != want {
		w.t.Fatalf("tofu %s ended with %d, want %d: %v\n%s", command, got, want, err, out)
	}
}
