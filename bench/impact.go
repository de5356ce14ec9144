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
	during  string
	backups int
	frozen  time.Duration // the longest time; 0 where nobody said
	took    time.Duration
	writes  struct {
		Took []int64 // microseconds, ascending
	}
}

// unfrozen are the writes without those that a freeze held up. The guest writes one after the other, so that is one of each
// backup, and hardly another one takes as long.
func (i impact) unfrozen() []int64 {
	all := i.writes.Took
	return all[:max(1, len(all)-i.backups)]
}

// quantile is how long all but so many percent of writes took at most.
func quantile(took []int64, percent int) string {
	return fmt.Sprintf("%.2f ms", float64(took[min(len(took)-1, len(took)*percent/100)])/1000)
}

const longFelt = 8 * time.Second // how long writes are measured at least: one backup after the other

// feel measures what the guest feels of backups of all of its disk.
func (m *machine) feel(ctx context.Context) error {
	say("what the guest feels")
	err := m.during(ctx, "no backup", func(*impact) error {
		select {
		case <-time.After(longFelt):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	if err != nil {
		return err
	}
	dir := m.b.path("felt")
	err = m.during(ctx, "virtnbdbackup", func(one *impact) error {
		one.backups++
		if err := errors.Join(m.forget(ctx), os.RemoveAll(dir)); err != nil {
			return err
		}
		return m.peerBackup(ctx, &measured{}, "full", dir)
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
	return m.during(ctx, during, func(one *impact) error {
		one.backups++
		if err := m.forget(ctx); err != nil {
			return err
		}
		if err := s.run(ctx, nil, "backup", "now", liveName); err != nil {
			return err
		}
		var point struct {
			Properties struct {
				Frozen int64 `json:"kluisFrozenMilliseconds"`
			}
		}
		err := s.run(ctx, &point, "recovery-point", "show", "latest", "--item", liveName)
		one.frozen = max(one.frozen, time.Duration(point.Properties.Frozen)*time.Millisecond)
		return err
	})
}

// during measures the guest's writes while something goes on.
func (m *machine) during(ctx context.Context, what string, goesOn func(*impact) error) error {
	say("  during: %s", what)
	writing, err := m.g.Begin(ctx, "rm -f /run/enough; guestwrites /data/writes /run/enough")
	if err != nil {
		return err
	}
	one := impact{during: what}
	for start := time.Now(); one.took < longFelt; one.took = time.Since(start) {
		if err := goesOn(&one); err != nil {
			return err
		}
	}
	if _, err := m.g.Run(ctx, "touch /run/enough"); err != nil {
		return err
	}
	text, err := m.g.Wait(ctx, writing)
	if err != nil {
		return fmt.Errorf("guestwrites: %w", err)
	}
	if err := decode([]byte(text), &one.writes); err != nil {
		return err
	}
	m.impact = append(m.impact, one)
	return nil
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
	p("| during | for | backups | writes a second | p50 | p99 | p99 without freezes | longest | guest frozen |")
	p("|---|---|---|---|---|---|---|---|---|")
	for _, i := range m.impact {
		frozen := ""
		if i.frozen > 0 {
			frozen = fmt.Sprintf("%d ms", i.frozen.Milliseconds())
		}
		all := i.writes.Took
		p("| %s | %.1f s | %d | %.0f | %s | %s | %s | %s | %s |", i.during, i.took.Seconds(), i.backups, float64(len(all))/i.took.Seconds(),
			quantile(all, 50), quantile(all, 99), quantile(i.unfrozen(), 99), quantile(all, 100), frozen)
	}
	p("")
	p("Each backup begins with a freeze of the guest's file systems, which holds up one write; those are the longest. Whoever makes more backups in that time has more of them, and beyond one write in a hundred they are the p99. In the column without freezes as many of the longest writes are left out as there were backups.")
	p("What the guest overwrites while a backup runs goes to a file on its host and not to the store, so its writes do not wait for a store that is slow.")
}
