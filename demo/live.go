package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/client"
	"kluis/internal/secret"
	"kluis/test/guest"
)

// The story of a VM that runs. Its guest is a real one, which unlocks its disk by itself with a key that it is given when it
// starts; it writes while it is backed up; everything is destroyed; and a new VM boots, unlocks itself, and has the
// files.

const (
	hostName  = "demo-host"
	guestDisk = "vda"
	liveBEK   = "LEDGER-BEK"
	written   = 16 // MiB that the guest writes between two backups
	// noise is what a file system writes beside: journal, tables, and the rest of chunks that are written in part.
	noise = 6 << 20
)

// liveStory is what its steps hand on to one another.
type liveStory struct {
	*narrator
	c   *client.Client
	lab *guest.Lab
	g   *guest.Guest

	image      string
	passphrase secret.Bytes
	keyVault   client.KeyVault
	kek        client.Key
	vm, disk   armid.ID
	vault      armid.ID
	item       client.Item
	points     []client.Point
	sums       string // of the guest's files
	template   json.RawMessage
	restored   armid.ID // the resource group
}

func runLive(ctx context.Context, binary string) (err error) {
	n := newNarrator(os.Stdout)
	n.say("A guest is made of Debian's kernel and programs.\n")
	lab, err := guest.NewLab(ctx, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	keys, err := os.MkdirTemp("/dev/shm", "kluis-demo-keys-") // in memory
	if err != nil {
		return fmt.Errorf("make a folder for keys: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(keys)) }()
	restored := filepath.Join(lab.Dir, "restored")
	if err := errors.Join(os.Chmod(keys, 0o711), os.Mkdir(restored, 0o711), os.Chmod(restored, 0o711)); err != nil { // QEMU is another user
		return err
	}
	server, err := startServer(ctx, binary, lab.Dir, "--hosts", hostName+"="+guest.URI, "--live-dir", filepath.Join(lab.Dir, "live"), "--key-dir", keys,
		"--restore-dir", restored, "--scratch-reserve", "64MiB")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	s := &liveStory{narrator: n, lab: lab, passphrase: makePassphrase()}
	if s.c, err = server.client(); err != nil {
		return err
	}
	n.say("A server runs at %s and looks after the machines of %s.\n", s.c.Endpoint(), guest.URI)
	defer func() { err = errors.Join(err, s.removeGuests(context.WithoutCancel(ctx))) }()
	s.tell(ctx)
	if n.failed > 0 {
		n.say("\nThe server's last words:\n%s", server.lastWords())
	}
	n.say("\ndemo: %d passed, %d failed\n", n.passed, n.failed)
	if n.failed > 0 {
		return errStory
	}
	return nil
}

func (s *liveStory) tell(ctx context.Context) {
	for _, c := range []struct {
		number int
		name   string
		run    func(context.Context) error
	}{
		{1, "A VM is defined on the host, and found by the server", s.define},
		{2, "Its disk's key is kept in a key vault, wrapped by a KEK", s.makeKeys},
		{2, "The VM is started: it gets its key on a BEK VOLUME, and encrypts its disk", s.start},
		{3, "Backup is enabled", s.enable},
		{3, "The first backup, while the guest writes", s.backUp},
		{4, "The guest writes; the second backup reads what changed", s.increment},
		{4, "The guest writes; the third backup reads what changed", s.increment},
		{4, "The guest writes; the fourth backup reads what changed", s.increment},
		{5, "VM, disk, checkpoint, secret, key and key vault are destroyed", s.destroy},
		{6, "The key vault is made again, with key and secret of the recovery point", s.restoreKeys},
		{6, "The disk of the fourth recovery point is restored", s.restoreDisk},
		{6, "The template is deployed: a new VM boots and unlocks itself", s.deploy},
		{7, "The files in it are what they were", s.compare},
		{8, "A drill: the first recovery point boots, apart from everything", s.drill},
	} {
		if !s.step(c.number, c.name, func() error { return c.run(ctx) }) {
			return
		}
	}
}

func (s *liveStory) define(ctx context.Context) (err error) {
	name := guest.Name("demo")
	if s.image, err = s.lab.Disk(ctx, name+".qcow2", "qcow2", "1G"); err != nil {
		return err
	}
	if s.g, err = s.lab.Define(ctx, guest.Config{Name: name, Arguments: "guest.format=1 guest.files=16",
		Metadata: "<kluis:vm xmlns:kluis='urn:kluis:vm:1' group='" + group + "'/>", Disks: []guest.Disk{{Path: s.image, Format: "qcow2"}}}); err != nil {
		return err
	}
	s.vm, s.disk = s.c.VMID(group, name), s.c.DiskID(group, name+"-"+guestDisk)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s.fact("%s", s.vm)
	return guest.Eventually(ctx, func() (bool, error) {
		_, err := s.c.VM(ctx, s.vm)
		if client.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
}

func (s *liveStory) makeKeys(ctx context.Context) (err error) {
	if err := s.makeKeyVault(ctx); err != nil {
		return err
	}
	if s.kek, err = s.c.CreateKey(ctx, s.keyVault.Properties.VaultURI, kekName, 3072); err != nil {
		return err
	}
	bek, err := s.c.SetBEK(ctx, s.keyVault.Properties.VaultURI, client.BEK{Name: liveBEK, Key: s.passphrase, KEK: s.kek.ID(), Alg: client.RSAOAEP256, Machine: s.g.Name})
	if err != nil {
		return err
	}
	s.fact("KEK %s", s.kek.ID())
	s.fact("BEK %s", bek.ID)
	return s.c.SetEncryption(ctx, s.vm, s.disk, client.Encryption(s.keyVault.ARMID(), bek.ID, s.kek.ID()))
}

func (s *liveStory) makeKeyVault(ctx context.Context) error {
	me, err := s.c.ObjectID(ctx)
	if err != nil {
		return err
	}
	s.keyVault, err = s.c.PutKeyVault(ctx, s.c.KeyVaultID(group, keyVaultName), location, client.KeyVaultProperties{EnabledForDiskEncryption: true,
		AccessPolicies: []client.AccessPolicy{{TenantID: s.c.TenantID(), ObjectID: me, Permissions: client.EveryPermission()},
			{TenantID: s.c.TenantID(), ObjectID: client.BackupManagementService, Permissions: client.AzureBackupTemplate()}}})
	return err
}

func (s *liveStory) start(ctx context.Context) error {
	if err := s.c.StartVM(ctx, s.vm); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := s.g.Await(ctx); err != nil {
		return err
	}
	is, err := s.g.Run(ctx, "cryptsetup status data | grep -E 'type|cipher' | tr -s ' \n' ' '")
	s.fact("%s", is)
	return err
}

func (s *liveStory) enable(ctx context.Context) (err error) {
	s.vault = s.c.RecoveryVaultID(group, "demo-vault")
	if _, err = s.c.PutRecoveryVault(ctx, s.vault, location, "LocallyRedundant"); err != nil {
		return err
	}
	s.item, err = s.c.EnableProtection(ctx, s.vault, s.vm, policyName)
	return err
}

// write has the guest overwrite a file, and waits until that is on its disk.
func (s *liveStory) write(ctx context.Context) error {
	_, err := s.g.Run(ctx, fmt.Sprintf("dd if=/dev/urandom of=/data/ledger bs=1048576 count=%d; sync", written))
	return err
}

func (s *liveStory) backUp(ctx context.Context) error {
	if _, err := s.g.Begin(ctx, "dd if=/dev/urandom of=/data/scribble bs=65536 count=16; sync"); err != nil {
		return err
	}
	job, err := s.c.Backup(ctx, s.item.ARMID(), "")
	if err != nil {
		return err
	}
	j, err := s.c.WaitJob(ctx, s.vault, job, s.watch)
	if err != nil {
		return err
	}
	p, err := s.c.RecoveryPoint(ctx, s.item.ARMID(), j.Properties.Bag("Recovery Point Id"))
	if err != nil {
		return err
	}
	s.points = append(s.points, p)
	d, proof := p.Properties.Disks[0], p.Properties.Proof
	s.fact("%s; the guest's file systems stood still for %d ms", p.Properties.Type, p.Properties.FrozenMS)
	s.fact("read %s, new %s, stored %s", human(d.Counters.Read), human(d.Counters.New), human(d.Counters.Stored))
	if proof == nil || proof.State != client.Proved {
		return fmt.Errorf("the recovery point is not proved: %+v", proof)
	}
	if p.Properties.Type != "FileSystemConsistent" {
		return fmt.Errorf("the recovery point is %s: %s", p.Properties.Type, p.Properties.Reason)
	}
	return nil
}

// increment is a backup that must read no more than what the guest wrote, with a third for what a file system adds.
func (s *liveStory) increment(ctx context.Context) error {
	if err := s.write(ctx); err != nil {
		return err
	}
	if err := s.backUp(ctx); err != nil {
		return err
	}
	d := s.points[len(s.points)-1].Properties.Disks[0]
	if !d.Incremental {
		return fmt.Errorf("all of the disk was read: %s", d.Rescanned)
	}
	const changed = (written + 1) << 20 // the file, and what is scribbled meanwhile
	read := d.Counters.Read - d.Counters.Audited
	s.fact("the guest wrote %s; %s was read for it, and %s to see whether the host left something out", human(changed), human(read), human(d.Counters.Audited))
	if read > changed*13/10+noise {
		return fmt.Errorf("the guest wrote %s and %s was read", human(changed), human(read))
	}
	return nil
}

func (s *liveStory) destroy(ctx context.Context) (err error) {
	// The guest is cut off in the moment of the last backup, so to speak: what it wrote before is what must come back.
	if s.sums, err = s.g.Run(ctx, "sha256sum /data/f* /data/ledger"); err != nil {
		return err
	}
	if err := s.g.Remove(ctx); err != nil {
		return err
	}
	if err := os.Remove(s.image); err != nil {
		return err
	}
	if err := s.c.DeleteKeyVault(ctx, s.keyVault.ARMID()); err != nil {
		return err
	}
	if err := s.c.PurgeKeyVault(ctx, location, keyVaultName); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s.fact("nothing is left but the recovery points")
	return guest.Eventually(ctx, func() (bool, error) { // the server sees that the machine is gone
		_, err := s.c.VM(ctx, s.vm)
		if client.IsNotFound(err) {
			return true, nil
		}
		return false, err
	})
}

func (s *liveStory) restoreKeys(ctx context.Context) error {
	if err := s.makeKeyVault(ctx); err != nil {
		return err
	}
	restored, err := s.c.RestoreKeys(ctx, s.keyVault.Properties.VaultURI, s.points[len(s.points)-1])
	for _, r := range restored {
		s.fact("%s", r.URL)
	}
	if err != nil {
		return err
	}
	// A restore of keys leaves a new key vault's other permissions as they are: it knows its service still.
	return s.c.AddAccessPolicy(ctx, s.keyVault.ARMID(), client.BackupManagementService, client.AzureBackupTemplate())
}

func (s *liveStory) restoreDisk(ctx context.Context) error {
	account := s.c.StorageAccountID(group, "demostaging")
	if _, err := s.c.PutStorageAccount(ctx, account, location); err != nil {
		return err
	}
	target, err := s.c.PutGroup(ctx, "restored", location)
	if err != nil {
		return err
	}
	s.restored = target.ARMID()
	job, err := s.c.RestoreDisks(ctx, s.item, s.points[len(s.points)-1].Name, client.RestoreRequest{TargetGroup: s.restored, StorageAccount: account, Region: location})
	if err != nil {
		return err
	}
	j, err := s.c.WaitJob(ctx, s.vault, job, s.watch)
	if err != nil {
		return err
	}
	s.fact("disk %s", j.Properties.Bag("Restored disk(s)"))
	s.template, err = s.c.Blob(ctx, j.Properties.Bag("Template Blob Uri"))
	return err
}

func (s *liveStory) deploy(ctx context.Context) error {
	parameters, err := parametersFor(s.template, map[string]string{"VirtualMachineName": s.g.Name})
	if err != nil {
		return err
	}
	if err := os.Remove(s.g.Serial); err != nil { // what the old guest wrote there is not to be taken for the new one's
		return err
	}
	if _, err := s.c.Deploy(ctx, s.c.DeploymentID(s.restored.ResourceGroup, "bring-back"), s.template, parameters); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	return s.g.Await(ctx)
}

func (s *liveStory) compare(ctx context.Context) error {
	sums, err := s.g.Run(ctx, "sha256sum /data/f* /data/ledger")
	if err != nil {
		return err
	}
	if sums != s.sums {
		return fmt.Errorf("files differ:\n%s\n%s", s.sums, sums)
	}
	s.fact("%d files have the same sha256", strings.Count(sums, "\n")+1)
	return nil
}

func (s *liveStory) drill(ctx context.Context) error {
	job, err := s.c.StartDrill(ctx, s.item.ARMID(), s.points[0].Name, client.DrillRequest{Check: []string{"/bin/sh", "-c", "test -e /data/f001"}, Seconds: 300})
	if err != nil {
		return err
	}
	if _, err := s.c.WaitJob(ctx, s.vault, job, s.watch); err != nil {
		return err
	}
	p, err := s.c.RecoveryPoint(ctx, s.item.ARMID(), s.points[0].Name)
	if err != nil {
		return err
	}
	d := p.Properties.Drill
	if d == nil || d.State != client.DrillPassed {
		return fmt.Errorf("the drill says %+v", d)
	}
	s.fact("%s after %.1f s: %s, and a check in it ended well", d.State, float64(d.BootMS)/1000, d.Sign)
	return nil
}

// removeGuests leaves nothing of ours on the host.
func (s *liveStory) removeGuests(ctx context.Context) error {
	if s.g == nil {
		return nil
	}
	return s.g.Remove(ctx)
}
