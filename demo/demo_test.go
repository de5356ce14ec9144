package main

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kluis/internal/tooltest"
	"kluis/internal/volume/volumetest"
)

// The demo's own disks are what its verdict rests on: a change must reach the decrypted file and nothing
// else, and a file must be read out as it was written.
func TestDiskChangesAsAGuestWould(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-io", "cryptsetup")
	dir := t.TempDir()
	if err := os.Mkdir(imageFolder(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	d := &disk{name: "data", format: "qcow2", passphrase: makePassphrase(), ledgerSize: 4 << 20,
		options: volumetest.Options{Version: 1, PBKDF: "pbkdf2"}}
	if err := d.make(t.Context(), dir, 64<<20, func(float64, string) {}); err != nil {
		t.Fatal(err)
	}
	read := func() []string {
		t.Helper()
		sums, err := hashFilesWithin(t.Context(), dir, d.file, d.passphrase, letterFile, ledgerFile)
		if err != nil {
			t.Fatal(err)
		}
		return sums
	}
	if diff := cmp.Diff([]string{d.letter, d.ledger[0]}, read()); diff != "" {
		t.Errorf("files before the change (-want +got):\n%s", diff)
	}
	if err := d.change(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{d.letter, d.ledger[1]}, read()); diff != "" {
		t.Errorf("files after the change (-want +got):\n%s", diff)
	}
	if d.ledger[0] == d.ledger[1] || d.sha[0] == d.sha[1] {
		t.Error("nothing changed")
	}
	if _, err := hashFilesWithin(t.Context(), dir, d.file, makePassphrase(), letterFile); err == nil {
		t.Error("another key opened the disk")
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{"": defaultSize, "256M": 256 << 20, "1.5GiB": 3 << 29, "134217728": 128 << 20} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"big", "1M", "-1G", "9999999G", "NaN"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", in, got)
		}
	}
}

func TestParametersFor(t *testing.T) {
	template := json.RawMessage(`{"parameters":{"VirtualMachineName":{"type":"string"},"Subnet":{"type":"string"},"vmSize":{"type":"string","defaultValue":"x"}}}`)
	got, err := parametersFor(template, map[string]string{"VirtualMachineName": "vm", "NotAsked": "x"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"VirtualMachineName": "vm", "Subnet": "subnet"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestNameIn(t *testing.T) {
	for _, address := range []string{"https://v.vault.localhost:1/secrets/NAME/0123", "https://localhost:1/keyvault/v/secrets/NAME/0123"} {
		if got := nameIn(address); got != "NAME" {
			t.Errorf("nameIn(%s) = %q", address, got)
		}
	}
	if got := nameIn("%zz"); got != "" {
		t.Errorf("a malformed address has the name %q", got)
	}
}
