package libvirt

import (
	"cmp"
	"context"
	"encoding/xml"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	lv "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"kluis/internal/fabric"
)

// wish is what a domain's metadata says of what it is to Kluis:
//
//	<metadata><kluis:vm xmlns:kluis="urn:kluis:vm:1" group="payroll"/></metadata>
//	<metadata><kluis:vm xmlns:kluis="urn:kluis:vm:1" ignore="yes"/></metadata>
type wish struct {
	Group  string `xml:"group,attr"`
	Ignore string `xml:"ignore,attr"`
}

// Machines lists the machines of the host, by UUID. Those whose metadata says so are left out.
func (h *Host) Machines(ctx context.Context) ([]fabric.Machine, error) {
	domains, err := ask(ctx, h, callTimeout, func(c *lv.Libvirt) ([]lv.Domain, error) {
		all, _, err := c.ConnectListAllDomains(1, 0)
		return all, err
	})
	if err != nil {
		return nil, fmt.Errorf("list machines: %w", err)
	}
	var machines []fabric.Machine
	for _, d := range domains {
		m, ignored, err := h.machine(ctx, d)
		if lv.IsNotFound(err) {
			continue // it went meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("look at machine %s: %w", d.Name, err)
		}
		if !ignored {
			machines = append(machines, m)
		}
	}
	slices.SortFunc(machines, func(a, b fabric.Machine) int { return strings.Compare(a.UUID, b.UUID) })
	return machines, nil
}

// Machine returns one of the host's machines.
func (h *Host) Machine(ctx context.Context, uuid string) (fabric.Machine, error) {
	d, err := h.domain(ctx, uuid)
	if err != nil {
		return fabric.Machine{}, err
	}
	m, _, err := h.machine(ctx, d)
	return m, err
}

func (h *Host) machine(ctx context.Context, d lv.Domain) (m fabric.Machine, ignored bool, err error) {
	// The inactive definition is what the machine will be when it is started again; the active one has
	// what QEMU is working with, backing chains and the agent's state among it.
	definition, err := h.xml(ctx, d, lv.DomainXMLInactive)
	if err != nil {
		return m, false, err
	}
	text, err := h.xml(ctx, d, 0)
	if err != nil {
		return m, false, err
	}
	parsed, err := parseDomain(text)
	if err != nil {
		return m, false, err
	}
	state, err := h.state(ctx, d)
	if err != nil {
		return m, false, err
	}
	w := wishOf(parsed)
	m = fabric.Machine{UUID: formatUUID(d.UUID), Name: d.Name, Group: w.Group, State: state, Agent: agentOf(parsed), OS: osOf(parsed), Definition: []byte(definition)}
	if parsed.VCPU != nil {
		m.CPUs = int(parsed.VCPU.Value)
	}
	if parsed.Memory != nil {
		m.Memory = bytesOf(parsed.Memory.Value, parsed.Memory.Unit)
	}
	for _, disk := range disksOf(parsed) {
		disk.Size = h.sizeOf(ctx, d, disk)
		m.Disks = append(m.Disks, disk)
	}
	return m, w.Ignore == "yes", nil
}

func (h *Host) xml(ctx context.Context, d lv.Domain, flags lv.DomainXMLFlags) (string, error) {
	return ask(ctx, h, callTimeout, func(c *lv.Libvirt) (string, error) { return c.DomainGetXMLDesc(d, flags) })
}

func parseDomain(text string) (*libvirtxml.Domain, error) {
	var d libvirtxml.Domain
	if err := d.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("read domain XML: %w", err)
	}
	if d.Devices == nil {
		d.Devices = &libvirtxml.DomainDeviceList{}
	}
	return &d, nil
}

func (h *Host) state(ctx context.Context, d lv.Domain) (fabric.PowerState, error) {
	state, _, err := h.stateAndReason(ctx, d)
	return state, err
}

// stateAndReason returns with the state libvirt's number for the reason, whose meaning depends on the state.
func (h *Host) stateAndReason(ctx context.Context, d lv.Domain) (fabric.PowerState, int32, error) {
	both, err := ask(ctx, h, callTimeout, func(c *lv.Libvirt) ([2]int32, error) {
		state, reason, err := c.DomainGetState(d, 0)
		return [2]int32{state, reason}, err
	})
	if err != nil {
		return fabric.Unknown, 0, err
	}
	return powerOf(lv.DomainState(both[0])), both[1], nil
}

func powerOf(s lv.DomainState) fabric.PowerState {
	switch s {
	case lv.DomainRunning, lv.DomainBlocked:
		return fabric.Running
	case lv.DomainPaused, lv.DomainPmsuspended:
		return fabric.Paused
	case lv.DomainShutdown:
		return fabric.ShuttingDown
	case lv.DomainCrashed:
		return fabric.Crashed
	case lv.DomainShutoff:
		return fabric.Stopped
	}
	return fabric.Unknown
}

// agentChannel is the name by which a guest's agent finds its channel.
const agentChannel = "org.qemu.guest_agent.0"

// agentOf reads the agent's state from the channel that libvirt keeps to it.
func agentOf(d *libvirtxml.Domain) fabric.AgentState {
	for _, c := range d.Devices.Channels {
		if c.Target == nil || c.Target.VirtIO == nil || c.Target.VirtIO.Name != agentChannel {
			continue
		}
		if c.Target.VirtIO.State == "connected" {
			return fabric.AgentReady
		}
		return fabric.AgentNotReady
	}
	return fabric.AgentNone
}

// osOf reads the operating system from what libosinfo and the tools that use it note.
func osOf(d *libvirtxml.Domain) string {
	if d.Metadata == nil {
		return ""
	}
	switch {
	case strings.Contains(d.Metadata.XML, "http://microsoft.com/"):
		return "Windows"
	case strings.Contains(d.Metadata.XML, "libosinfo.org/libosinfo/"):
		return "Linux"
	}
	return ""
}

func wishOf(d *libvirtxml.Domain) (w wish) {
	if d.Metadata == nil {
		return w
	}
	var all struct {
		VM *wish `xml:"urn:kluis:vm:1 vm"`
	}
	if err := xml.Unmarshal([]byte("<metadata>"+d.Metadata.XML+"</metadata>"), &all); err != nil || all.VM == nil {
		return w
	}
	return *all.VM
}

func bytesOf(n uint, unit string) int64 {
	shift := map[string]uint{"": 10, "b": 0, "bytes": 0, "KiB": 10, "k": 10, "MiB": 20, "M": 20, "GiB": 30, "G": 30, "TiB": 40, "T": 40}
	return int64(n) << shift[unit]
}

// disksOf lists the disks of a domain in the order in which it boots from them, then in its own.
func disksOf(d *libvirtxml.Domain) []fabric.MachineDisk {
	var disks []fabric.MachineDisk
	for _, x := range slices.SortedStableFunc(slices.Values(d.Devices.Disks), byBoot) {
		if x.Target == nil {
			continue
		}
		disk := fabric.MachineDisk{Target: x.Target.Dev, Format: "raw", Serial: x.Serial}
		if x.Driver != nil && x.Driver.Type != "" {
			disk.Format = x.Driver.Type
		}
		disk.Path, disk.Left = pathOf(x)
		switch {
		case x.Serial == keySerial:
			disk.Left = "it carries the keys of the other disks into the guest"
		case x.Device != "" && x.Device != "disk":
			disk.Left = "it is a " + x.Device
		case x.Shareable != nil:
			disk.Left = "other machines write to it too"
		case x.ReadOnly != nil:
			disk.Left = "it is read-only"
		case x.Transient != nil:
			disk.Left = "it is transient"
		}
		disks = append(disks, disk)
	}
	return disks
}

func byBoot(a, b libvirtxml.DomainDisk) int {
	order := func(x libvirtxml.DomainDisk) uint {
		if x.Boot == nil {
			return math.MaxUint
		}
		return x.Boot.Order
	}
	return cmp.Compare(order(a), order(b))
}

func pathOf(x libvirtxml.DomainDisk) (path, left string) {
	switch s := x.Source; {
	case s == nil:
		return "", "it has no medium"
	case s.File != nil:
		return s.File.File, ""
	case s.Block != nil:
		return s.Block.Dev, ""
	default:
		return "", "it is no file and no block device of the host"
	}
}

// sizeOf asks what the guest sees. A size that cannot be had is 0: the disk is listed all the same.
func (h *Host) sizeOf(ctx context.Context, d lv.Domain, disk fabric.MachineDisk) int64 {
	if disk.Path == "" {
		return 0
	}
	h.making.RLock()
	defer h.making.RUnlock()
	capacity, err := ask(ctx, h, callTimeout, func(c *lv.Libvirt) (uint64, error) {
		_, capacity, _, err := c.DomainGetBlockInfo(d, disk.Target, 0)
		return capacity, err
	})
	if err != nil {
		h.o.Log.Debug("size of disk", "machine", d.Name, "disk", disk.Target, "error", err)
		return 0
	}
	return int64(capacity)
}

// fileID tells one file of this machine from another that took its name. It is empty for files elsewhere.
func (h *Host) fileID(path string) string {
	if !h.local || path == "" {
		return ""
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	info, err := os.Stat(real)
	if err != nil {
		return ""
	}
	return identity(info)
}
