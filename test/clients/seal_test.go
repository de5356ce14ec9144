package clients_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

// The root key is rotated while the server serves, and the server is killed at once: after the next start nothing is
// left under the older root, every secret is there, the log of uses is whole, and the recovery kit is written.
func TestSealRotatesAndTheServerIsKilled(t *testing.T) {
	s := start(t)
	url := s.newVault(t, "kv-seal", nil, everySecret)
	const secrets = 60
	for n := range secrets {
		must[azsecrets.SetSecretResponse](t)(s.secrets(t, url).SetSecret(t.Context(), fmt.Sprintf("s%d", n), azsecrets.SetSecretParameters{Value: new(fmt.Sprintf("value %d", n))}, nil))
	}
	before := s.sealStatus(t)
	for range 3 {
		s.run(t, "seal", "rotate")
		s.kill(t)
		s = startIn(t, s.data)
	}
	url = "https://kv-seal." + s.suffix + "/"
	for n := range secrets {
		got := must[azsecrets.GetSecretResponse](t)(s.secrets(t, url).GetSecret(t.Context(), fmt.Sprintf("s%d", n), "", nil))
		if *got.Value != fmt.Sprintf("value %d", n) {
			t.Errorf("secret %d has another value", n)
		}
	}
	for st := s.sealStatus(t); st.Pending > 0; st = s.sealStatus(t) {
		if err := t.Context().Err(); err != nil { // the test's own time limit
			t.Fatalf("%d are left under an older root key", st.Pending)
		}
	}
	if after := s.sealStatus(t); after.Root == before.Root {
		t.Error("the root key is the same")
	}
	if out := s.run(t, "audit", "verify"); !strings.Contains(out, "The log is whole") {
		t.Error(out)
	}
	copies, err := filepath.Glob(filepath.Join(s.data, "store", "seal", "*.age"))
	if err != nil || len(copies) != 4 {
		t.Errorf("the store holds %d copies of root keys, want one for the first and one for each rotation: %v", len(copies), err)
	}
	kit := filepath.Join(t.TempDir(), "kit.txt")
	s.run(t, "recovery-kit", "--data", s.data, "--out", kit)
	if text, err := os.ReadFile(kit); err != nil || !strings.Contains(string(text), "tenant: "+s.tenant) {
		t.Errorf("the recovery kit: %v", err)
	}
}

type sealStatus struct {
	Root    string
	Pending int
}

func (s *server) sealStatus(t *testing.T) (st sealStatus) {
	t.Helper()
	if err := json.Unmarshal([]byte(s.run(t, "seal", "status", "--output", "json")), &st); err != nil {
		t.Fatal(err)
	}
	return st
}
