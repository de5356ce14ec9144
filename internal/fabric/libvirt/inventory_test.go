package libvirt

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	lv "github.com/digitalocean/go-libvirt"
	"github.com/google/go-cmp/cmp"

	"kluis/internal/fabric"
)

const domainText = `<domain type='kvm'>
  <metadata>
    <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0"><libosinfo:os id="http://microsoft.com/win/11"/></libosinfo:libosinfo>
    <kluis:vm xmlns:kluis="urn:kluis:vm:1" group="payroll" ignore="yes"/>
  </metadata>
  <devices>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/><boot order='1'/></disk>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/images/data.qcow2'/><target dev='vdb' bus='virtio'/><serial>data</serial></disk>
    <disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='/dev/vg/os'/><target dev='vda' bus='virtio'/><boot order='2'/></disk>
    <disk type='file' device='disk'><source file='/images/shared'/><target dev='vdc' bus='virtio'/><shareable/></disk>
    <disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='rbd' name='pool/image'/><target dev='vdd' bus='virtio'/></disk>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>
  </devices>
</domain>`

// A domain's XML is read for what a machine is: the disk that it boots from comes first, and what cannot be backed up
// says why.
func TestReadDomain(t *testing.T) {
	d, err := parseDomain(domainText)
	if err != nil {
		t.Fatal(err)
	}
	want := []fabric.MachineDisk{
		{Target: "sda", Format: "raw", Left: "it is a cdrom"},
		{Target: "vda", Path: "/dev/vg/os", Format: "raw"},
		{Target: "vdb", Path: "/images/data.qcow2", Format: "qcow2", Serial: "data"},
		{Target: "vdc", Path: "/images/shared", Format: "raw", Left: "other machines write to it too"},
		{Target: "vdd", Format: "raw", Left: "it is no file and no block device of the host"},
	}
	if diff := cmp.Diff(want, disksOf(d)); diff != "" {
		t.Errorf("disks (-want +got):\n%s", diff)
	}
	if w := wishOf(d); w != (wish{Group: "payroll", Ignore: "yes"}) || osOf(d) != "Windows" || agentOf(d) != fabric.AgentReady {
		t.Errorf("wish %+v, system %s, agent %s", w, osOf(d), agentOf(d))
	}
}

// A file that took another's name is another file.
func TestFileID(t *testing.T) {
	h, err := New(Options{Name: "lab", URI: "qemu:///system", LiveDir: t.TempDir(), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "image")
	write := func(name string) {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(path)
	first := h.fileID(path)
	write(path + "2")
	if err := os.Rename(path+"2", path); err != nil {
		t.Fatal(err)
	}
	if second := h.fileID(path); first == "" || second == "" || first == second || h.fileID(path+"2") != "" {
		t.Errorf("%q, then %q", first, second)
	}
}

// A host that cannot be reached says so, whatever was to be done on it.
func TestAway(t *testing.T) {
	h, err := New(Options{Name: "lab", URI: "qemu:///system?socket=" + filepath.Join(t.TempDir(), "none"), LiveDir: t.TempDir(), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	err = h.do(t.Context(), time.Second, func(*lv.Libvirt) error { return nil })
	if host, ok := errors.AsType[*fabric.HostError](err); !ok || host.Kind != fabric.Away || host.Host != "lab" {
		t.Errorf("error %v", err)
	}
}
