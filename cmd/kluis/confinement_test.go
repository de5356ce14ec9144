package main_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/tooltest"
	"kluis/test/guest"
)

// confined is a machine with all that a drill gives it, in a folder.
const confined = `<domain type='qemu'><name>drill</name><uuid>11111111-2222-3333-4444-555555555555</uuid><memory unit='MiB'>32</memory>
<os><type arch='x86_64' machine='q35'>hvm</type><loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader><nvram>{}/u_VARS.fd</nvram></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{}/vda.qcow2'/>
<backingStore type='network'><format type='raw'/><source protocol='nbd' name='vda'><host transport='unix' socket='{}/nbd'/></source><backingStore/></backingStore><target dev='vda' bus='virtio'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}/u.bek'/><target dev='vdz' bus='virtio'/><readonly/></disk>
<serial type='file'><source path='{}/console'/><target port='0'/></serial>
</devices></domain>`

// What QEMU needs under AppArmor is in the profile that libvirt's own helper writes, or in the lines that docs/operations.md has an
// operator add to it; together they are a profile to AppArmor's compiler.
func TestConfinementOfAHost(t *testing.T) {
	guest.Need(t)
	const helper, profile = "/usr/lib/libvirt/virt-aa-helper", "libvirt-11111111-2222-3333-4444-555555555555"
	tooltest.Need(t, helper, "apparmor_parser")
	dir := t.TempDir()
	for _, name := range []string{"u_VARS.fd", "vda.qcow2", "u.bek", "console", "vda.scratch"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// written is what the helper would write into the profile's list of files.
	written := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), helper, append([]string{"-d", "-u", profile}, args...)...)
		cmd.Stdin = strings.NewReader(strings.ReplaceAll(confined, "{}", dir))
		_, files, _ := strings.Cut(string(must[[]byte](t)(cmd.CombinedOutput())), profile+".files\nvirt-aa-helper:\n")
		files, _, _ = strings.Cut(files, "virt-aa-helper:")
		return files
	}
	files := written("-c") + written("-r", "-F", filepath.Join(dir, "vda.scratch"))
	for name, right := range map[string]string{"u_VARS.fd": "rwk", "vda.qcow2": "rwk", "u.bek": "rk", "console": "rw", "vda.scratch": "rwk"} {
		if !strings.Contains(files, `"`+filepath.Join(dir, name)+`" `+right+",\n") {
			t.Errorf("libvirt does not give QEMU %s of %s:\n%s", right, name, files)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", "/etc/apparmor.d", filepath.Join(dir, "etc")).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	text := string(must[[]byte](t)(os.ReadFile("../../docs/operations.md")))
	_, local, _ := strings.Cut(text, "# /etc/apparmor.d/local/abstractions/libvirt-qemu\n")
	local, _, _ = strings.Cut(local, "```")
	compile := func(local string) ([]byte, error) {
		path := filepath.Join(dir, "etc", "profile")
		whole := "#include <tunables/global>\nprofile " + profile + " flags=(attach_disconnected) {\n#include <abstractions/libvirt-qemu>\n" + files + "}\n"
		if err := errors.Join(os.WriteFile(path, []byte(whole), 0o600), os.WriteFile(filepath.Join(dir, "etc/local/abstractions/libvirt-qemu"), []byte(local), 0o600)); err != nil {
			t.Fatal(err)
		}
		return exec.CommandContext(t.Context(), "/usr/sbin/apparmor_parser", "--skip-kernel-load", "--skip-cache", "--base", filepath.Join(dir, "etc"), path).CombinedOutput()
	}
	if out, err := compile(local); err != nil || strings.Count(local, ",\n") != 2 {
		t.Errorf("the lines %q are no profile: %v: %s", local, err, out)
	}
	if out, err := compile("these are none"); err == nil {
		t.Errorf("whatever is added is a profile: %s", out)
	}
}
