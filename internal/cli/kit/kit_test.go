package kit_test

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kluis/internal/cli"
	"kluis/internal/cli/kit"
	"kluis/internal/seal"
)

func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	root := cli.New(nil, kit.Command(kit.Options{Now: func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }}))
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	code = cli.Execute(t.Context(), root, append([]string{"recovery-kit"}, args...))
	return code, out.String(), errs.String()
}

func TestRecoveryKit(t *testing.T) {
	data := t.TempDir()
	r, _, err := seal.OpenOrCreate(filepath.Join(data, "seal"), seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := r.Seal("c", []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "installation.json"), []byte(`{"tenantId":"the-tenant","subscriptionId":"the-subscription"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	code, printed, _ := run(t, "--data", data)
	if code != 0 || !strings.Contains(printed, "# tenant: the-tenant\n") {
		t.Errorf("exit code %d, %.300s", code, printed)
	}
	path := filepath.Join(t.TempDir(), "kit.txt")
	if code, out, errs := run(t, "--data", data, "--out", path); code != 0 || strings.Contains(out, "AGE-SECRET-KEY") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != printed {
		t.Errorf("the file differs from what is printed: %v", err)
	}
	opened, err := seal.OpenKit(path, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := opened.Open("c", sealed); err != nil || string(plain) != "plain" {
		t.Error(err)
	}
	if code, _, errs := run(t, "--data", data, "--out", path); code != 1 || !strings.Contains(errs, "exists") {
		t.Errorf("an older kit is overwritten: %d %s", code, errs)
	}
	if code, _, errs := run(t, "--data", t.TempDir()); code != 1 || !strings.Contains(errs, "identity") {
		t.Errorf("a folder without a seal: %d %s", code, errs)
	}
}
