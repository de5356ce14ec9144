package main_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"kluis/test/guest"
)

// rights are those that docs/operations.md gives the server on a host, and a host that grants them and no others.
type rights struct {
	t      *testing.T
	lists  map[string][]string // actions, by the names that the rules give the lists
	polkit *guest.Polkit
	daemon *guest.Daemon
	who    *syscall.Credential // the server
	asked  []string            // for what it has asked by now
}

// kluis is the user of the rules, whom the machine need not have.
const kluis = 64999

func newRights(t *testing.T) *rights {
	t.Helper()
	rules := documentedRules(t)
	r := &rights{t: t, lists: map[string][]string{}, polkit: guest.NewPolkit(t, rules, "kluis", kluis)}
	for _, list := range regexp.MustCompile(`(?s)var (\w+) = \[(.*?)\]`).FindAllStringSubmatch(rules, -1) {
		for _, action := range regexp.MustCompile(`"(.*?)"`).FindAllStringSubmatch(list[2], -1) {
			r.lists[list[1]] = append(r.lists[list[1]], action[1])
		}
	}
	r.daemon = r.polkit.Daemon(t)
	r.who = &syscall.Credential{Uid: kluis, Gid: nobody, Groups: []uint32{uint32(groupOfQEMU(t))}}
	return r
}

// documentedRules are the rules for polkit as an operator copies them.
func documentedRules(t *testing.T) string {
	t.Helper()
	var rules strings.Builder
	inside := false
	for line := range strings.Lines(string(must[[]byte](t)(os.ReadFile("../../docs/operations.md")))) {
		if inside = inside || strings.HasPrefix(line, "polkit.addRule("); inside {
			rules.WriteString(line)
		}
		inside = inside && line != "});\n"
	}
	return rules.String()
}

// folders makes the folders that the server is given.
func (r *rights) folders(keys, live string) {
	r.t.Helper()
	group := int(r.who.Groups[0])
	if err := errors.Join(os.Chown(keys, kluis, -1), os.Mkdir(live, 0o770), os.Chown(live, kluis, group), os.Chmod(live, 0o770|os.ModeSetgid)); err != nil {
		r.t.Fatal(err)
	}
}

// within fails if what was done since it was last called took more than what the lists allow.
func (r *rights) within(what string, lists ...string) {
	r.t.Helper()
	var allowed []string
	for _, list := range lists {
		allowed = append(allowed, r.lists[list]...)
	}
	for _, asked := range r.polkit.Asked(r.t) {
		action, ours := strings.CutPrefix(asked, "org.libvirt.api.")
		if ours && !slices.Contains(allowed, action) && !slices.Contains(r.asked, action) {
			r.t.Errorf("%s takes %s, which the rules don't allow", what, action)
		}
		r.asked = append(r.asked, action)
	}
}

// needed fails if the rules allow what nothing has asked for, which could be left out of them.
func (r *rights) needed() {
	r.t.Helper()
	for name, list := range r.lists {
		for _, action := range list {
			if !slices.Contains(r.asked, action) {
				r.t.Errorf("nothing asks for %s of the list %s", action, name)
			}
		}
	}
}

// denied fails unless the server is refused what is in no list, and others everything.
func (r *rights) denied(machine string) {
	r.t.Helper()
	r.within("what was before", "backup", "run")
	for _, c := range []struct {
		uid  uint32
		verb []string
		says string
	}{
		{kluis, []string{"resume", machine}, "already running"}, // what a backup does for a guest that ran out of scratch space
		{kluis, []string{"managedsave", machine}, "access denied"},
		{kluis, []string{"reset", machine}, "access denied"},
		{kluis, []string{"snapshot-create", machine}, "access denied"},
		{kluis, []string{"dump", machine, filepath.Join(r.t.TempDir(), "memory")}, "access denied"},
		{kluis, []string{"migrate", "--p2p", machine, "qemu+tcp://192.0.2.1/system"}, "access denied"},
		{kluis, []string{"net-destroy", "default"}, "access denied"},
		{kluis, []string{"pool-list"}, "access denied"},
		{kluis, []string{"secret-list"}, "access denied"},
		{nobody, []string{"list"}, "no polkit agent available"},
	} {
		cmd := exec.CommandContext(r.t.Context(), "virsh", append([]string{"-q", "-c", r.daemon.URI()}, c.verb...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.uid, Gid: nobody}}
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), c.says) {
			r.t.Errorf("user %d is told of %s: %s, %v", c.uid, c.verb[0], out, err)
		}
	}
	for _, asked := range r.polkit.Asked(r.t) {
		if asked == "org.libvirt.api.domain.suspend" {
			r.asked = append(r.asked, "domain.suspend")
		}
	}
}
