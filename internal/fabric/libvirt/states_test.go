package libvirt_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/fabric"
	"kluis/test/guest"
)

// A guest is backed up in whatever state it is found: with scripts that must run, on a host that has forgotten the
// checkpoint, while it boots, and when it cannot unlock its disk.
func TestStatesOfAGuest(t *testing.T) {
	h := newHost(t, nil)
	f := &failures{h: h, g: guest.New(t, "states", "256M", "guest.files=2")}
	f.vm = machineOf(t, h, f.g)
	f.backUp(t, nil)
	for _, c := range []struct {
		name string
		try  func(*testing.T)
	}{
		{"scripts", f.scripts},
		{"a script that fails and may", f.scriptsGoOn},
		{"a script that fails and may not", f.scriptsRefuse},
		{"a machine that was undefined and defined again", f.definedAgain},
		{"a guest that boots", f.boots},
		{"a wrong key volume", f.wrongKey},
	} {
		if !t.Run(c.name, c.try) {
			return
		}
	}
}

func (f *failures) definedAgain(t *testing.T) {
	f.virsh(t, "shutdown", "--mode", "agent", f.g.Name)
	f.awaitState(t, "shut off")
	xml := filepath.Join(t.TempDir(), "domain.xml")
	if err := os.WriteFile(xml, []byte(f.virsh(t, "dumpxml", "--inactive", f.g.Name)), 0o600); err != nil {
		t.Fatal(err)
	}
	f.virsh(t, "undefine", "--checkpoints-metadata", f.g.Name)
	f.virsh(t, "define", xml)
	// The bitmap is still in the image, and libvirt believes us that it is a checkpoint's.
	f.incremental(t)
}

// boots begins a backup before the agent is there. A job that did not wait for it would keep it from ever coming.
func (f *failures) boots(t *testing.T) {
	if err := os.Remove(f.g.Serial); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	f.virsh(t, "start", f.g.Name)
	why, level := f.backUp(t, nil)
	if why != "" || level.Level != fabric.FileSystemConsistent {
		t.Errorf("a backup of a guest that boots is %+v, %q", level, why)
	}
	if err := f.g.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.incremental(t)
}

func (f *failures) wrongKey(t *testing.T) {
	f.virsh(t, "shutdown", "--mode", "agent", f.g.Name)
	f.awaitState(t, "shut off")
	volume := strings.TrimSuffix(f.path(), ".qcow2") + ".bek"
	wrong := exec.CommandContext(t.Context(), "mcopy", "-o", "-i", volume, "-", "::LinuxPassPhraseFileName")
	wrong.Stdin = strings.NewReader("of another disk")
	if out, err := wrong.CombinedOutput(); err != nil {
		t.Fatalf("mcopy: %v: %s", err, out)
	}
	if err := f.g.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "FAIL unlock") {
		t.Errorf("with the wrong key the guest says %v", err)
	}
	why, level := f.backUp(t, nil)
	if why != "" || level.Level != fabric.CrashConsistent || !strings.Contains(level.Reason, "no file system to freeze") {
		t.Errorf("a backup of a guest that is locked is %+v, %q", level, why)
	}
	clean(t, f.g, 1)
}
