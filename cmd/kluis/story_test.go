package main_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kluis/internal/armid"
	"kluis/internal/client"
)

// The story of the product: protected, backed up twice, destroyed together with its keys and its key
// vault, and brought back. What is read at the end is what was there.
func TestStory(t *testing.T) {
	eachDatabase(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		m := newMachine(t, s, 24)
		ctx := soon(t)

		// Enabling is refused until Backup Management Service may read the key vault.
		_, err := s.EnableProtection(ctx, m.vault, m.vm, "DefaultPolicy")
		wantProblem(t, err, "UserErrorKeyVaultPermissionsNotConfigured", kvName)
		item := m.enable(ctx, t)

		first := m.backUp(ctx, t, item)
		before := map[string][]byte{"os": content(t, m.files["os"]), "data": content(t, m.files["data"])}
		m.change(t)
		second := m.backUp(ctx, t, item)
		after := map[string][]byte{"os": content(t, m.files["os"]), "data": content(t, m.files["data"])}
		checkIncrement(t, first, second)

		points := must[[]client.Point](t)(s.RecoveryPoints(ctx, item.ARMID()))
		if len(points) != 2 {
			t.Fatalf("%d recovery points, want 2", len(points))
		}
		for _, p := range points {
			checkProved(t, must[client.Point](t)(s.RecoveryPoint(ctx, item.ARMID(), p.Name)))
		}
		oldest := must[client.Point](t)(s.RecoveryPoint(ctx, item.ARMID(), first.Properties.Bag("Recovery Point Id")))
		newest := must[client.Point](t)(s.RecoveryPoint(ctx, item.ARMID(), second.Properties.Bag("Recovery Point Id")))

		m.destroy(ctx, t)

		restore := func(p client.Point, to string) (string, error) {
			return s.RestoreDisks(ctx, item, p.Name, client.RestoreRequest{TargetGroup: s.Subscription().Group(to), StorageAccount: m.account, Region: location})
		}
		must[client.Group](t)(s.PutGroup(ctx, "restored1", location))
		must[client.Group](t)(s.PutGroup(ctx, "restored2", location))
		_, err = restore(newest, "restored1")
		wantProblem(t, err, "UserErrorKeyVaultNotFound", kvName)
		m.makeKeyVault(ctx, t)
		m.grantBackup(ctx, t)
		_, err = restore(newest, "restored1")
		wantProblem(t, err, "UserErrorKeyAndSecretNotFound", "kek1")
		if _, err := s.RestoreKeys(ctx, m.kv.Properties.VaultURI, newest); err != nil {
			t.Fatal(err)
		}

		for _, c := range []struct {
			point client.Point
			group string
			disks map[string][]byte
		}{{oldest, "restored1", before}, {newest, "restored2", after}} {
			id := must[string](t)(restore(c.point, c.group))
			job := must[client.Job](t)(s.WaitJob(ctx, m.vault, id, nil))
			if err := job.Properties.Err(); err != nil {
				t.Fatal(err)
			}
			vm := m.deploy(ctx, t, job, c.group)
			for lun, disk := range map[int]string{-1: "os", 0: "data"} {
				image := m.imageOf(ctx, t, vm, lun)
				if !bytes.Equal(content(t, image), c.disks[disk]) {
					t.Errorf("disk %s of %s differs from what was backed up", disk, c.group)
				}
				bek := must[client.Secret](t)(s.SecretValue(ctx, m.kv.Properties.VaultURI, "bek-"+disk))
				if bek.ContentType != "Wrapped BEK" {
					t.Errorf("restored secret has content type %q", bek.ContentType)
				}
				if got := read(ctx, t, content(t, image), m.passphrase[disk], letter); !bytes.Equal(got, m.plain[disk]) {
					t.Errorf("the letter on disk %s reads %q", disk, got)
				}
			}
		}

		m.searchSecrets(ctx, t, url)
	})
}

func wantProblem(t *testing.T, err error, code, names string) {
	t.Helper()
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Code != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	if e.Advice == "" || !strings.Contains(e.Message, names) {
		t.Errorf("%s: message %q should name %s, advice %q should not be empty", code, e.Message, names, e.Advice)
	}
}

// change overwrites the last mebibyte of the data disk, as a guest that writes would.
func (m *machine) change(t *testing.T) {
	t.Helper()
	noise := make([]byte, 64<<10)
	_, _ = rand.Read(noise)
	part := m.files["data"] + ".part"
	if err := os.WriteFile(part, noise, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(part)
	tool(t, "qemu-io", "-f", "qcow2", "-c", "write -s "+part+" 23M 64k", m.files["data"])
}

func checkIncrement(t *testing.T, first, second client.Job) {
	t.Helper()
	if n := number(t, first, "Bytes stored"); n < 20<<20 {
		t.Errorf("the first backup stored %d bytes", n)
	}
	if n := number(t, second, "Bytes new"); n == 0 || n > 256<<10 {
		t.Errorf("the second backup found %d new bytes after a change of 64 KiB", n)
	}
	for _, j := range []client.Job{first, second} {
		for _, task := range j.Properties.ExtendedInfo.Tasks {
			if task.Status != "Completed" {
				t.Errorf("task %s is %s", task.ID, task.Status)
			}
		}
	}
}

func checkProved(t *testing.T, p client.Point) {
	t.Helper()
	if p.Properties.Proof == nil || p.Properties.Proof.State != client.Proved || len(p.Properties.Proof.Disks) != 2 {
		t.Fatalf("recovery point %s: proof %+v", p.Name, p.Properties.Proof)
	}
	for _, d := range p.Properties.Proof.Disks {
		if d.State != client.Proved || !strings.HasPrefix(d.Encryption, "LUKS") || !strings.Contains(d.FileSystem, "ext4") {
			t.Errorf("recovery point %s: disk %+v", p.Name, d)
		}
	}
	if !p.Properties.Encrypted || len(p.Properties.KeysAndSecrets) != 2 || p.Properties.KeyAndSecret == nil {
		t.Errorf("recovery point %s does not carry its keys", p.Name)
	}
}

// destroy removes VM, disks, image files, key, secrets and the key vault, for good.
func (m *machine) destroy(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, err := range []error{
		m.s.DeleteVM(ctx, m.vm), m.s.DeleteDisk(ctx, m.s.DiskID(group, "os")), m.s.DeleteDisk(ctx, m.s.DiskID(group, "data")),
		os.Remove(m.files["os"]), os.Remove(m.files["data"]),
		m.s.DeleteKeyVault(ctx, m.kv.ARMID()), m.s.PurgeKeyVault(ctx, location, kvName),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// deploy makes a VM with the template that the restore left.
func (m *machine) deploy(ctx context.Context, t *testing.T, job client.Job, to string) client.VM {
	t.Helper()
	template := must[[]byte](t)(m.s.Blob(ctx, job.Properties.Bag("Template Blob Uri")))
	d := must[client.Deployment](t)(m.s.Deploy(ctx, m.s.DeploymentID(to, "again"), template, nil))
	if d.Properties.ProvisioningState != "Succeeded" {
		t.Fatalf("deployment is %s", d.Properties.ProvisioningState)
	}
	if config := must[[]byte](t)(m.s.Blob(ctx, job.Properties.Bag("Config Blob Uri"))); !bytes.Contains(config, []byte("p\x00r\x00o\x00p\x00")) {
		t.Error("the configuration is not UTF-16")
	}
	return must[client.VM](t)(m.s.VM(ctx, m.s.VMID(to, vmName)))
}

// imageOf is the image file of a VM's disk; restored disks lie in the server's own folder.
func (m *machine) imageOf(ctx context.Context, t *testing.T, vm client.VM, lun int) string {
	t.Helper()
	ref := vm.Properties.StorageProfile.OSDisk.ManagedDisk
	for _, d := range vm.Properties.StorageProfile.DataDisks {
		if d.LUN == lun {
			ref = d.ManagedDisk
		}
	}
	d := must[client.Disk](t)(m.s.Disk(ctx, armid.Must(ref.ID)))
	if d.Properties.EncryptionSettingsCollection == nil {
		t.Errorf("restored disk %s has lost its encryption settings", d.Name)
	}
	return strings.TrimPrefix(d.Properties.CreationData.SourceURI, "file://")
}

// searchSecrets looks for the passphrases, the client's secret and a secure parameter in everything that the
// server wrote: log, data folder and database.
func (m *machine) searchSecrets(ctx context.Context, t *testing.T, url string) {
	t.Helper()
	const parameter = "a parameter that nobody may see"
	m.deploySecret(ctx, t, parameter)
	admin := filepath.Join(m.s.dir, "admin.json")
	planted := slices.Concat(encodings(parameter), encodings(secretOf(t, must[[]byte](t)(os.ReadFile(admin)))))
	for _, p := range m.passphrase {
		planted = append(planted, encodings(p)...)
	}
	look := func(where string, data []byte) {
		for _, p := range planted {
			if bytes.Contains(data, p) {
				t.Errorf("%s holds a secret", where)
			}
		}
	}
	look("the log", []byte(m.s.log.String()))
	walkFiles(t, m.s.dir, func(path string, data []byte) {
		if path != admin { // which is there to hold it
			look(path, data)
		}
	})
	if url != "" {
		walkTables(ctx, t, url, func(table, row string) { look("table "+table, []byte(row)) })
	}
}

// deploySecret deploys a template that is given a secure parameter and does nothing with it but fail.
func (m *machine) deploySecret(ctx context.Context, t *testing.T, value string) {
	t.Helper()
	template := []byte(`{"$schema":"s","contentVersion":"1.0.0.0","parameters":{"key":{"type":"secureString"}},"resources":[
		{"type":"Microsoft.Compute/disks","apiVersion":"2023-10-02","name":"none","location":"westeurope",
		"properties":{"creationData":{"createOption":"[parameters('key')]","sourceUri":"[parameters('key')]"}}}]}`)
	_, err := m.s.Deploy(ctx, m.s.DeploymentID(group, "secret"), template, map[string]any{"key": value})
	if err == nil || strings.Contains(err.Error(), value) {
		t.Errorf("the deployment of a secret ended as %v", err)
	}
}

// walkTables shows every row of every table of a PostgreSQL database, as text; bytes are written in hex.
func walkTables(ctx context.Context, t *testing.T, url string, visit func(table, row string)) {
	t.Helper()
	db := must[*sql.DB](t)(sql.Open("pgx", url))
	defer db.Close()
	rows := func(query string) (all []string) {
		found, err := db.QueryContext(ctx, query)
		if err != nil {
			t.Fatal(err)
		}
		defer found.Close()
		for found.Next() {
			var text string
			if err := found.Scan(&text); err != nil {
				t.Fatal(err)
			}
			all = append(all, text)
		}
		if err := found.Err(); err != nil {
			t.Fatal(err)
		}
		return all
	}
	tables := rows(`SELECT quote_ident(table_name) FROM information_schema.tables WHERE table_schema = current_schema()`)
	if len(tables) < 10 {
		t.Errorf("the database has only the tables %v", tables)
	}
	for _, table := range tables {
		for _, row := range rows(`SELECT (` + table + `.*)::text FROM ` + table) {
			visit(table, row)
		}
	}
}
