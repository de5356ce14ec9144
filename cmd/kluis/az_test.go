package main_test

import (
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/tooltest"
)

// shell runs a script in which kluis is this binary and the server is the one under test.
func (s *server) shell(script string) string {
	s.t.Helper()
	path, err := binary()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(soon(s.t), "sh", "-ec", script)
	cmd.Env = append(cmd.Environ(), "PATH="+filepath.Dir(path)+":/usr/sbin:/usr/bin:/bin", "HOME="+s.t.TempDir(),
		"KLUIS_ADMIN="+filepath.Join(s.dir, "admin.json"))
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s%s", script, err, out, &errs)
	}
	return string(out)
}

// One line signs az in, and does so again. What Debian's package gets wrong about virtual machines is mended.
func TestAzSignsIn(t *testing.T) {
	tooltest.Need(t, "az")
	s := newServer(t, "")
	out := s.shell(`
		eval "$(kluis cloud az)"
		az group create --name prod --location local --output none
		eval "$(kluis cloud az)"
		az group list --output json --query '[].id'
		az vm list --output json`)
	d := json.NewDecoder(strings.NewReader(out))
	var groups, machines []string
	if err := errors.Join(d.Decode(&groups), d.Decode(&machines)); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if len(groups) != 1 || groups[0] != s.Subscription().Group("prod").String() || machines == nil || len(machines) != 0 {
		t.Errorf("az says %s", out)
	}
}
