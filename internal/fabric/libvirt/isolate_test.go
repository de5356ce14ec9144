package libvirt

import (
	"strings"
	"testing"
)

// hostedText is a machine with a bit of everything that its host has.
const hostedText = `<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>web</name>
<devices>
	<disk type='file' device='disk'><source file='/images/web'/><target dev='vda' bus='virtio'/></disk>
	<controller type='pci' index='1' model='pcie-root-port'/>
	<lease><lockspace>theirs</lockspace><key>k</key><target path='/leases'/></lease>
	<filesystem type='mount'><source dir='/home'/><target dir='home'/></filesystem>
	<interface type='network'><mac address='52:54:00:12:34:56'/><source network='prod'/><vlan><tag id='7'/></vlan><target dev='vnet7'/><model type='e1000e'/>
		<driver queues='4'/><filterref filter='clean-traffic'/><bandwidth><inbound average='9'/></bandwidth><mtu size='9000'/><link state='up'/>
		<boot order='1'/><address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></interface>
	<interface type='hostdev' managed='yes'><mac address='52:54:00:12:34:57'/><source><address type='pci' domain='0' bus='5' slot='2' function='0'/></source></interface>
	<smartcard mode='host'/>
	<serial type='tcp'><source mode='connect' host='10.1.1.1' service='5000'/><protocol type='raw'/></serial>
	<parallel type='dev'><source path='/dev/parport0'/></parallel>
	<console type='pty'/>
	<channel type='unix'><source mode='bind' path='/run/agent'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
	<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>
	<input type='tablet' bus='usb'/><input type='passthrough' bus='virtio'><source evdev='/dev/input/event1'/></input>
	<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>
	<graphics type='vnc' port='5900' listen='0.0.0.0'/>
	<sound model='ich9'/><audio id='1' type='file' path='/tmp/audio'/>
	<video><model type='vga'/></video>
	<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/><product id='0x2'/></source></hostdev>
	<redirdev bus='usb' type='tcp'><source mode='connect' host='10.1.1.1' service='4000'/></redirdev>
	<rng model='virtio'><backend model='egd' type='udp'><source mode='connect' host='10.1.1.1' service='1234'/></backend></rng>
	<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
	<shmem name='theirs'><size unit='M'>4</size></shmem>
	<memory model='nvdimm'><source><path>/dev/dax0.0</path></source><target><size unit='MiB'>64</size><node>0</node></target></memory>
	<memory model='dimm'><target><size unit='MiB'>64</size><node>0</node></target></memory>
	<vsock model='virtio'><cid auto='yes'/></vsock>
</devices>
<qemu:commandline><qemu:arg value='-netdev'/><qemu:arg value='bridge,id=theirs'/></qemu:commandline>
<qemu:override><qemu:device alias='net0'><qemu:frontend><qemu:property name='netdev' type='string' value='theirs'/></qemu:frontend></qemu:device></qemu:override>
</domain>`

// What a machine of a drill keeps is known to touch nothing. Its guest sees the interfaces that it had, in their places.
func TestIsolate(t *testing.T) {
	d, err := parseDomain(hostedText)
	if err != nil {
		t.Fatal(err)
	}
	isolate(d, d.Devices.Interfaces, 22)
	text, err := d.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, kept := range []string{"/images/web", "pcie-root-port", "52:54:00:12:34:56", "e1000e", `bus="0x01"`, "52:54:00:12:34:57", agentChannel, "tablet", "vga", "/dev/urandom", "dimm",
		"user,id=isolated0,restrict=on,ipv6=off,net=10.0.2.0/24,hostfwd=tcp:127.0.0.1:0-:22<", "user,id=isolated1,restrict=on,ipv6=off,net=10.0.3.0/24<",
		`<device alias="ua-isolated1">`, `value="isolated1"`} {
		if !strings.Contains(strings.ReplaceAll(text, `"></arg>`, "<"), kept) {
			t.Errorf("%s is gone", kept)
		}
	}
	for _, gone := range []string{"theirs", "/home", "prod", "vnet7", "vlan", "queues", "filterref", "bandwidth", "9000", "boot", "hostdev", "smartcard", "10.1.1.1", "parallel", "<console",
		"/run/agent", "spice", "evdev", "tpm", "5900", "audio", "sound", "usb\" type", "redirdev", "shmem", "/dev/dax", "vsock", "lease", "bridge"} {
		if strings.Contains(text, gone) {
			t.Errorf("%s is still there", gone)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// A machine is not let run unless all of its interfaces are where they should be.
func TestIsConfined(t *testing.T) {
	const (
		first  = "hostua-isolated0: index=0,type=user,net=10.0.2.0,restrict=off\r\nua-isolated0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56\r\n"
		inside = " \\ isolated0: index=0,type=user,net=10.0.2.0,restrict=on\r\n"
		second = "ua-isolated1: index=0,type=nic,model=e1000e,macaddr=52:54:00:12:34:57\r\n"
	)
	for _, c := range []struct {
		name, table string
		interfaces  int
		want        bool
	}{
		{"none", "", 0, true},
		{"one", first + inside, 1, true},
		{"two", first + inside + second + strings.ReplaceAll(inside, "d0", "d1"), 2, true},
		{"the second is not connected", first + inside + second, 2, false},
		{"one that nobody knows of", first + inside, 0, false},
		{"on libvirt's own network", first + " \\ hostua-isolated0: index=0,type=user,net=10.0.2.0,restrict=off\r\n", 1, false},
		{"it may go out", first + strings.ReplaceAll(inside, "=on", "=off"), 1, false},
		{"it is no network of QEMU's own", first + strings.ReplaceAll(inside, "=user", "=tap"), 1, false},
		{"the second is elsewhere", first + inside + second + " \\ hostnet1: index=0,type=tap,fd=3\r\n", 1, false},
	} {
		if got := isConfined(c.table, c.interfaces); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}
