package guest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"kluis/internal/tooltest"
)

// Variable is set by `make live`, which runs a libvirt daemon for the tests that need one.
const Variable = "KLUIS_TEST_LIBVIRT"

// Need skips a test that needs a libvirt daemon where there is none.
func Need(t testing.TB) {
	t.Helper()
	if os.Getenv(Variable) == "" {
		t.Skipf("needs a libvirt daemon and guests that boot: make live runs it (%s=1 where a daemon runs)", Variable)
	}
	tooltest.Need(t, "virsh", "qemu-system-x86_64", "qemu-img", "busybox", "cpio", "mkfs.vfat", "mcopy", "cryptsetup")
	if _, err := Virsh(t.Context(), "version"); err != nil {
		tooltest.Missing(t, "libvirtd does not answer: %v", err)
	}
}

var (
	number atomic.Int64
	shared struct {
		sync.Mutex
		lab *Lab
	}
)

// Shared returns the lab that all tests of a process share. End closes it.
func Shared(t testing.TB) *Lab {
	t.Helper()
	Need(t)
	shared.Lock()
	defer shared.Unlock()
	if shared.lab == nil {
		lab, err := NewLab(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		shared.lab = lab
	}
	return shared.lab
}

// End closes the shared lab. TestMain calls it.
func End() {
	shared.Lock()
	defer shared.Unlock()
	if shared.lab != nil {
		_ = shared.lab.Close()
	}
}

// Name makes a name for a domain that no other test and no other run has.
func Name(kind string) string { return fmt.Sprintf("kluis-%s-%d-%d", kind, os.Getpid(), number.Add(1)) }

// RemoveAfter removes the guest when the test is over. Of a test that failed it tells the last that guest and QEMU have said:
// why a QEMU ended, nobody else knows.
func (g *Guest) RemoveAfter(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			for _, path := range []string{filepath.Join("/var/log/libvirt/qemu", g.Name+".log"), g.Serial} {
				text, err := os.ReadFile(path)
				t.Logf("the end of %s %v:\n%s", path, err, text[max(0, len(text)-lastWords):])
			}
		}
		if err := g.Remove(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
}

// lastWords is how much of a log is told, in bytes.
const lastWords = 1500

// New starts a guest with one encrypted qcow2 disk and a key volume, and removes it when the test is over.
func New(t testing.TB, kind, size, arguments string) *Guest {
	t.Helper()
	return NewIn(t, Shared(t), kind, size, arguments)
}

// NewIn is New in a lab.
func NewIn(t testing.TB, lab *Lab, kind, size, arguments string) *Guest {
	t.Helper()
	name := Name(kind)
	data, err := lab.Disk(t.Context(), name+".qcow2", "qcow2", size)
	if err != nil {
		t.Fatal(err)
	}
	bek, err := lab.KeyVolume(t.Context(), name+".bek", "the passphrase of "+name)
	if err != nil {
		t.Fatal(err)
	}
	g, err := lab.Define(t.Context(), Config{Name: name, Arguments: "guest.format=1 " + arguments,
		Disks: []Disk{{Path: data, Format: "qcow2"}, {Path: bek, Format: "raw", ReadOnly: true}}})
	if err != nil {
		t.Fatal(err)
	}
	g.RemoveAfter(t)
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return g
}
