package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"kluis/internal/armid"
	"kluis/internal/client"
	"kluis/internal/volume/volumetest"
)

// The names of the story's resources.
const (
	location     = "local"
	group        = "demo"
	keyVaultName = "demo-keys"
	kekName      = "demo-kek"
	vmName       = "ledger-vm"
	policyName   = "DefaultPolicy"
)

// story is what the steps hand on to one another.
type story struct {
	*narrator
	c    *client.Client
	dir  string
	size int64 // of both disks' content

	os, data *disk
	small    *disk // of the VM that is refused
	keyVault client.KeyVault
	kek      client.Key
	vm       armid.ID
	vault    armid.ID
	storage  armid.ID
	item     client.Item
	points   []client.Point // as they were right after their backups
	template json.RawMessage
	restored []armid.ID // the resource groups of the restored disks, one a point
}

// tell tells the story up to the first step that fails.
func (s *story) tell(ctx context.Context) {
	chapters := []struct {
		number int
		name   string
		run    func(context.Context) error
	}{
		{1, "Two encrypted disks are made: LUKS2 in a raw image, LUKS1 in qcow2", s.makeDisks},
		{2, "A key vault holds a KEK, and for each disk a BEK wrapped with it", s.makeKeys},
		{2, "A VM has these disks and names secret and key", s.makeVM},
		{3, "A Recovery Services vault comes with DefaultPolicy", s.makeVault},
		{3, "Backup is refused: the service may not read the key vault", s.enableTooEarly},
		{3, "Access by the template 'Azure Backup' is granted, and backup is enabled", s.enable},
		{4, "A VM encrypted with a BEK alone is refused", s.refuseBEKAlone},
		{4, "A classic VM is refused", s.refuseClassic},
		{5, "The first backup", s.backUp},
		{5, "1% of the data disk changes", s.changeDisk},
		{5, "The second backup stores what changed", s.backUpAgain},
		{6, "Both recovery points are proved: their own keys open their own disks", s.checkProofs},
		{7, "VM, disks, secrets, key and key vault are destroyed", s.destroy},
		{8, "Restore is refused: the key vault is gone", s.restoreWithoutKeyVault},
		{8, "The key vault is made again; restore is refused: key and secret are gone", s.restoreWithoutKeys},
		{8, "Key and secrets are restored from the recovery point", s.restoreKeys},
		{8, "The disks of the first recovery point are restored", func(ctx context.Context) error { return s.restoreDisks(ctx, 0) }},
		{8, "The disks of the second recovery point are restored", func(ctx context.Context) error { return s.restoreDisks(ctx, 1) }},
		{8, "The template is deployed, and the VM exists again", s.deploy},
		{9, "The restored disks are byte for byte what was backed up", s.compareDisks},
		{9, "Files read out of the decrypted file systems are what they were", s.compareFiles},
	}
	for i, c := range chapters {
		if err := context.Cause(ctx); err != nil {
			s.failed++
			s.say("FAIL    interrupted\n")
			return
		}
		if !s.step(c.number, c.name, func() error { return c.run(ctx) }) {
			if rest := len(chapters) - i - 1; rest > 0 {
				s.say("        %d steps build on this one and were not tried\n", rest)
			}
			return
		}
	}
}

func (s *story) makeDisks(ctx context.Context) error {
	const mib = 1 << 20
	osSize := s.size * 2 / 5 / mib * mib
	dataSize := (s.size - osSize) / mib * mib
	s.os = &disk{name: "os", format: "raw", options: volumetest.Options{Version: 2, PBKDF: "argon2id"}, passphrase: makePassphrase()}
	s.data = &disk{name: "data", format: "qcow2", options: volumetest.Options{Version: 1, PBKDF: "pbkdf2"}, passphrase: makePassphrase(),
		ledgerSize: dataSize / 100 / 65536 * 65536}
	s.small = &disk{name: "small", format: "raw", options: volumetest.Options{Version: 1, PBKDF: "pbkdf2"}, passphrase: makePassphrase()}
	whole := float64(osSize + dataSize)
	err := s.os.make(ctx, s.dir, osSize, func(part float64, note string) { s.progress(part*float64(osSize)/whole, note) })
	if err != nil {
		return err
	}
	err = s.data.make(ctx, s.dir, dataSize, func(part float64, note string) { s.progress((float64(osSize)+part*float64(dataSize))/whole, note) })
	if err != nil {
		return err
	}
	for _, d := range []*disk{s.os, s.data} {
		s.fact("%-5s %s, LUKS%d %s, %s", d.name, human(d.size), d.options.Version, d.options.PBKDF, d.format)
	}
	return s.small.make(ctx, s.dir, 32*mib, func(float64, string) {})
}

func (s *story) makeKeys(ctx context.Context) error {
	if _, err := s.c.PutGroup(ctx, group, location); err != nil {
		return err
	}
	if err := s.makeKeyVault(ctx); err != nil {
		return err
	}
	var err error
	if s.kek, err = s.c.CreateKey(ctx, s.keyVault.Properties.VaultURI, kekName, 3072); err != nil {
		return err
	}
	s.fact("KEK %s", s.kek.ID())
	for _, d := range []*disk{s.os, s.data} {
		bek, err := s.c.SetBEK(ctx, s.keyVault.Properties.VaultURI, client.BEK{
			Name: newName(), Key: d.passphrase, KEK: s.kek.ID(), Alg: client.RSAOAEP256, Machine: vmName,
		})
		if err != nil {
			return err
		}
		d.secretURL = bek.ID
		s.fact("BEK %s (%s, %s)", bek.ID, bek.ContentType, bek.Tags["DiskEncryptionKeyEncryptionAlgorithm"])
	}
	return nil
}

// newName is a name as Azure Disk Encryption gives it to a secret.
func newName() string { return strings.ToUpper(uuid.NewString()) }

// makeKeyVault makes the key vault and gives this principal every right on its content.
func (s *story) makeKeyVault(ctx context.Context) error {
	me, err := s.c.ObjectID(ctx)
	if err != nil {
		return err
	}
	s.keyVault, err = s.c.PutKeyVault(ctx, s.c.KeyVaultID(group, keyVaultName), location, client.KeyVaultProperties{
		EnabledForDiskEncryption: true,
		AccessPolicies:           []client.AccessPolicy{{TenantID: s.c.TenantID(), ObjectID: me, Permissions: client.EveryPermission()}},
	})
	return err
}

func (s *story) makeVM(ctx context.Context) error {
	vault := s.keyVault.ARMID()
	osDisk, err := s.c.ImportDisk(ctx, s.c.DiskID(group, vmName+"-os"), location, s.os.file, "Linux", client.Encryption(vault, s.os.secretURL, s.kek.ID()))
	if err != nil {
		return err
	}
	dataDisk, err := s.c.ImportDisk(ctx, s.c.DiskID(group, vmName+"-data"), location, s.data.file, "", client.Encryption(vault, s.data.secretURL, s.kek.ID()))
	if err != nil {
		return err
	}
	s.vm = s.c.VMID(group, vmName)
	vm, err := s.c.PutVM(ctx, s.vm, client.VMOf(location, "Linux", osDisk, dataDisk))
	if err != nil {
		return err
	}
	s.fact("%s", vm.ID)
	return nil
}

func (s *story) makeVault(ctx context.Context) error {
	s.vault = s.c.RecoveryVaultID(group, "demo-vault")
	v, err := s.c.PutRecoveryVault(ctx, s.vault, location, "LocallyRedundant")
	if err != nil {
		return err
	}
	s.vault = v.ARMID()
	p, err := s.c.Policy(ctx, s.vault, policyName)
	if err != nil {
		return err
	}
	schedule, keep := p.Properties.SchedulePolicy, p.Properties.RetentionPolicy.Daily
	if keep == nil || len(schedule.RunTimes) == 0 {
		return errors.New("DefaultPolicy is not a daily policy")
	}
	s.fact("%s: %s at %s, kept for %d %s", p.Name, schedule.RunFrequency, schedule.RunTimes[0], keep.Duration.Count, keep.Duration.Type)
	return nil
}

func (s *story) enableTooEarly(ctx context.Context) error {
	_, err := s.c.EnableProtection(ctx, s.vault, s.vm, policyName)
	return s.refused(err, "UserErrorKeyVaultPermissionsNotConfigured")
}

func (s *story) enable(ctx context.Context) error {
	if err := s.grant(ctx); err != nil {
		return err
	}
	var err error
	s.item, err = s.c.EnableProtection(ctx, s.vault, s.vm, policyName)
	return err
}

// grant gives Backup Management Service the access of the template 'Azure Backup'.
func (s *story) grant(ctx context.Context) error {
	template := client.AzureBackupTemplate()
	if err := s.c.AddAccessPolicy(ctx, s.keyVault.ARMID(), client.BackupManagementService, template); err != nil {
		return err
	}
	s.fact("Backup Management Service: keys %s; secrets %s", strings.Join(template.Keys, ", "), strings.Join(template.Secrets, ", "))
	return nil
}

func (s *story) refuseBEKAlone(ctx context.Context) error {
	bek, err := s.c.SetBEK(ctx, s.keyVault.Properties.VaultURI, client.BEK{Name: newName(), Key: s.small.passphrase, Machine: "bek-vm"})
	if err != nil {
		return err
	}
	d, err := s.c.ImportDisk(ctx, s.c.DiskID(group, "bek-vm-os"), location, s.small.file, "Linux", client.Encryption(s.keyVault.ARMID(), bek.ID, ""))
	if err != nil {
		return err
	}
	vm := s.c.VMID(group, "bek-vm")
	if _, err := s.c.PutVM(ctx, vm, client.VMOf(location, "Linux", d)); err != nil {
		return err
	}
	_, err = s.c.EnableProtection(ctx, s.vault, vm, policyName)
	return s.refused(err, "UserErrorEncryptedVmWithBekAloneNotSupported")
}

func (s *story) refuseClassic(ctx context.Context) error {
	classic := s.c.ResourceID(group, "Microsoft.ClassicCompute/virtualMachines", "old-vm")
	_, err := s.c.EnableProtection(ctx, s.vault, classic, policyName)
	return s.refused(err, "UserErrorClassicVirtualMachineNotSupported")
}

func (s *story) backUp(ctx context.Context) error {
	job, err := s.c.Backup(ctx, s.item.ARMID(), "")
	if err != nil {
		return err
	}
	j, err := s.c.WaitJob(ctx, s.vault, job, s.watch)
	if err != nil {
		return err
	}
	for _, t := range j.Properties.ExtendedInfo.Tasks {
		s.fact("%-26s %s", t.ID, t.Status)
	}
	point, err := s.newPoint(ctx)
	if err != nil {
		return err
	}
	s.points = append(s.points, point)
	for _, d := range point.Properties.Disks {
		c := d.Counters
		s.fact("%-16s %s: read %s, zero %s, new %s, reused %s, stored %s",
			d.Name, human(c.Size), human(c.Read), human(c.Zero), human(c.New), human(c.Reused), human(c.Stored))
	}
	return nil
}

// newPoint returns the recovery point that is not among those we know.
func (s *story) newPoint(ctx context.Context) (client.Point, error) {
	all, err := s.c.RecoveryPoints(ctx, s.item.ARMID())
	if err != nil {
		return client.Point{}, err
	}
	for _, p := range all {
		if !slices.ContainsFunc(s.points, func(known client.Point) bool { return known.Name == p.Name }) {
			return s.c.RecoveryPoint(ctx, s.item.ARMID(), p.Name)
		}
	}
	return client.Point{}, errors.New("the backup left no recovery point")
}

func (s *story) changeDisk(ctx context.Context) error {
	if err := s.data.change(ctx, s.dir); err != nil {
		return err
	}
	s.os.sha = append(s.os.sha, s.os.sha[0])
	s.fact("%s of %s", human(s.data.ledgerSize), human(s.data.size))
	return nil
}

func (s *story) backUpAgain(ctx context.Context) error {
	if err := s.backUp(ctx); err != nil {
		return err
	}
	stored := func(p client.Point) (n int64) {
		for _, d := range p.Properties.Disks {
			n += d.Counters.Stored
		}
		return n
	}
	first, second := stored(s.points[0]), stored(s.points[1])
	if second < s.data.ledgerSize || second > 2*s.data.ledgerSize+1<<20 {
		return fmt.Errorf("%s changed and %s were stored", human(s.data.ledgerSize), human(second))
	}
	s.fact("stored %s the first time, %s the second", human(first), human(second))
	return nil
}

func (s *story) checkProofs(context.Context) error {
	for i, p := range s.points {
		proof := p.Properties.Proof
		if proof == nil {
			return fmt.Errorf("recovery point %s carries no verdict", p.Name)
		}
		if proof.State != client.Proved || len(proof.Disks) != 2 {
			return fmt.Errorf("recovery point %s is %s: %s", p.Name, proof.State, proof.Reason)
		}
		for _, d := range proof.Disks {
			if d.State != client.Proved {
				return fmt.Errorf("disk %s of recovery point %s is %s: %s", d.Name, p.Name, d.State, d.Reason)
			}
			s.fact("point %d, %-14s %s: %s holds %s, %s read", i+1, d.Name, d.State, d.Encryption, d.FileSystem, human(d.BytesRead))
		}
	}
	return nil
}
