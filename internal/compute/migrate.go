package compute

import (
	"context"
	"slices"

	"kluis/internal/fabric"
)

// A machine that moves from one host to another keeps its VM, and with it its disks, its protection and its recovery
// points: it is the same UUID. While it moves both hosts have it, the one that it leaves and the one that prepares to
// take it; it belongs to the first until that no longer lists it. A host that does not answer keeps what it has, unless
// another one runs it.

// leave forgets a machine that its host no longer has, unless it has moved.
func (d discovery) leave(ctx context.Context, row machineRow) error {
	host, m, found := d.s.presence.elsewhere(d.host, row.uuid)
	if !found {
		return d.drop(ctx, row)
	}
	d.host = host
	return d.take(ctx, row, m)
}

// arrive settles a machine that a host has: one that was there before, one that has moved there, or a new one. One that
// another host has still is left with that.
func (d discovery) arrive(ctx context.Context, known []machineRow, m fabric.Machine) error {
	if slices.ContainsFunc(known, func(r machineRow) bool { return r.uuid == m.UUID }) {
		return d.settle(ctx, known, m)
	}
	row, found, err := selectMachineBeyond(ctx, d.tx, d.host, m.UUID)
	switch {
	case err != nil:
		return err
	case !found:
		return d.settle(ctx, known, m)
	case d.s.presence.keeps(row.host, m), d.s.presence.making(row.host, m.UUID) != 0:
		return nil
	}
	return d.take(ctx, row, m)
}

// take makes a machine this host's that was another's.
func (d discovery) take(ctx context.Context, row machineRow, m fabric.Machine) error {
	d.s.o.Log.Info("machine has moved", "machine", row.vm.ID.Name(), "from", row.host, "to", d.host)
	row.host = d.host
	return d.settle(ctx, []machineRow{row}, m)
}

// list notes what a host has.
func (p *presence) list(host string, machines []fabric.Machine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lists[host] = machines
}

// elsewhere finds a machine on another host that answers.
func (p *presence) elsewhere(host, uuid string) (on string, m fabric.Machine, found bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for other, machines := range p.lists {
		i := slices.IndexFunc(machines, func(m fabric.Machine) bool { return m.UUID == uuid })
		if other != host && i >= 0 {
			return other, machines[i], true
		}
	}
	return "", m, false
}

// keeps reports whether a host still has a machine that another host has, too. One that does not answer is believed to,
// unless the machine runs on the other.
func (p *presence) keeps(host string, there fabric.Machine) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	machines, answers := p.lists[host]
	if !answers {
		return there.State != fabric.Running
	}
	return slices.ContainsFunc(machines, func(m fabric.Machine) bool { return m.UUID == there.UUID })
}
