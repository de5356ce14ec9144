package compute

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/fabric"
)

// What a host runs becomes VMs and disks by itself. A machine is known by host and UUID, so that a new name on its host
// changes nothing here, where names are for ever; one that moves to another host stays the same VM (migrate.go). What
// people have set on the resources (tags, encryption settings) stays; what the host knows better (disks, size, state)
// follows the host.

// Discover brings the VMs of a host into agreement with the machines that it has now. One that is new gets resources in
// the group that is named for it, else in the group named like the host; those of one that is gone go with it.
func (s *Service) Discover(ctx context.Context, host string, machines []fabric.Machine) error {
	s.presence.list(host, machines) // first, so that of two hosts between which a machine moves one at least sees the other's
	locations := map[string]string{}
	for _, group := range groupsOf(host, machines) {
		location, err := s.o.HostGroups.EnsureGroup(ctx, group)
		if err != nil {
			return fmt.Errorf("make resource group %s: %w", group, err)
		}
		locations[group] = location
	}
	err := s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		known, err := selectMachinesOn(ctx, tx, host)
		if err != nil {
			return err
		}
		d := discovery{s: s, tx: tx, host: host, locations: locations}
		for _, row := range known { // first, for a new machine may have the name of one that is gone
			there := slices.ContainsFunc(machines, func(m fabric.Machine) bool { return m.UUID == row.uuid })
			if there || s.presence.making(host, row.uuid) != 0 {
				continue
			}
			if err := d.leave(ctx, row); err != nil {
				return fmt.Errorf("machine %s that left host %s: %w", row.vm.ID.Name(), host, err)
			}
		}
		for _, m := range machines {
			if s.presence.making(host, m.UUID) == begun {
				continue
			}
			if err := d.arrive(ctx, known, m); err != nil {
				return fmt.Errorf("machine %s of host %s: %w", m.Name, host, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, m := range machines {
		if s.presence.making(host, m.UUID) == defined {
			s.presence.forget(host, m.UUID)
		}
	}
	if s.presence.arrive(host) {
		s.o.Log.Info("host answers", "host", host, "machines", len(machines))
	}
	return nil
}

// HostAway notes that a host does not answer: what its VMs do is unknown until it does. Nothing is removed.
func (s *Service) HostAway(host string, why error) {
	s.presence.leave(host)
	s.o.Log.Warn("host does not answer", "host", host, "error", why)
}

// groupsOf are the groups of machines, and that of the host itself.
func groupsOf(host string, machines []fabric.Machine) []string {
	groups := []string{host}
	for _, m := range machines {
		groups = append(groups, groupFor(host, m))
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

func groupFor(host string, m fabric.Machine) string {
	if m.Group == "" {
		return host
	}
	return groupName(m.Group, host)
}

// discovery is one Discover while it writes.
type discovery struct {
	s         *Service
	tx        *database.Tx
	host      string
	locations map[string]string // of resource groups
}

// settle writes the VM and the disks of one machine.
func (d discovery) settle(ctx context.Context, known []machineRow, m fabric.Machine) error {
	row := machineRow{host: d.host, uuid: m.UUID}
	if i := slices.IndexFunc(known, func(r machineRow) bool { return r.uuid == m.UUID }); i >= 0 {
		row = known[i]
	} else if err := d.name(ctx, &row, m); err != nil {
		return err
	}
	row.power, row.agent, row.definition, row.left = m.State, m.Agent, m.Definition, leftOut(m)
	row.deallocated = row.deallocated && m.State == fabric.Stopped
	disks, err := d.disks(ctx, row.vm, m)
	if err != nil {
		return err
	}
	row.vm.follow(m, disks)
	row.vm.Properties.Host = &Ref{d.s.hostID(d.host)}
	row.vm.settle(m.UUID, row.vm.Properties.TimeCreated)
	if err := putVM(ctx, d.tx, row.vm); err != nil {
		return err
	}
	return putMachine(ctx, d.tx, row)
}

// name gives a machine that is new here its place.
func (d discovery) name(ctx context.Context, row *machineRow, m fabric.Machine) error {
	group := groupFor(d.host, m)
	id, err := freeName(d.s.o.Subscription.Group(group), VMType, vmName(m.Name, m.UUID), m.UUID, func(id armid.ID) error {
		_, err := selectVM(ctx, d.tx, id)
		return err
	})
	row.vm = VM{ID: id, Location: d.locations[group]}
	row.vm.Properties.TimeCreated = d.s.o.Now()
	return err
}

// disks writes the disks of a machine, in its order, and lets go of those that it no longer has.
func (d discovery) disks(ctx context.Context, vm VM, m fabric.Machine) (found []armid.ID, err error) {
	old, err := selectDisksOf(ctx, d.tx, vm.ID)
	if err != nil {
		return nil, err
	}
	for _, disk := range m.Disks {
		if disk.Left != "" {
			continue
		}
		row, err := d.disk(ctx, vm, m.UUID, old, disk)
		if err != nil {
			return nil, fmt.Errorf("disk %s: %w", disk.Target, err)
		}
		found = append(found, row.ID)
	}
	for _, row := range old {
		if slices.ContainsFunc(found, row.ID.Equal) {
			continue
		}
		if err := d.letGo(ctx, row); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// disk writes one disk. It is the one that was found as the same target before: its image moves when a snapshot is
// taken on the host, and it grows.
func (d discovery) disk(ctx context.Context, vm VM, uuid string, old []diskRow, disk fabric.MachineDisk) (diskRow, error) {
	i := slices.IndexFunc(old, func(r diskRow) bool { return r.target == disk.Target })
	var row diskRow
	if i >= 0 {
		row = old[i]
	} else {
		id, err := freeName(vm.ID.Scope(), DiskType, vm.ID.Name()+"-"+disk.Target, uuid, func(id armid.ID) error {
			_, err := selectDisk(ctx, d.tx, id)
			return err
		})
		if err != nil {
			return diskRow{}, err
		}
		row = diskRow{Disk: Disk{ID: id, Location: vm.Location}, host: d.host, target: disk.Target}
	}
	row.vm = vm.ID.String()
	if row.host != "" {
		row.host = d.host
	}
	row.image.Path, row.image.Format, row.Properties.Target = disk.Path, disk.Format, disk.Target
	if disk.Size > 0 {
		row.image.Size = disk.Size
	}
	if row.host != "" {
		row.Properties.CreationData = CreationData{CreateOption: "Attach", SourceURI: fileURI(disk.Path)}
	}
	row.settle(d.s.o.Now(), d.s.o.NewID())
	return row, putDisk(ctx, d.tx, row)
}

// letGo forgets a disk that a machine no longer has: one that was found on the host with it. Another was there before,
// and stays, detached.
func (d discovery) letGo(ctx context.Context, row diskRow) error {
	if row.host != "" {
		return deleteDisk(ctx, d.tx, row.ID)
	}
	row.vm, row.target = "", ""
	row.settle(d.s.o.Now(), d.s.o.NewID())
	return putDisk(ctx, d.tx, row)
}

// drop forgets a machine that its host no longer has.
func (d discovery) drop(ctx context.Context, row machineRow) error {
	disks, err := selectDisksOf(ctx, d.tx, row.vm.ID)
	if err != nil {
		return err
	}
	for _, disk := range disks {
		if err := d.letGo(ctx, disk); err != nil {
			return err
		}
	}
	_, err = deleteVM(ctx, d.tx, row.vm.ID)
	return err
}

func leftOut(m fabric.Machine) (left []leftDisk) {
	for _, disk := range m.Disks {
		if disk.Left != "" {
			left = append(left, leftDisk{disk.Target, disk.Left})
		}
	}
	return left
}

// follow makes a VM's document say what its host says.
func (v *VM) follow(m fabric.Machine, disks []armid.ID) {
	if v.Properties.HardwareProfile.VMSize == "" || strings.HasPrefix(v.Properties.HardwareProfile.VMSize, ownSize) {
		v.Properties.HardwareProfile.VMSize = fmt.Sprintf("%s%d-%d", ownSize, m.CPUs, m.Memory>>20)
	}
	old := v.Properties.StorageProfile
	profile := StorageProfile{OSDisk: old.OSDisk}
	os := slices.IndexFunc(disks, old.OSDisk.is)
	if os < 0 && len(disks) > 0 {
		os = 0
	}
	if os < 0 {
		profile.OSDisk.ManagedDisk, profile.OSDisk.Name = nil, ""
	} else {
		id := disks[os]
		profile.OSDisk.Name, profile.OSDisk.CreateOption, profile.OSDisk.ManagedDisk = id.Name(), "Attach", &Ref{id}
	}
	if m.OS != "" {
		profile.OSDisk.OSType = m.OS
	}
	profile.DataDisks = dataDisks(old.DataDisks, disks, os)
	if len(profile.DataDisks) != len(old.DataDisks) {
		v.forgetSent("properties", "storageProfile", "dataDisks") // a list that is gone would come back from there
	}
	v.Properties.StorageProfile = profile
}

// ownSize begins the size of a VM that has no size of Azure's: its processors and its MiB of memory follow.
const ownSize = "custom-"

// dataDisks are all disks but the OS disk. Each keeps its LUN; a new one gets the first that is free.
func dataDisks(old []DataDisk, disks []armid.ID, os int) (all []DataDisk) {
	used := map[int]bool{}
	isNew := func(id armid.ID) bool {
		return !slices.ContainsFunc(old, func(d DataDisk) bool { return d.is(id) })
	}
	for _, d := range old {
		i := slices.IndexFunc(disks, d.is)
		if i >= 0 && i != os {
			used[d.Lun] = true
			all = append(all, d)
		}
	}
	for i, id := range disks {
		if i == os || !isNew(id) {
			continue
		}
		lun := 0
		for used[lun] {
			lun++
		}
		used[lun] = true
		all = append(all, DataDisk{Lun: lun, Name: id.Name(), CreateOption: "Attach", ManagedDisk: &Ref{id}})
	}
	slices.SortFunc(all, func(a, b DataDisk) int { return a.Lun - b.Lun })
	return all
}
