package keyvault_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"kluis/internal/armid"
	"kluis/internal/database/databasetest"
	"kluis/internal/keyvault"
	"kluis/internal/problem"
	"kluis/internal/seal"
	"kluis/internal/secret"
)

// Of SQLite's write-ahead log: a header, then frames of one page each. A frame that ends a transaction says how many
// pages the database has then; others say 0.
const logHeader, frameHeader = 32, 24

// TestCrashAtAnyWrite cuts the write-ahead log of a key vault's life after each transaction and within it, as a
// power cut does, and reads everything back: what was answered is there, it holds what was set, and the log of uses is
// whole.
func TestCrashAtAnyWrite(t *testing.T) {
	dir, sealDir := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "kluis.db")
	if err := databasetest.Open(t, "sqlite:"+path).Close(); err != nil { // brings the tables into the file
		t.Fatal(err)
	}
	base := fileOf(t, path)
	root, _, err := seal.OpenOrCreate(sealDir, seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := openWith(t, databasetest.Open(t, "sqlite:"+path), root)
	answered := map[string]int{} // how long the log was when a secret's setting was answered
	step := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	set := func(name string) {
		t.Helper()
		_, err := r.SetSecret(r.alice, "kv1", name, secret.New([]byte("the value of "+name)), keyvault.Change{})
		step(err)
		answered[name] = len(fileOf(t, path+"-wal"))
	}
	r.putVault("kv1")
	set("one")
	set("two")
	_, err = r.CreateKey(r.alice, "kv1", "key", keyvault.NewKey{Type: "EC"})
	step(err)
	_, err = r.DeleteSecret(r.alice, "kv1", "two")
	step(err)
	_, err = r.RecoverSecret(r.alice, "kv1", "two")
	step(err)
	step(root.Rotate())
	set("three")

	log := fileOf(t, path+"-wal")
	frame := frameHeader + int(binary.BigEndian.Uint32(log[8:]))
	cuts := 0
	for end := logHeader + frame; end <= len(log); end += frame {
		if binary.BigEndian.Uint32(log[end-frame+4:]) == 0 {
			continue
		}
		for _, cut := range []int{end - frame/2, end} {
			cuts++
			readBack(t, sealDir, base, log[:cut], answered)
		}
	}
	if cuts < 16 {
		t.Errorf("there were only %d places to cut in %d bytes", cuts, len(log))
	}
}

// readBack starts on what a crash has left.
func readBack(t *testing.T, sealDir string, base, log []byte, answered map[string]int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kluis.db")
	for name, data := range map[string][]byte{path: base, path + "-wal": log} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	db := databasetest.Open(t, "sqlite:"+path)
	defer db.Close()
	r := open(t, db, sealDir)
	for name, since := range answered {
		s, err := r.Secret(r.alice, keyvault.SecretID{Vault: "kv1", Name: name})
		switch {
		case err == nil && string(s.Value.Reveal()) != "the value of "+name:
			t.Errorf("cut at %d: %s holds something else", len(log), name)
		case err != nil && problem.KindOf(err) != problem.NotFound:
			t.Errorf("cut at %d: %s: %v", len(log), name, err)
		case err != nil && len(log) >= since && name != "two": // which was deleted for a while
			t.Errorf("cut at %d: %s is lost, which was there at %d", len(log), name, since)
		}
	}
	report, err := r.VerifyAudit(r.alice, armid.Subscription("22222222-2222-2222-2222-222222222222"), "")
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("cut at %d: the log of uses: %v, %v", len(log), report.Findings, err)
	}
	if _, err := r.Reseal(r.alice); err != nil {
		t.Errorf("cut at %d: seal anew: %v", len(log), err)
	}
}

func fileOf(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
