package main_test

import (
	"encoding/json"
	"strings"
	"testing"

	"kluis/internal/client"
)

// A person is made with a role and a password of his own or a drawn one, gets another, is disabled, and is gone.
func TestUserCommands(t *testing.T) {
	s := newServer(t, "")
	var made client.Principal
	if err := json.Unmarshal([]byte(s.shell(`echo 'correct horse battery staple' | kluis user create ada@example.com --name 'Ada Lovelace' --role Reader -o json`)), &made); err != nil {
		t.Fatal(err)
	}
	if p := made.Properties; p.SignInName != "ada@example.com" || p.DisplayName != "Ada Lovelace" || p.Kind != client.KindUser || p.SecretText != "" || p.AppID != "" {
		t.Errorf("made %s", made.Raw)
	}
	out := s.shell(`kluis user create bob --generate-password; kluis user show bob; kluis user list; kluis role assigned`)
	if strings.Count(out, "Password ") != 1 || !strings.Contains(out, "Ada Lovelace") || !strings.Contains(out, made.Name) {
		t.Errorf("out %s", out)
	}
	if out := s.shell("kluis principal list"); strings.Contains(out, "Ada") || strings.Contains(out, "bob") {
		t.Errorf("people are among the applications: %s", out)
	}
	if out := s.shell("kluis user disable bob; kluis user show " + made.Name + "; kluis user show BOB"); strings.Count(out, "Disabled") != 2 || !strings.Contains(out, "Reader at /subscriptions/") {
		t.Errorf("out %s", out)
	}
	if out := s.shell("kluis user enable bob; kluis user sign-out bob; kluis user reset-password bob --generate-password"); !strings.Contains(out, "Password") {
		t.Errorf("out %s", out)
	}
	if out := s.shell("kluis user delete bob; kluis user list"); strings.Contains(out, "Enabled   bob") || strings.Contains(out, "Bob") || !strings.Contains(out, "ada@example.com") {
		t.Errorf("out %s", out)
	}
}
