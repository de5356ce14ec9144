package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
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
// boots. The server is nobody on this machine, but for what polkit's rules let it do, QEMU's group, and the folders for keys and for what lives
// as long as a backup; and none of the rules could be left out.
func TestMachineOfAHost(t *testing.T) {
	r := newRights(t)
	lab, ctx := guest.Shared(t).On(r.daemon.URI()), t.Context()
	name := guest.Name("host")
	disk := must[string](t)(lab.Disk(ctx, name+".qcow2", "qcow2", "64M"))
	g := must[*guest.Guest](t)(lab.Define(ctx, guest.Config{Name: name, Arguments: "guest.format=1 guest.files=1", Disks: []guest.Disk{{Path: disk, Format: "qcow2"}},
		Devices:  "<interface type='network'><source network='default'/><model type='virtio'/><filterref filter='default'/></interface>",
		Metadata: `<kluis:vm xmlns:kluis="urn:kluis:vm:1" group="` + name + `"/>`}))
	g.RemoveAfter(t)
	keys, live := keyFolder(t), filepath.Join(lab.Dir, name+"-live")
	r.folders(keys, live)
	s := newServerAs(t, r.who, "", "--hosts", "lab="+r.daemon.URI(), "--key-dir", keys, "--live-dir", live, "--scratch-reserve", "1MiB", "--allow-images", lab.Dir)
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

	r.within("a machine that is found and started", "backup", "run")

	s.grantBackup(name)
	item := s.protectMachine(name)
	p := s.backUpMachine(item, false)
	s.backUpMachine(item, true)
	r.within("the backup of a machine that runs", "backup")
	r.denied(name)
	s.drill(item, p)

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
	r.within("a drill, and a machine that is stopped", "backup", "run")

	s.grantBackup(name)
	s.backUpMachine(item, true)
	r.within("the backup of a machine that is off", "backup")
	s.makeMachine(lab, name+"-made")
	r.within("a machine that is made and removed", "backup", "run")
	r.needed()
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

// grantBackup lets the backup service at the key vault of a machine's group.
func (s *server) grantBackup(name string) {
	s.t.Helper()
	if err := s.AddAccessPolicy(s.t.Context(), s.KeyVaultID(name, kvName), client.BackupManagementService, client.AzureBackupTemplate()); err != nil {
		s.t.Fatal(err)
	}
}

// protectMachine protects the machine of a name, which is also its group's.
func (s *server) protectMachine(name string) client.Item {
	s.t.Helper()
	vault := s.RecoveryVaultID(name, "vault")
	must[client.RecoveryVault](s.t)(s.PutRecoveryVault(s.t.Context(), vault, "local", "LocallyRedundant"))
	return must[client.Item](s.t)(s.EnableProtection(s.t.Context(), vault, s.VMID(name, name), "DefaultPolicy"))
}

// backUpMachine backs a machine up, which must come out proved and, if so wanted, have read what changed only.
func (s *server) backUpMachine(item client.Item, increment bool) client.Point {
	s.t.Helper()
	ctx := s.t.Context()
	job := must[client.Job](s.t)(s.WaitJob(ctx, s.RecoveryVaultID(item.ARMID().ResourceGroup, "vault"), must[string](s.t)(s.Backup(ctx, item.ARMID(), "")), nil))
	p := must[client.Point](s.t)(s.RecoveryPoint(ctx, item.ARMID(), job.Properties.Bag("Recovery Point Id")))
	if p.Properties.Proof == nil || p.Properties.Proof.State != client.Proved || p.Properties.Disks[0].Incremental != increment {
		s.t.Errorf("the recovery point is %s (%s), %+v, %+v", p.Properties.Type, p.Properties.Reason, p.Properties.Proof, p.Properties.Disks[0])
	}
	return p
}

// drill boots a recovery point of a machine that ran.
func (s *server) drill(item client.Item, p client.Point) {
	s.t.Helper()
	if p.Properties.Type != "FileSystemConsistent" {
		s.t.Errorf("the recovery point is %s (%s)", p.Properties.Type, p.Properties.Reason)
	}
	ctx := s.t.Context()
	job := must[string](s.t)(s.StartDrill(ctx, item.ARMID(), p.Name, client.DrillRequest{Check: []string{"/bin/sh", "-c", "test -e /data/f001"}}))
	must[client.Job](s.t)(s.WaitJob(ctx, s.RecoveryVaultID(item.ARMID().ResourceGroup, "vault"), job, nil))
	if p = must[client.Point](s.t)(s.RecoveryPoint(ctx, item.ARMID(), p.Name)); p.Properties.Drill == nil || p.Properties.Drill.State != client.DrillPassed {
		s.t.Errorf("the drill says %+v", p.Properties.Drill)
	}
}

// A VM that names a host is made there of imported disks, and is removed there when it is deleted.
func TestMachineMadeOnAHost(t *testing.T) {
	lab := guest.Shared(t)
	s := newServer(t, "", "--hosts", "lab="+guest.URI, "--key-dir", keyFolder(t), "--live-dir", t.TempDir(), "--allow-images", lab.Dir)
	s.makeMachine(lab, guest.Name("made"))
}

// makeMachine has the server make a machine on its host, and remove it.
func (s *server) makeMachine(lab *guest.Lab, name string) {
	s.t.Helper()
	t, ctx := s.t, s.t.Context()
	image := must[string](t)(lab.Disk(ctx, name+".qcow2", "qcow2", "64M"))
	must[client.Group](t)(s.PutGroup(ctx, name, "westeurope"))
	id := s.VMID(name, name)
	disk := must[client.Disk](t)(s.ImportDisk(ctx, s.DiskID(name, name+"-os"), "westeurope", image, "Linux", nil))
	vm := client.VMOf("westeurope", "Linux", disk)
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
	g := lab.Guest(name)
	g.RemoveAfter(t)
	if state := must[string](t)(g.State(ctx)); state != "running" {
		t.Errorf("the machine is %s", state)
	}
	if uuid := must[string](t)(g.Virsh(ctx, "domuuid", name)); uuid != made.Properties.VMID {
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
