package main_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"kluis/internal/armid"
	"kluis/internal/client"
	"kluis/internal/secret"
	"kluis/internal/tooltest"
	"kluis/internal/volume/luks"
	"kluis/internal/volume/volumetest"
)

const (
	group    = "rg1"
	location = "westeurope"
	kvName   = "kvstory1"
	vmName   = "web1"
	letter   = "letter.txt"
)

// machine is an encrypted VM: an OS disk (raw, LUKS2) and a data disk (qcow2, LUKS1).
type machine struct {
	s          *server
	kv         client.KeyVault
	vault      armid.ID
	vm         armid.ID
	kek        client.Key
	passphrase map[string]string // by disk
	plain      map[string][]byte // content of the letter, by disk
	files      map[string]string // image file, by disk
	formats    map[string]string
	account    armid.ID
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	tooltest.Need(t, name)
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// newMachine makes the volumes, the keys, the VM and a vault; backup is not enabled.
func newMachine(t *testing.T, s *server, megabytes int64) *machine {
	t.Helper()
	tooltest.Need(t, "cryptsetup", "qemu-img", "mke2fs")
	ctx := soon(t)
	m := &machine{s: s, passphrase: map[string]string{}, plain: map[string][]byte{}, files: map[string]string{},
		formats: map[string]string{"os": "raw", "data": "qcow2"}}
	must[client.Group](t)(s.PutGroup(ctx, group, location))
	m.account = s.StorageAccountID(group, "staging1")
	must[client.StorageAccount](t)(s.PutStorageAccount(ctx, m.account, location))
	m.vault = s.RecoveryVaultID(group, "vault1")
	must[client.RecoveryVault](t)(s.PutRecoveryVault(ctx, m.vault, location, "LocallyRedundant"))
	m.makeKeyVault(ctx, t)
	m.kek = must[client.Key](t)(s.CreateKey(ctx, m.kv.Properties.VaultURI, "kek1", 3072))
	os := m.makeDisk(ctx, t, "os", megabytes, volumetest.Options{Version: 2})
	data := m.makeDisk(ctx, t, "data", megabytes, volumetest.Options{Version: 1})
	m.vm = s.VMID(group, vmName)
	must[client.VM](t)(s.PutVM(ctx, m.vm, client.VMOf(location, "Linux", os, data)))
	return m
}

// makeKeyVault creates the key vault with every permission for the caller and none for the backup service.
func (m *machine) makeKeyVault(ctx context.Context, t *testing.T) {
	t.Helper()
	me := must[string](t)(m.s.ObjectID(ctx))
	m.kv = must[client.KeyVault](t)(m.s.PutKeyVault(ctx, m.s.KeyVaultID(group, kvName), location, client.KeyVaultProperties{
		EnabledForDiskEncryption: true,
		AccessPolicies:           []client.AccessPolicy{{TenantID: m.s.TenantID(), ObjectID: me, Permissions: client.EveryPermission()}}}))
}

func (m *machine) grantBackup(ctx context.Context, t *testing.T) {
	t.Helper()
	if err := m.s.AddAccessPolicy(ctx, m.kv.ARMID(), client.BackupManagementService, client.AzureBackupTemplate()); err != nil {
		t.Fatal(err)
	}
}

// makeDisk makes an encrypted volume with a letter and noise in it, its BEK, and the disk resource.
func (m *machine) makeDisk(ctx context.Context, t *testing.T, name string, megabytes int64, o volumetest.Options) client.Disk {
	t.Helper()
	m.passphrase[name] = "passphrase of " + name + " " + hexOf(16)
	m.plain[name] = []byte("Dear reader, this is the disk " + name + ", number " + hexOf(8) + ".\n")
	m.files[name] = filepath.Join(m.s.images, name+"."+m.formats[name])
	makeVolume(ctx, t, m.files[name], m.formats[name], megabytes, m.passphrase[name], m.plain[name], o)
	bek := must[client.Secret](t)(m.s.SetBEK(ctx, m.kv.Properties.VaultURI, client.BEK{Name: "bek-" + name, Alg: "RSA-OAEP-256",
		Key: secret.New([]byte(m.passphrase[name])), KEK: m.kek.ID(), Machine: vmName}))
	return must[client.Disk](t)(m.s.ImportDisk(ctx, m.s.DiskID(group, name), location, m.files[name], "Linux",
		client.Encryption(m.kv.ARMID(), bek.ID, m.kek.ID())))
}

func makeVolume(ctx context.Context, t *testing.T, file, format string, megabytes int64, passphrase string, content []byte, o volumetest.Options) {
	t.Helper()
	dir := t.TempDir()
	root, plain, raw := filepath.Join(dir, "root"), filepath.Join(dir, "plain"), filepath.Join(dir, "raw")
	noise := make([]byte, megabytes<<19) // half of the volume
	_, _ = rand.Read(noise)
	for _, err := range []error{os.Mkdir(root, 0o755), os.WriteFile(filepath.Join(root, letter), content, 0o644),
		os.WriteFile(filepath.Join(root, "noise"), noise, 0o644),
		volumetest.MakeFileSystem(ctx, plain, megabytes<<20, root), volumetest.Encrypt(ctx, plain, raw, []byte(passphrase), o)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", format, raw, file)
}

func hexOf(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// content is what a VM sees on a disk, whatever the format of its image, which its name tells. (Left to
// guess, qemu-img would take the LUKS volume inside a raw image for the image's format.)
func content(t *testing.T, file string) []byte {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	tool(t, "qemu-img", "convert", "-f", strings.TrimPrefix(filepath.Ext(file), "."), "-O", "raw", file, raw)
	b := must[[]byte](t)(os.ReadFile(raw))
	if err := os.Remove(raw); err != nil {
		t.Fatal(err)
	}
	return b
}

// read opens a volume with its passphrase and takes a file out of its file system.
func read(ctx context.Context, t *testing.T, volume []byte, passphrase, name string) []byte {
	t.Helper()
	v, err := luks.Open(ctx, bytes.NewReader(volume), int64(len(volume)), secret.New([]byte(passphrase)))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	plain := make([]byte, v.Size())
	if _, err := v.ReadAt(plain, 0); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	image, out := filepath.Join(dir, "plain"), filepath.Join(dir, "out")
	if err := os.WriteFile(image, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "debugfs", "-R", fmt.Sprintf("dump /%s %s", name, out), image)
	return must[[]byte](t)(os.ReadFile(out))
}

// rewrite makes the data disk anew, with the same key: everything in it is new to the store.
func (m *machine) rewrite(ctx context.Context, t *testing.T, megabytes int64) {
	t.Helper()
	info := must[fs.FileInfo](t)(os.Stat(m.files["data"]))
	makeVolume(ctx, t, m.files["data"], m.formats["data"], megabytes, m.passphrase["data"], m.plain["data"], volumetest.Options{Version: 1})
	if now := must[fs.FileInfo](t)(os.Stat(m.files["data"])); now.Size() < info.Size()/2 {
		t.Fatal("the disk was not made anew")
	}
}

// enable protects the VM under DefaultPolicy.
func (m *machine) enable(ctx context.Context, t *testing.T) client.Item {
	t.Helper()
	m.grantBackup(ctx, t)
	return must[client.Item](t)(m.s.EnableProtection(ctx, m.vault, m.vm, "DefaultPolicy"))
}

// backUp runs a backup to its end and returns its job.
func (m *machine) backUp(ctx context.Context, t *testing.T, item client.Item) client.Job {
	t.Helper()
	id := must[string](t)(m.s.Backup(ctx, item.ARMID(), ""))
	j := must[client.Job](t)(m.s.WaitJob(ctx, m.vault, id, nil))
	if err := j.Properties.Err(); err != nil {
		t.Fatalf("backup: %v", err)
	}
	return j
}

// encodings are the ways in which a secret might lie about: as it is, as text of either case, inside PEM's lines, inside
// JSON, and as Windows writes text.
func encodings(s string) [][]byte {
	b := []byte(s)
	all := [][]byte{b, []byte(hex.EncodeToString(b)), []byte(strings.ToUpper(hex.EncodeToString(b))), []byte(url.QueryEscape(s)),
		[]byte(base64.RawStdEncoding.EncodeToString(b)), []byte(base64.RawURLEncoding.EncodeToString(b))} // padded is the same and more
	line := base64.StdEncoding.EncodeToString(b)
	all = append(all, []byte(line[:min(len(line), 64)])) // PEM breaks its lines there
	quoted, _ := json.Marshal(s)
	var escaped strings.Builder
	var little, big []byte
	for _, unit := range utf16.Encode([]rune(s)) {
		fmt.Fprintf(&escaped, "\\u%04x", unit)
		little, big = append(little, byte(unit), byte(unit>>8)), append(big, byte(unit>>8), byte(unit))
	}
	all = append(all, bytes.Trim(quoted, `"`), []byte(escaped.String()), little, big)
	return append(all, []byte(hex.EncodeToString(all[4])), []byte(hex.EncodeToString(little))) // as a dump of PostgreSQL writes bytes
}

func walkFiles(t *testing.T, dir string, visit func(path string, data []byte)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil {
			visit(path, data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
