package libvirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	lv "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"kluis/internal/fabric"
)

// Define makes a machine, which is off, and returns it as the host has it. One that was before is made as it was, but
// for its name and identity, its disks, and what would get in the way of the old one where that still is: its MAC
// addresses. All that is made on the host goes again if it fails.
func (h *Host) Define(ctx context.Context, spec fabric.MachineSpec) (m fabric.Machine, err error) {
	named := lv.Domain{Name: spec.Name}
	if !h.local {
		return m, h.refusal(named, errors.New("its disks are files of this server, and the host is another machine: use a host that is this server's own, or copy the files there and define it by hand"))
	}
	d, err := h.definitionOf(ctx, spec)
	if err != nil {
		return m, h.refusal(named, err)
	}
	defer func() {
		if err != nil {
			h.dropFiles(spec)
		}
	}()
	if err := h.writeFiles(spec); err != nil {
		return m, h.refusal(named, err)
	}
	text, err := d.Marshal()
	if err != nil {
		return m, h.refusal(named, err)
	}
	defined, err := ask(ctx, h, callTimeout, func(c *lv.Libvirt) (lv.Domain, error) { return c.DomainDefineXMLFlags(text, 0) })
	if err != nil {
		return m, h.refusal(named, err)
	}
	if m, _, err = h.machine(ctx, defined); err != nil {
		return m, errors.Join(h.refusal(named, err), h.Undefine(context.WithoutCancel(ctx), spec.UUID))
	}
	return m, nil
}

// Undefine makes a host forget a machine that is off, with everything but its disks; one that it does not have is no error.
func (h *Host) Undefine(ctx context.Context, uuid string) error {
	d, err := h.domain(ctx, uuid)
	if fabric.IsHostKind(err, fabric.Gone) {
		return nil
	}
	if err != nil {
		return err
	}
	const all = lv.DomainUndefineCheckpointsMetadata | lv.DomainUndefineSnapshotsMetadata | lv.DomainUndefineManagedSave | lv.DomainUndefineNvram
	return h.refusal(d, h.do(ctx, callTimeout, func(c *lv.Libvirt) error { return c.DomainUndefineFlags(d, all) }))
}

// writeFiles puts UEFI variables and TPM state where the definition says that they are.
func (h *Host) writeFiles(spec fabric.MachineSpec) error {
	if spec.State == nil {
		return nil
	}
	if spec.State.NVRAM != nil {
		if err := makeFolder(h.o.LiveDir); err != nil {
			return err
		}
		if err := os.WriteFile(h.nvramPath(spec.UUID), spec.State.NVRAM, 0o600); err != nil {
			return fmt.Errorf("write UEFI variables: %w", err)
		}
	}
	if spec.State.TPM != nil {
		return writeTPM(spec.UUID, spec.State.TPM)
	}
	return nil
}

func (h *Host) dropFiles(spec fabric.MachineSpec) {
	if spec.State == nil {
		return
	}
	if spec.State.NVRAM != nil {
		_ = os.Remove(h.nvramPath(spec.UUID))
	}
	if spec.State.TPM != nil {
		_ = os.RemoveAll(filepath.Join(tpmDir, spec.UUID))
	}
}

func (h *Host) nvramPath(uuid string) string {
	return filepath.Join(h.o.LiveDir, uuid+"_VARS.fd")
}

// definitionOf writes what a machine is to be in libvirt's words.
func (h *Host) definitionOf(ctx context.Context, spec fabric.MachineSpec) (*libvirtxml.Domain, error) {
	d, old, err := h.machineOf(spec)
	if err != nil {
		return nil, err
	}
	return d, h.placeInterfaces(ctx, d, old, spec.Networks)
}

// machineOf is definitionOf with the interfaces as they were. It says which machine it was, too.
func (h *Host) machineOf(spec fabric.MachineSpec) (d *libvirtxml.Domain, old string, err error) {
	if spec.State == nil {
		d = h.freshDefinition(spec)
	} else if d, err = parseDomain(string(spec.State.Definition)); err != nil {
		return nil, "", err
	}
	old = d.UUID
	d.UUID, d.Name, d.ID = spec.UUID, spec.Name, nil
	d.Metadata = metadataOf(d.Metadata, spec.Group)
	if spec.CPUs > 0 {
		d.VCPU = &libvirtxml.DomainVCPU{Value: uint(spec.CPUs)}
	}
	if spec.Memory > 0 {
		d.Memory, d.CurrentMemory = &libvirtxml.DomainMemory{Value: uint(spec.Memory >> 10), Unit: "KiB"}, nil
	}
	switch saved := spec.State != nil && spec.State.NVRAM != nil; {
	case hasNVRAM(d) && saved:
		setNVRAM(d, h.nvramPath(spec.UUID))
	case hasNVRAM(d) && d.OS.NVRam != nil:
		setNVRAM(d, "") // libvirt makes a new one of the firmware's template
	}
	return d, old, placeDisks(d, spec.Disks)
}

// metadataNamespace is that of what a definition says for us (wish).
const metadataNamespace = "urn:kluis:vm:1"

// ownMetadata is what a definition says for us.
var ownMetadata = regexp.MustCompile(`<(\w+):vm xmlns:\w+="` + regexp.QuoteMeta(metadataNamespace) + `"[^>]*/>`)

// metadataOf keeps what others noted of a machine, and says where it belongs.
func metadataOf(old *libvirtxml.DomainMetadata, group string) *libvirtxml.DomainMetadata {
	kept := ""
	if old != nil {
		kept = ownMetadata.ReplaceAllString(old.XML, "")
	}
	return &libvirtxml.DomainMetadata{XML: fmt.Sprintf("<kluis:vm xmlns:kluis=%q group=%q/>%s", metadataNamespace, group, kept)}
}

// freshDefinition is a machine that never was: as libvirt's own tools make them today.
func (h *Host) freshDefinition(spec fabric.MachineSpec) *libvirtxml.Domain {
	const minCPUs, minMemory = 1, 1 << 20 // KiB
	typ := "qemu"
	if _, err := os.Stat("/dev/kvm"); err == nil {
		typ = "kvm"
	}
	port := uint(0)
	d := &libvirtxml.Domain{Type: typ, VCPU: &libvirtxml.DomainVCPU{Value: minCPUs}, Memory: &libvirtxml.DomainMemory{Value: minMemory, Unit: "KiB"},
		OS:       &libvirtxml.DomainOS{Type: &libvirtxml.DomainOSType{Arch: "x86_64", Machine: "q35", Type: "hvm"}},
		Features: &libvirtxml.DomainFeatureList{ACPI: &libvirtxml.DomainFeature{}, APIC: &libvirtxml.DomainFeatureAPIC{}},
		// A host that is a guest itself may not be able to give this feature on.
		CPU: &libvirtxml.DomainCPU{Mode: "host-model", Features: []libvirtxml.DomainCPUFeature{{Policy: "disable", Name: "arch-capabilities"}}},
		Devices: &libvirtxml.DomainDeviceList{
			Channels:   []libvirtxml.DomainChannel{{Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{}}, Target: &libvirtxml.DomainChannelTarget{VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: agentChannel}}}},
			Serials:    []libvirtxml.DomainSerial{{Source: &libvirtxml.DomainChardevSource{Pty: &libvirtxml.DomainChardevSourcePty{}}, Target: &libvirtxml.DomainSerialTarget{Port: &port}}},
			Interfaces: []libvirtxml.DomainInterface{{Model: &libvirtxml.DomainInterfaceModel{Type: "virtio"}}},
		}}
	if typ == "qemu" {
		d.CPU = &libvirtxml.DomainCPU{Mode: "maximum"}
	}
	if spec.UEFI {
		// Without Secure Boot, as Azure's machines of the second generation are that do not ask for it: nobody knows whether
		// what is on the disk is signed.
		d.OS.Firmware = "efi"
		d.OS.FirmwareInfo = &libvirtxml.DomainOSFirmwareInfo{Features: []libvirtxml.DomainOSFirmwareFeature{{Enabled: "no", Name: "secure-boot"}}}
	}
	return d
}

// placeDisks puts the given disks where those of their targets were, and leaves out all others: the old machine, or
// others, may still write to them. Drives for removable media stay, empty.
func placeDisks(d *libvirtxml.Domain, disks []fabric.DiskSpec) error {
	var placed []libvirtxml.DomainDisk
	var taken []string
	for _, x := range d.Devices.Disks {
		if x.Target == nil {
			continue
		}
		i := slices.IndexFunc(disks, func(s fabric.DiskSpec) bool { return s.Target == x.Target.Dev })
		switch {
		case i >= 0 && (x.Device == "" || x.Device == "disk"):
			placed = append(placed, withImage(x, disks[i]))
		case x.Device == "cdrom" || x.Device == "floppy":
			x.Source, x.BackingStore = nil, nil
			placed = append(placed, x)
		default:
			continue
		}
		taken = append(taken, x.Target.Dev)
	}
	for _, s := range disks {
		if s.Target != "" && slices.Contains(taken, s.Target) {
			continue
		}
		target := freeVirtio(taken)
		if target == "" {
			return errors.New("it has too many disks")
		}
		taken = append(taken, target)
		placed = append(placed, withImage(libvirtxml.DomainDisk{Device: "disk", Target: &libvirtxml.DomainDiskTarget{Dev: target, Bus: "virtio"}}, s))
	}
	d.Devices.Disks = placed
	return nil
}

func withImage(x libvirtxml.DomainDisk, s fabric.DiskSpec) libvirtxml.DomainDisk {
	driver := libvirtxml.DomainDiskDriver{Name: "qemu", Discard: "unmap"}
	if x.Driver != nil {
		driver = *x.Driver
	}
	driver.Type = s.Format
	x.Driver = &driver
	x.Source = &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: s.Path}}
	x.BackingStore, x.Mirror = nil, nil
	return x
}

func freeVirtio(taken []string) string {
	for letter := 'a'; letter <= 'z'; letter++ {
		if name := "vd" + string(letter); !slices.Contains(taken, name) {
			return name
		}
	}
	return ""
}

// defaultNetwork is what libvirt calls the network that it comes with.
const defaultNetwork = "default"

// NoNetwork is what an interface is connected to that is to be left out.
const NoNetwork = "none"

// placeInterfaces connects the interfaces: each to the network that is named for it, else to what it was connected to if
// the host has that, else to the default network; one for which there is nothing is left out.
func (h *Host) placeInterfaces(ctx context.Context, d *libvirtxml.Domain, old string, networks []string) error {
	keepMAC := false
	if old != "" {
		_, err := h.domain(ctx, old)
		if err != nil && !fabric.IsHostKind(err, fabric.Gone) {
			return err
		}
		keepMAC = fabric.IsHostKind(err, fabric.Gone)
	}
	var placed []libvirtxml.DomainInterface
	for len(d.Devices.Interfaces) < len(networks) {
		d.Devices.Interfaces = append(d.Devices.Interfaces, libvirtxml.DomainInterface{Model: &libvirtxml.DomainInterfaceModel{Type: "virtio"}})
	}
	for i, x := range d.Devices.Interfaces {
		wanted := ""
		if i < len(networks) {
			wanted = networks[i]
		}
		source, err := h.networkFor(ctx, x.Source, wanted)
		if err != nil {
			return err
		}
		if source == nil {
			h.o.Log.Info("an interface of a machine is left out, because the host has no network for it", "machine", d.Name)
			continue
		}
		x.Source, x.Target = source, nil
		if !keepMAC {
			x.MAC = nil
		}
		placed = append(placed, x)
	}
	d.Devices.Interfaces = placed
	return nil
}

// networkFor is what an interface is connected to, or nil.
func (h *Host) networkFor(ctx context.Context, was *libvirtxml.DomainInterfaceSource, wanted string) (*libvirtxml.DomainInterfaceSource, error) {
	if wanted == NoNetwork {
		return nil, nil
	}
	if wanted != "" {
		active, err := h.hasNetwork(ctx, wanted)
		if err == nil && !active {
			err = fmt.Errorf("it has no active network %s", wanted)
		}
		return onNetwork(wanted), err
	}
	if was != nil && was.Network == nil {
		return was, nil // a bridge, or the like, of which libvirt has no list
	}
	candidates := []string{defaultNetwork}
	if was != nil {
		candidates = []string{was.Network.Network, defaultNetwork}
	}
	for _, name := range candidates {
		if active, err := h.hasNetwork(ctx, name); active || err != nil {
			return onNetwork(name), err
		}
	}
	return nil, nil
}

func onNetwork(name string) *libvirtxml.DomainInterfaceSource {
	return &libvirtxml.DomainInterfaceSource{Network: &libvirtxml.DomainInterfaceSourceNetwork{Network: name}}
}

// hasNetwork reports whether a network is there and active.
func (h *Host) hasNetwork(ctx context.Context, name string) (bool, error) {
	active, err := ask(ctx, h, callTimeout, func(c *lv.Libvirt) (int32, error) {
		n, err := c.NetworkLookupByName(name)
		if err != nil {
			return 0, err
		}
		return c.NetworkIsActive(n)
	})
	if isCode(err, lv.ErrNoNetwork) || isCode(err, lv.ErrNoSupport) {
		return false, nil
	}
	return active != 0, err
}
