package main_test

import (
	"bytes"
	"context"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kluis/internal/client"
	"kluis/internal/secret"
	"kluis/internal/volume/volumetest"
)

// outsider is a second server, whose key vault holds the keys of a VM that the first one protects.
type outsider struct {
	*server
	kv  client.KeyVault
	kek client.Key
}

// newOutsider makes a server with a key vault and a KEK, and everything allowed to its admin.
func newOutsider(ctx context.Context, t *testing.T) *outsider {
	o := &outsider{server: newServer(t, "")}
	must[client.Group](t)(o.PutGroup(ctx, group, location))
	o.allow(ctx, t, client.EveryPermission())
	o.kek = must[client.Key](t)(o.CreateKey(ctx, o.kv.Properties.VaultURI, "kek1", 2048))
	return o
}

// allow lets the admin do in the key vault this and nothing more.
func (o *outsider) allow(ctx context.Context, t *testing.T, p client.Permissions) {
	t.Helper()
	me := must[string](t)(o.ObjectID(ctx))
	o.kv = must[client.KeyVault](t)(o.PutKeyVault(ctx, o.KeyVaultID(group, kvName), location, client.KeyVaultProperties{EnabledForDiskEncryption: true,
		AccessPolicies: []client.AccessPolicy{{TenantID: o.TenantID(), ObjectID: me, Permissions: p}}}))
}

// services writes a file of key services by which another server may ask this one, with the given client secret.
func (o *outsider) services(t *testing.T, clientSecret string, more ...string) string {
	t.Helper()
	admin := must[client.Admin](t)(client.ReadAdmin(filepath.Join(o.dir, "admin.json")))
	if clientSecret == "" {
		clientSecret = string(admin.ClientSecret.Reveal())
	}
	endpoint := must[*url.URL](t)(url.Parse(admin.Endpoint))
	dir := t.TempDir()
	file := filepath.Join(dir, "key-services.yaml")
	text := "vaults:\n  - hosts: '*.vault." + endpoint.Host + "'\n    authority: " + admin.Endpoint + "\n    tenant: " + admin.TenantID +
		"\n    client-id: " + admin.ClientID + "\n    secret-file: secret\n    ca-file: " + admin.CAFile + "\n    address: 127.0.0.1:" + endpoint.Port() + "\n"
	for _, err := range []error{os.WriteFile(filepath.Join(dir, "secret"), []byte(clientSecret+"\n"), 0o600),
		os.WriteFile(file, []byte(text+strings.Join(more, "")), 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// with is the template 'Azure Backup' and more.
func with(keys, secrets []string) client.Permissions {
	p := client.AzureBackupTemplate()
	p.Keys, p.Secrets = append(slices.Clone(p.Keys), keys...), append(slices.Clone(p.Secrets), secrets...)
	return p
}

// TestKeyVaultOutside protects a VM whose keys lie in another server's key vault. It is backed up and proved, loses its
// keys, and comes back; and whatever the other key vault refuses is told with what to do.
func TestKeyVaultOutside(t *testing.T) {
	ctx := soon(t)
	o := newOutsider(ctx, t)
	s := newServer(t, "", "--key-services", o.services(t, ""))
	m := &machine{s: s, passphrase: map[string]string{"os": "outside " + hexOf(16)}, plain: map[string][]byte{"os": []byte("Dear reader " + hexOf(8))},
		files: map[string]string{"os": filepath.Join(s.images, "os.raw")}, vm: s.VMID(group, vmName), vault: s.RecoveryVaultID(group, "vault1"),
		account: s.StorageAccountID(group, "staging1")}
	makeVolume(ctx, t, m.files["os"], "raw", 24, m.passphrase["os"], m.plain["os"], volumetest.Options{Version: 2})
	bek := must[client.Secret](t)(o.SetBEK(ctx, o.kv.Properties.VaultURI, client.BEK{Name: "bek-os", Alg: "RSA-OAEP-256",
		Key: secret.New([]byte(m.passphrase["os"])), KEK: o.kek.ID(), Machine: vmName}))
	must[client.Group](t)(s.PutGroup(ctx, group, location))
	must[client.Group](t)(s.PutGroup(ctx, "restored", location))
	must[client.StorageAccount](t)(s.PutStorageAccount(ctx, m.account, location))
	must[client.RecoveryVault](t)(s.PutRecoveryVault(ctx, m.vault, location, "LocallyRedundant"))
	disk := must[client.Disk](t)(s.ImportDisk(ctx, s.DiskID(group, "os"), location, m.files["os"], "Linux", client.Encryption(o.kv.ARMID(), bek.ID, o.kek.ID())))
	must[client.VM](t)(s.PutVM(ctx, m.vm, client.VMOf(location, "Linux", disk)))
	protect := func() error {
		_, err := s.EnableProtection(ctx, m.vault, m.vm, "DefaultPolicy")
		return err
	}

	o.allow(ctx, t, client.Permissions{Keys: []string{"get", "list", "backup"}, Secrets: []string{"get", "list"}})
	wantProblem(t, protect(), "UserErrorKeyVaultPermissionsNotConfigured", "secret permissions backup.")

	o.allow(ctx, t, with([]string{"unwrapKey"}, nil))
	item := must[client.Item](t)(s.EnableProtection(ctx, m.vault, m.vm, "DefaultPolicy"))
	proved := m.point(ctx, t, item)
	if p := proved.Properties.Proof; p.State != client.Proved || len(p.Disks) != 1 || !strings.Contains(p.Disks[0].Note, "unwrapped by the key vault "+kvName) {
		t.Errorf("the proof is %+v", p)
	}
	// The template has no unwrapKey. The point is as good; that it was not tried stands on it.
	o.allow(ctx, t, client.AzureBackupTemplate())
	if p := m.point(ctx, t, item).Properties.Proof; p.State != "notTried" || !strings.Contains(p.Reason, "not tried: ") || !strings.Contains(p.Advice, "unwrapKey") {
		t.Errorf("without unwrapKey the proof is %+v", p)
	}

	o.allow(ctx, t, client.EveryPermission())
	gone := func(away func(ctx context.Context, vaultURI string, kind client.Kind, name string) error) {
		t.Helper()
		for kind, name := range map[client.Kind]string{client.KindKey: "kek1", client.KindSecret: "bek-os"} {
			if err := away(ctx, o.kv.Properties.VaultURI, kind, name); err != nil {
				t.Fatal(err)
			}
		}
	}
	gone(o.DeleteContent)
	restore := func() (string, error) {
		return s.RestoreDisks(ctx, item, proved.Name, client.RestoreRequest{TargetGroup: s.Subscription().Group("restored"), StorageAccount: m.account, Region: location})
	}
	_, err := restore()
	wantProblem(t, err, "UserErrorKeyAndSecretNotFound", "kek1")
	_, err = s.RestoreKeysOutside(ctx, proved)
	wantProblem(t, err, "UserErrorKeyVaultNameTaken", kvName)
	gone(o.PurgeContent)
	o.allow(ctx, t, client.AzureBackupTemplate())
	_, err = s.RestoreKeysOutside(ctx, proved)
	wantProblem(t, err, "UserErrorKeyVaultPermissionsNotConfigured", kvName)
	o.allow(ctx, t, with([]string{"restore", "unwrapKey"}, []string{"restore"}))
	for _, existed := range []bool{false, true} {
		restored := must[[]client.Restored](t)(s.RestoreKeysOutside(ctx, proved))
		if len(restored) != 2 || restored[0].Existed != existed || restored[1].Existed != existed {
			t.Errorf("restored %+v, want two with existed %v", restored, existed)
		}
	}
	job := must[client.Job](t)(s.WaitJob(ctx, m.vault, must[string](t)(restore()), nil))
	if err := job.Properties.Err(); err != nil {
		t.Fatal(err)
	}
	image := m.imageOf(ctx, t, m.deploy(ctx, t, job, "restored"), -1)
	passphrase := must[secret.Bytes](t)(o.BEKValue(ctx, o.kv.Properties.VaultURI, "bek-os"))
	if got := read(ctx, t, content(t, image), string(passphrase.Reveal()), letter); !bytes.Equal(got, m.plain["os"]) {
		t.Errorf("the letter on the restored disk reads %q", got)
	}

	started := s.args
	for _, c := range []struct {
		how, services, code, names string
	}{
		{"a wrong secret", o.services(t, "wrong"), "UserErrorKeyVaultCredentialsNotAccepted", kvName},
		{"no file", "", "UserErrorKeyVaultNotFound", kvName},
	} {
		s.stop()
		s.args = append(slices.Clone(started), "--key-services", c.services)
		s.start()
		t.Log(c.how)
		wantProblem(t, protect(), c.code, c.names)
	}
	s.stop()
	s.args = started
	s.start()
	o.kill()
	wantProblem(t, protect(), "UserErrorKeyVaultNotReachable", kvName)
}

// point backs up an item and reads what came of it.
func (m *machine) point(ctx context.Context, t *testing.T, item client.Item) client.Point {
	t.Helper()
	id := m.backUp(ctx, t, item).Properties.Bag("Recovery Point Id")
	return must[client.Point](t)(m.s.RecoveryPoint(ctx, item.ARMID(), id))
}
