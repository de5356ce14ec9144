package live_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"kluis/internal/client"
	"kluis/test/guest"
)

// QEMU and libvirt are killed in each phase of a backup. The backup that was cut off fails for a reason that a person
// understands, or is done all the same; the guest is never left frozen; and the next backup is right.
func TestKillTheHost(t *testing.T) {
	daemon := guest.NewDaemon(t, nil)
	w := newWorldOn(t, "host", daemon.URI(), guest.Config{})
	w.point(w.begin())
	for _, phase := range w.phases() {
		t.Run("libvirt in "+phase.name, func(t *testing.T) {
			w.cutOff(t, daemon, phase, func(ctx context.Context) error {
				if err := daemon.Kill(); err != nil {
					return err
				}
				return daemon.Again(ctx)
			})
		})
		t.Run("QEMU in "+phase.name, func(t *testing.T) {
			w.cutOff(t, daemon, phase, func(ctx context.Context) error {
				if err := daemon.KillQEMU(w.g); err != nil {
					return err
				}
				err := guest.Eventually(ctx, func() (bool, error) {
					state, err := w.g.State(ctx)
					return state == "shut off", err
				})
				if err != nil {
					return err
				}
				return w.g.Start(ctx)
			})
		})
	}
	t.Run("libvirt as a job begins", func(t *testing.T) {
		for range 5 {
			held := w.cutOff(t, daemon, phase{"", func(context.Context) bool { return true }}, func(ctx context.Context) error {
				return errors.Join(daemon.KillAsJobBegins(ctx, w.g), daemon.Again(ctx))
			})
			if held || t.Failed() {
				return
			}
		}
		t.Error("libvirt was always killed too late to be seen to keep the machine")
	})
	w.same()
}

// cutOff has something die in a phase of a backup, and come back. It reports whether the machine had to be stopped and started.
func (w *world) cutOff(t *testing.T, daemon *guest.Daemon, p phase, die func(context.Context) error) (held bool) {
	t.Helper()
	if _, err := w.g.Run(t.Context(), "dd if=/dev/urandom of=/data/w bs=1024 count=8192; sync"); err != nil {
		t.Fatal(err)
	}
	job := w.begin()
	if !w.awaitPhase(job, p.is) {
		t.Log("the phase was over before it was seen; the kill came after it")
	}
	if err := die(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := guest.Eventually(ctx, func() (bool, error) { return w.thawed(ctx) == nil, nil }); err != nil {
		t.Error("the guest is left frozen")
	}
	j, err := w.WaitJob(t.Context(), w.vault, job, nil)
	t.Logf("the backup ends as %s, %v", j.Properties.Status, err)
	if e, ok := errors.AsType[*client.Error](err); ok && e.Code == "BMSUserErrorInternal" || err != nil && !ok {
		t.Errorf("the backup fails of %v", err)
	}
	held = w.next(t, daemon)
	w.clean()
	return held
}

// next takes a backup. A libvirt that was ended as a job began keeps the machine for it, and does not know any more what it
// was: that is what is told then, and what is advised helps.
func (w *world) next(t *testing.T, daemon *guest.Daemon) (held bool) {
	t.Helper()
	job := w.begin()
	_, err := w.WaitJob(t.Context(), w.vault, job, nil)
	if said, ok := errors.AsType[*client.Error](err); !ok || !strings.Contains(said.Message, "keeps the virtual machine") {
		w.point(job)
		return false
	}
	if said, err := w.g.Virsh(t.Context(), "domjobinfo", w.g.Name); err == nil || !strings.Contains(err.Error(), "backup job data missing") {
		t.Errorf("libvirt is said to keep the machine, and says of its job: %s %v", said, err)
	}
	err = errors.Join(w.CutVM(t.Context(), w.vm), daemon.Kill(), daemon.Again(t.Context()))
	if err := errors.Join(err, w.StartVM(t.Context(), w.vm)); err != nil {
		t.Fatal(err)
	}
	w.point(w.begin())
	return true
}
