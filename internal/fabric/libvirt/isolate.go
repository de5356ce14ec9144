package libvirt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	lv "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"
)

// A machine that is drilled reaches nobody. Of its devices only those stay that are known to touch nothing; its network
// interfaces, with their addresses, are each on a network of QEMU's own (user mode) that ends in QEMU: DHCP answers, and
// every other packet is dropped (restrict=on). libvirt has no word for that: so it makes the interfaces, on a network that
// is never used, and QEMU is told to connect them to ours. Before the first instruction runs QEMU is asked whether it did.
//
// Sources: libvirt's drvqemu (pass-through of commands and overrides), QEMU's invocation (-netdev user).

// overrideSince is the version of libvirt that can connect an interface to a network that it does not know: 8.2.
const overrideSince = 8_002_000

// isolate takes from a machine what would let it touch anything, and confines its interfaces. A port of the guest is
// forwarded from one of the loopback that QEMU chooses, on the first interface; none if it is 0.
func isolate(d *libvirtxml.Domain, interfaces []libvirtxml.DomainInterface, port int) {
	d.Devices = harmless(d.Devices)
	d.QEMUCommandline, d.QEMUOverride = nil, nil
	if len(interfaces) == 0 {
		return
	}
	var args []libvirtxml.DomainQEMUCommandlineArg
	var overrides []libvirtxml.DomainQEMUOverrideDevice
	for i, x := range interfaces {
		network := fmt.Sprintf("isolated%d", i)
		alias := "ua-" + network // libvirt keeps an alias that begins so
		d.Devices.Interfaces = append(d.Devices.Interfaces, unconnected(x, alias))
		args = append(args, libvirtxml.DomainQEMUCommandlineArg{Value: "-netdev"}, libvirtxml.DomainQEMUCommandlineArg{Value: netdev(network, i, port)})
		connected := libvirtxml.DomainQEMUOverrideProperty{Name: "netdev", Type: "string", Value: network}
		overrides = append(overrides, libvirtxml.DomainQEMUOverrideDevice{Alias: alias,
			Frontend: libvirtxml.DomainQEMUOverrideFrontend{Properties: []libvirtxml.DomainQEMUOverrideProperty{connected}}})
	}
	d.QEMUCommandline, d.QEMUOverride = &libvirtxml.DomainQEMUCommandline{Args: args}, &libvirtxml.DomainQEMUOverride{Devices: overrides}
}

// harmless are the devices that are known to touch nothing of the host's. The agent's channel ends in libvirt.
func harmless(was *libvirtxml.DomainDeviceList) *libvirtxml.DomainDeviceList {
	kept := &libvirtxml.DomainDeviceList{Emulator: was.Emulator, Disks: was.Disks, Controllers: was.Controllers, Videos: was.Videos, Hubs: was.Hubs,
		MemBalloon: was.MemBalloon, NVRAM: was.NVRAM, Panics: was.Panics, Watchdogs: was.Watchdogs, IOMMUs: was.IOMMUs}
	kept.Inputs = slices.DeleteFunc(was.Inputs, func(x libvirtxml.DomainInput) bool { return x.Type == "passthrough" || x.Type == "evdev" })
	kept.TPMs = slices.DeleteFunc(was.TPMs, func(x libvirtxml.DomainTPM) bool { return x.Backend == nil || x.Backend.Emulator == nil })
	kept.RNGs = slices.DeleteFunc(was.RNGs, func(x libvirtxml.DomainRNG) bool { return x.Backend == nil || x.Backend.EGD != nil })
	kept.Memorydevs = slices.DeleteFunc(was.Memorydevs, func(x libvirtxml.DomainMemorydev) bool { return x.Source != nil && x.Source.Path != "" })
	for _, c := range was.Channels {
		if c.Target != nil && c.Target.VirtIO != nil && c.Target.VirtIO.Name == agentChannel {
			c.Source = &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{}}
			kept.Channels = append(kept.Channels, c)
		}
	}
	return kept
}

// unconnected is an interface as the guest sees it, and nothing of what it was connected to.
func unconnected(x libvirtxml.DomainInterface, alias string) libvirtxml.DomainInterface {
	model := x.Model
	if model == nil {
		model = &libvirtxml.DomainInterfaceModel{Type: "virtio"} // it was a device of the host's own
	}
	return libvirtxml.DomainInterface{MAC: x.MAC, Model: model, Link: x.Link, ACPI: x.ACPI, Address: x.Address,
		Source: &libvirtxml.DomainInterfaceSource{User: &libvirtxml.DomainInterfaceSourceUser{}}, Alias: &libvirtxml.DomainAlias{Name: alias}}
}

// netdev describes the network of an interface in QEMU's words. Each has a range of its own, so that a guest with
// several finds its way back.
func netdev(id string, i, port int) string {
	text := fmt.Sprintf("user,id=%s,restrict=on,ipv6=off,net=10.0.%d.0/24", id, 2+i)
	if i == 0 && port > 0 {
		text += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:0-:%d", port)
	}
	return text
}

// maxIsolated bounds the interfaces, as many as there are ranges.
const maxIsolated = 254

// interfacesOf are the interfaces that a machine of a drill gets: those that it had, where the host can confine them.
func (t *trial) interfacesOf(ctx context.Context, d *libvirtxml.Domain) ([]libvirtxml.DomainInterface, error) {
	version, err := ask(ctx, t.h, callTimeout, func(c *lv.Libvirt) (uint64, error) { return c.ConnectGetLibVersion() })
	if err != nil {
		return nil, err
	}
	asked, had := t.what.Port > 0, d.Devices.Interfaces
	switch {
	case version < overrideSince && asked:
		return nil, errors.New("its libvirt is older than 8.2 and cannot make a network that reaches nobody: without one no port can be asked")
	case version < overrideSince:
		return nil, nil
	case asked && len(had) == 0:
		return nil, errors.New("the machine has no network interface, so that no port of it can be asked")
	}
	return had[:min(len(had), maxIsolated)], nil
}

// confined fails unless QEMU says that each interface of the machine is on a network that ends in it.
func (t *trial) confined(ctx context.Context) error {
	table, err := t.monitor(ctx, "info network")
	if err == nil && !isConfined(table, t.interfaces) {
		err = errors.New("QEMU did not confine the machine's network interfaces, so it was not let run")
	}
	return err
}

// isConfined reads QEMU's list of interfaces: what each is connected to is on a line that begins with a backslash.
func isConfined(table string, interfaces int) bool {
	for line := range strings.Lines(table) {
		peer, is := strings.CutPrefix(strings.TrimSpace(line), `\ isolated`)
		if strings.HasPrefix(strings.TrimSpace(line), `\`) && !is {
			return false
		}
		if is {
			what := strings.Split(peer, ",")
			if !slices.Contains(what, "type=user") || !slices.Contains(what, "restrict=on") {
				return false
			}
			interfaces--
		}
	}
	return interfaces == 0
}

// monitor asks QEMU something in the words of its monitor for people: it tells there what it tells no program.
func (t *trial) monitor(ctx context.Context, command string) (string, error) {
	const forPeople = 1 // VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
	text, err := ask(ctx, t.h, callTimeout, func(c *lv.Libvirt) (string, error) {
		return c.QEMUDomainMonitorCommand(t.d, command, forPeople)
	})
	if err != nil {
		return "", fmt.Errorf("ask QEMU: %s: %w", command, err)
	}
	return text, nil
}
