package live_test

import (
	"context"
	"errors"
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
			w.cutOff(t, phase, func(ctx context.Context) error {
				if err := daemon.Kill(); err != nil {
					return err
				}
				return daemon.Again(ctx)
			})
		})
		t.Run("QEMU in "+phase.name, func(t *testing.T) {
			w.cutOff(t, phase, func(ctx context.Context) error {
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
	w.same()
}

// cutOff has something die in a phase of a backup, and come back.
func (w *world) cutOff(t *testing.T, p phase, die func(context.Context) error) {
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
	w.point(w.begin())
	w.clean()
}
