package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kluis/internal/client"
	"kluis/internal/secret"
)

// TestUnsealByAnotherServer keeps no identity on the server's disk: another server's key vault unwraps it at each start.
// While that is away the server does not start, and says why.
func TestUnsealByAnotherServer(t *testing.T) {
	ctx := soon(t)
	o := newOutsider(ctx, t)
	o.allow(ctx, t, client.Permissions{Keys: []string{"wrapKey", "unwrapKey"}})
	services := o.services(t, "")
	s := newServer(t, "", "--key-services", services)
	must[client.Group](t)(s.PutGroup(ctx, group, location))
	m := &machine{s: s}
	m.makeKeyVault(ctx, t)
	must[client.Secret](t)(s.SetSecret(ctx, m.kv.Properties.VaultURI, "planted", secret.New([]byte("what was sealed")), "", nil))

	recipient := "azure-key-vault:" + o.kek.ID()[:strings.LastIndexByte(o.kek.ID(), '/')]
	if _, err := s.AddRecipient(ctx, recipient+"-other"); err == nil {
		t.Error("a key that is not there is a recipient")
	}
	if all := must[client.Seal](t)(s.AddRecipient(ctx, recipient)).Recipients; !slices.Contains(all, recipient) {
		t.Errorf("the recipients are %v", all)
	}
	s.stop()
	identity := filepath.Join(s.dir, "seal", "seal-identity.txt")
	if err := os.Remove(identity); err != nil {
		t.Fatal(err)
	}
	s.start()
	uri := must[client.KeyVault](t)(s.KeyVault(ctx, m.kv.ARMID())).Properties.VaultURI // another port
	if got := must[client.Secret](t)(s.SecretValue(ctx, uri, "planted")); string(got.Value.Reveal()) != "what was sealed" {
		t.Error("the secret reads otherwise")
	}
	if _, err := s.RemoveRecipient(ctx, recipient); err == nil {
		t.Error("the recipient by which the server starts was removed")
	}
	must[client.Seal](t)(s.RotateSeal(ctx))
	kluis := must[string](t)(binary())
	if out, err := exec.Command(kluis, "recovery-kit", "--data", s.dir, "--key-services", services).CombinedOutput(); err != nil || !strings.Contains(string(out), "AGE-SECRET-KEY") {
		t.Errorf("the recovery kit: %v", err)
	}
	s.stop()
	s.start() // under the rotated root
	s.stop()
	o.kill()
	out, err := exec.Command(kluis, s.args...).CombinedOutput()
	s.cmd = nil
	if err == nil || !strings.Contains(string(out), "does not answer") || !strings.Contains(string(out), kvName) {
		t.Errorf("with the key vault away: %v\n%s", err, out)
	}
}
