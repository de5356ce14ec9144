package main_test

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/client"
	"kluis/internal/secret"
)

// A principal is made with a role, logs in, gets another secret, is disabled, and is gone.
func TestPrincipalCommands(t *testing.T) {
	s := newServer(t, "")
	s.shell("kluis group create prod; kluis group create other")
	var made client.Principal
	if err := json.Unmarshal([]byte(s.shell(`kluis principal create ci --role Reader -g prod --expires 2999-01-01 -o json`)), &made); err != nil {
		t.Fatal(err)
	}
	as := func(clientSecret string) *client.Client {
		t.Helper()
		admin := must[client.Admin](t)(client.ReadAdmin(filepath.Join(s.dir, "admin.json")))
		admin.ClientID, admin.ClientSecret = made.Properties.AppID, secret.New([]byte(clientSecret))
		return must[*client.Client](t)(client.New(admin))
	}
	refused := func(c *client.Client, group string) bool {
		_, err := c.Group(soon(t), group)
		return err != nil
	}
	first := as(made.Properties.SecretText)
	if refused(first, "prod") || !refused(first, "other") {
		t.Error("the principal sees another group than its own")
	}
	if out := s.shell("kluis principal show ci"); !strings.Contains(out, "Reader at /subscriptions/") || !strings.Contains(out, "until 2999-01-01") || strings.Contains(out, made.Properties.SecretText) {
		t.Errorf("show prints %s", out)
	}

	var rotated client.Credential
	if err := json.Unmarshal([]byte(s.shell("kluis principal rotate ci -o json")), &rotated); err != nil {
		t.Fatal(err)
	}
	if !refused(as(made.Properties.SecretText), "prod") || refused(as(rotated.SecretText), "prod") {
		t.Error("not the new secret works, but the old one")
	}
	working := as(rotated.SecretText)
	if refused(working, "prod") {
		t.Error("the principal is refused before it is disabled")
	}
	if s.shell("kluis principal disable ci"); !refused(working, "prod") || !refused(as(rotated.SecretText), "prod") {
		t.Error("a disabled principal is let in")
	}
	if s.shell("kluis principal enable ci"); refused(as(rotated.SecretText), "prod") {
		t.Error("an enabled principal is not let in")
	}
	if out := s.shell("kluis principal set-redirect-uris ci https://portal.example.com/a; kluis principal show ci"); strings.Count(out, "https://portal.example.com/a") != 2 {
		t.Errorf("show prints %s", out)
	}
	var keys []client.Credential
	if err := json.Unmarshal([]byte(s.shell("kluis principal rotate-signing-key -o json")), &keys); err != nil || len(keys) != 2 || refused(working, "prod") {
		t.Errorf("signing keys are %v, %v; and the tokens of the one before are refused: %t", keys, err, refused(working, "prod"))
	}
	if err := json.Unmarshal([]byte(s.shell("kluis principal rotate-signing-key --revoke-tokens -o json")), &keys); err != nil || len(keys) != 1 || !refused(working, "prod") || refused(as(rotated.SecretText), "prod") {
		t.Errorf("signing keys are %v, %v; and the tokens of those before are refused: %t", keys, err, refused(working, "prod"))
	}
	out := s.shell("kluis principal delete ci; kluis principal list")
	if strings.Contains(out, made.Properties.AppID) || !strings.Contains(out, "admin") || !strings.Contains(out, "Backup Management Service") {
		t.Errorf("list prints %s", out)
	}
	var e *client.Error
	if err := s.DeletePrincipal(soon(t), s.ClientID()); !errors.As(err, &e) || e.Code != "OwnPrincipal" {
		t.Errorf("deleting oneself: %v", err)
	}
}
