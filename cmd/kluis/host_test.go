package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"kluis/internal/client"
	"kluis/test/guest"
)

// command runs a command of the program as the server's first principal.
func (s *server) command(args ...string) (string, error) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), must[string](s.t)(binary()), append(args, "--admin", filepath.Join(s.dir, "admin.json"))...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, &errs)
	}
	return string(out), err
}

// nobody is a user who has nothing.
const nobody = 65534

// keyFolder is a folder in memory that QEMU gets through.
func keyFolder(t *testing.T) string {
	t.Helper()
	dir := must[string](t)(os.MkdirTemp("/dev/shm", "kluis-test-"))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A machine that somebody defined on the host is found; it gets a key that nobody has seen, encrypts its disk with it,
// and comes up. Without the key vault's leave it is not even stopped. Meanwhile it is backed up, and the recovery point
// boots. The server is nobody on this machine, but for libvirt's socket, QEMU's group, and the folders for keys and for what lives as long as a
// backup.
func TestMachineOfAHost(t *testing.T) {
	lab, ctx := guest.Shared(t), t.Context()
	name := guest.Name("host")
	disk := must[string](t)(lab.Disk(ctx, name+".qcow2", "qcow2", "64M"))
	g := must[*guest.Guest](t)(lab.Define(ctx, guest.Config{Name: name, Arguments: "guest.format=1 guest.files=1", Disks: []guest.Disk{{Path: disk, Format: "qcow2"}},
		Metadata: `<kluis:vm xmlns:kluis="urn:kluis:vm:1" group="` + name + `"/>`}))
	g.RemoveAfter(t)
	keys, way, live := keyFolder(t), guest.NewProxy(t), filepath.Join(lab.Dir, name+"-live")
	var who *syscall.Credential
	if os.Geteuid() == 0 {
		group := groupOfQEMU(t)
		who = &syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{uint32(group)}}
		way.Give(t, nobody)
		if err := errors.Join(os.Chown(keys, nobody, -1), os.Mkdir(live, 0o770), os.Chown(live, nobody, group), os.Chmod(live, 0o770|os.ModeSetgid)); err != nil {
			t.Fatal(err)
		}
	}
	s := newServerAs(t, who, "", "--hosts", "lab="+way.URI(), "--key-dir", keys, "--live-dir", live, "--scratch-reserve", "1MiB", "--allow-images", lab.Dir)
	id := s.VMID(name, name)
	eventually := func(what string, is func() bool) {
		t.Helper()
		if err := guest.Eventually(soon(t), func() (bool, error) { return is(), nil }); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	status := func() (power, agent string) {
		v, err := s.InstanceView(ctx, id)
		if err != nil || len(v.Statuses) < 2 {
			return fmt.Sprint(err), ""
		}
		return v.Statuses[1].Code, v.VMAgent.Statuses[0].DisplayStatus
	}
	eventually("the machine is found", func() bool { power, _ := status(); return power == "PowerState/stopped" })
	vault := func(enabled bool) client.KeyVault {
		t.Helper()
		return must[client.KeyVault](t)(s.PutKeyVault(ctx, s.KeyVaultID(name, kvName), "westeurope", client.KeyVaultProperties{EnabledForDiskEncryption: enabled,
			AccessPolicies: []client.AccessPolicy{{TenantID: s.TenantID(), ObjectID: must[string](t)(s.ObjectID(ctx)), Permissions: client.EveryPermission()}}}))
	}
	vault(true)
	var made struct{ SecretURL, KeyURL string }
	out := must[string](t)(s.command("vm", "encryption", "enable", name, "-g", name, "--output", "json"))
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.SecretURL == "" || made.KeyURL == "" {
		t.Fatalf("enable says %s, %v", out, err)
	}
	if _, err := s.command("vm", "encryption", "enable", name, "-g", name); err == nil {
		t.Error("a disk got a second key")
	}
	must[string](t)(s.command("vm", "start", name, "-g", name))
	if err := g.Await(ctx); err != nil {
		t.Fatal(err)
	}
	eventually("the agent answers", func() bool {
		power, agent := status()
		return power == "PowerState/running" && agent == "Ready"
	})

	s.backUpAndDrill(name)

	vault(false)
	if out, err := s.command("vm", "restart", name, "-g", name); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("restart without the key vault's leave: %s, %v", out, err)
	}
	if power, agent := status(); power != "PowerState/running" || agent != "Ready" {
		t.Errorf("after it the machine is %s and its agent %s", power, agent)
	}
	must[string](t)(s.command("vm", "stop", name, "-g", name))
	if state := must[string](t)(g.State(ctx)); state != "shut off" {
		t.Errorf("the machine is %s", state)
	}
	if _, err := s.command("vm", "start", name, "-g", name); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("start without the key vault's leave: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(keys, "lab", "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := g.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	eventually("the machine is gone", func() bool { _, err := s.VM(ctx, id); return client.IsNotFound(err) })
}

// groupOfQEMU is the group as which QEMU runs.
func groupOfQEMU(t *testing.T) int {
	t.Helper()
	g := must[*user.Group](t)(user.LookupGroup("libvirt-qemu"))
	return must[int](t)(strconv.Atoi(g.Gid))
}

// backUpAndDrill protects the machine of a name, backs it up while it runs, and boots the recovery point.
func (s *server) backUpAndDrill(name string) {
	s.t.Helper()
	ctx, vault := s.t.Context(), s.RecoveryVaultID(name, "vault")
	if err := s.AddAccessPolicy(ctx, s.KeyVaultID(name, kvName), client.BackupManagementService, client.AzureBackupTemplate()); err != nil {
		s.t.Fatal(err)
	}
	must[client.RecoveryVault](s.t)(s.PutRecoveryVault(ctx, vault, "local", "LocallyRedundant"))
	item := must[client.Item](s.t)(s.EnableProtection(ctx, vault, s.VMID(name, name), "DefaultPolicy"))
	job := must[client.Job](s.t)(s.WaitJob(ctx, vault, must[string](s.t)(s.Backup(ctx, item.ARMID(), "")), nil))
	point := job.Properties.Bag("Recovery Point Id")
	p := must[client.Point](s.t)(s.RecoveryPoint(ctx, item.ARMID(), point))
	if p.Properties.Type != "FileSystemConsistent" || p.Properties.Proof == nil || p.Properties.Proof.State != client.Proved {
		s.t.Errorf("the recovery point is %s (%s), %+v", p.Properties.Type, p.Properties.Reason, p.Properties.Proof)
	}
	must[client.Job](s.t)(s.WaitJob(ctx, vault, must[string](s.t)(s.StartDrill(ctx, item.ARMID(), point, client.DrillRequest{Check: []string{"/bin/sh", "-c", "test -e /data/f001"}})), nil))
	if p = must[client.Point](s.t)(s.RecoveryPoint(ctx, item.ARMID(), point)); p.Properties.Drill == nil || p.Properties.Drill.State != client.DrillPassed {
		s.t.Errorf("the drill says %+v", p.Properties.Drill)
	}
}

// A VM that names a host is made there of imported disks, and is removed there when it is deleted.
func TestMachineMadeOnAHost(t *testing.T) {
	lab, ctx := guest.Shared(t), t.Context()
	name := guest.Name("made")
	disk := must[string](t)(lab.Disk(ctx, name+".qcow2", "qcow2", "64M"))
	s := newServer(t, "", "--hosts", "lab="+guest.URI, "--key-dir", keyFolder(t), "--live-dir", t.TempDir(), "--allow-images", lab.Dir)
	must[client.Group](t)(s.PutGroup(ctx, name, "westeurope"))
	id := s.VMID(name, name)
	os := must[client.Disk](t)(s.ImportDisk(ctx, s.DiskID(name, name+"-os"), "westeurope", disk, "Linux", nil))
	vm := client.VMOf("westeurope", "Linux", os)
	vm.Properties.HardwareProfile.VMSize = "custom-1-64"
	vm.Properties.Host = &client.Ref{ID: s.HostID("lab").String()}
	err := guest.Eventually(soon(t), func() (bool, error) {
		hosts, err := s.Hosts(ctx)
		return len(hosts) == 1 && hosts[0].Properties.Answers(), err
	})
	if err != nil {
		t.Fatal(err)
	}
	made := must[client.VM](t)(s.PutVM(ctx, id, vm))
	g := &guest.Guest{Name: name}
	g.RemoveAfter(t)
	if state := must[string](t)(g.State(ctx)); state != "running" {
		t.Errorf("the machine is %s", state)
	}
	if uuid := must[string](t)(guest.Virsh(ctx, "domuuid", name)); uuid != made.Properties.VMID {
		t.Errorf("the machine's UUID is %s, the VM's %s", uuid, made.Properties.VMID)
	}
	if err := s.DeleteVM(ctx, id); err != nil {
		t.Fatal(err)
	}
	if state, err := g.State(ctx); err == nil {
		t.Errorf("after the VM was deleted the machine is %s", state)
	}
	if d := must[client.Disk](t)(s.Disk(ctx, s.DiskID(name, name+"-os"))); d.Properties.DiskState != "Unattached" {
		t.Errorf("its disk is %s", d.Properties.DiskState)
	}
}
