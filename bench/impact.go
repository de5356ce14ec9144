package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"kluis/test/guest"
)

// impact is what the guest felt of something.
type impact struct {
	during string
	frozen time.Duration // the longest time; 0 where nobody said
	took   time.Duration
	writes struct {
		Writes        int
		P50, P99, Max int64 // microseconds
	}
}

const longFelt = 8 * time.Second // how long writes are measured at least: one backup after the other

// feel measures what the guest feels of backups of all of its disk.
func (m *machine) feel(ctx context.Context) error {
	say("what the guest feels")
	err := m.during(ctx, "no backup", func() (time.Duration, error) {
		select {
		case <-time.After(longFelt):
			return 0, nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	})
	if err != nil {
		return err
	}
	dir := m.b.path("felt")
	err = m.during(ctx, "virtnbdbackup", func() (time.Duration, error) {
		if err := errors.Join(m.forget(ctx), os.RemoveAll(dir)); err != nil {
			return 0, err
		}
		return 0, m.peerBackup(ctx, &measured{}, "full", dir)
	})
	if err != nil {
		return err
	}
	if err := m.feelKluis(ctx, "Kluis"); err != nil {
		return err
	}
	return m.feelKluis(ctx, "Kluis at "+liveRate+" a second", "--backup-rate", liveRate)
}

// feelKluis measures a backup of Kluis that reads everything: without its checkpoint nobody knows what changed.
func (m *machine) feelKluis(ctx context.Context, during string, flags ...string) (err error) {
	s, err := m.serve(ctx, m.b.rounds-1, flags...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := guest.Eventually(ctx, func() (bool, error) { return s.run(ctx, nil, "vm", "show", liveName) == nil, nil }); err != nil {
		return err
	}
	return m.during(ctx, during, func() (time.Duration, error) {
		if err := m.forget(ctx); err != nil {
			return 0, err
		}
		if err := s.run(ctx, nil, "backup", "now", liveName); err != nil {
			return 0, err
		}
		var point struct {
			Properties struct {
				Frozen int64 `json:"kluisFrozenMilliseconds"`
			}
		}
		err := s.run(ctx, &point, "recovery-point", "show", "latest", "--item", liveName)
		return time.Duration(point.Properties.Frozen) * time.Millisecond, err
	})
}

// during measures the guest's writes while something goes on.
func (m *machine) during(ctx context.Context, what string, goesOn func() (frozen time.Duration, err error)) error {
	say("  during: %s", what)
	writing, err := m.g.Begin(ctx, "rm -f /run/enough; guestwrites /data/writes /run/enough")
	if err != nil {
		return err
	}
	one := impact{during: what}
	for start := time.Now(); one.took < longFelt; one.took = time.Since(start) {
		frozen, err := goesOn()
		if err != nil {
			return err
		}
		one.frozen = max(one.frozen, frozen)
	}
	if _, err := m.g.Run(ctx, "touch /run/enough"); err != nil {
		return err
	}
	text, err := m.g.Wait(ctx, writing)
	if err != nil {
		return fmt.Errorf("guestwrites: %w", err)
	}
	m.impact = append(m.impact, one)
	return decode([]byte(text), &m.impact[len(m.impact)-1].writes)
}

// writeLive is the part of the report that is about machines that run.
func (b *bench) writeLive(p printer) {
	m := b.machine
	p("A guest of %s of memory and one processor that QEMU emulates in software, with an encrypted disk (LUKS2) of %s and files of %d MiB on it.", "256 MiB", "1 GiB", liveFiles*8+liveWrites)
	p("Between two backups the guest writes %d MiB anew. Both programs back up the same machine in the same state, in turn; medians of %d rounds.", liveChange, b.rounds)
	p("What is measured is a person's command, from its start to its end. Kluis proves in it that the backed-up key opens the backed-up disk; virtnbdbackup takes no keys. Peer: virtnbdbackup %s.", version("virtnbdbackup", "--version"))
	p("The memory of Kluis is that of its server. The kernel, which this guest boots from a file, and virtnbdbackup keeps with each backup, does not count as stored.")
	p("")
	p("| step | Kluis | virtnbdbackup | its figure over ours |")
	p("|---|---|---|---|")
	for _, step := range []struct {
		what         string
		ours, theirs figures
	}{
		{"full backup", m.kluis.full.median(), m.peer.full.median()},
		{"increment", m.kluis.increment.median(), m.peer.increment.median()},
		{"restore of both", m.kluis.restore.median(), m.peer.restore.median()},
	} {
		p("| %s | %.2f s | %.2f s | %.2f |", step.what, step.ours.wall.Seconds(), step.theirs.wall.Seconds(), ratio(step.theirs.wall, step.ours.wall))
		p("| %s: peak memory | %s | %s | %.2f |", step.what, amount(step.ours.memory), amount(step.theirs.memory), float64(step.theirs.memory)/float64(step.ours.memory))
	}
	for _, stored := range []struct {
		what         string
		ours, theirs int64
	}{{"full backup", m.kluis.first, m.peer.first}, {"increment", m.kluis.growth, m.peer.growth}} {
		p("| %s: bytes stored | %s | %s | %.2f |", stored.what, amount(stored.ours), amount(stored.theirs), float64(stored.theirs)/float64(stored.ours))
	}
	p("")
	p("The guest writes 4 KiB and waits until they are durable, over and over, each time in another 64 KiB of its disk, while all of the disk is backed up, again and again for %.0f s:", longFelt.Seconds())
	p("")
	p("| during | for | writes a second | p50 | p99 | longest | guest frozen |")
	p("|---|---|---|---|---|---|---|")
	for _, i := range m.impact {
		frozen := ""
		if i.frozen > 0 {
			frozen = fmt.Sprintf("%d ms", i.frozen.Milliseconds())
		}
		ms := func(us int64) string { return fmt.Sprintf("%.2f ms", float64(us)/1000) }
		p("| %s | %.1f s | %.0f | %s | %s | %s | %s |", i.during, i.took.Seconds(), float64(i.writes.Writes)/i.took.Seconds(), ms(i.writes.P50), ms(i.writes.P99), ms(i.writes.Max), frozen)
	}
	p("")
	p("The longest write is one that the freeze holds up. What the guest overwrites while a backup runs goes to a file on its host and not to the store, so its writes do not wait for a store that is slow.")
}
