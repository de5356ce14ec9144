package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/database"
	"kluis/internal/fabric"
	"kluis/internal/job"
	"kluis/internal/keyvault"
	"kluis/internal/recovery"
)

// RestoreRequest asks for the disks of a recovery point.
type RestoreRequest struct {
	Point          armid.ID // …/protectedItems/{item}/recoveryPoints/{id}
	Type           string   // RestoreDisks
	TargetGroup    armid.ID // where the restored disks become resources
	StorageAccount armid.ID // where configuration and template are left
	Region         string   // that of the vault, or empty
	Luns           []int    // data disks to restore beside the OS disk; nil restores all
}

const (
	restoreDisks     = "RestoreDisks"
	taskTransferBack = "Transfer data from vault"
	taskWriteConfig  = "Write configuration and template"
	timeSuffix       = "20060102-150405"
	maxContainerName = 63
)

type restoreArgs struct {
	Point          armid.ID `json:"point"`
	TargetGroup    armid.ID `json:"targetGroup"`
	StorageAccount armid.ID `json:"storageAccount"`
	Luns           []int    `json:"luns"`
	AllDisks       bool     `json:"allDisks"`
	Container      string   `json:"container"`
}

// Restore starts a restore of disks, after the checks that would make what is restored useless: the key
// vault must exist, and key and secret in it. Each failure has its own error, and following its advice
// mends it.
func (s *Service) Restore(ctx context.Context, req RestoreRequest) (j job.Job, err error) {
	if err := s.o.Authorizer.Authorize(ctx, pointActions+"/restore/action", vaultOf(req.Point)); err != nil {
		return job.Job{}, err
	}
	p, err := s.restorable(ctx, req)
	if err != nil {
		return job.Job{}, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		item, err := selectItem(ctx, tx, p.Item)
		if err != nil {
			return err
		}
		if err := item.readable(); err != nil {
			return err
		}
		j, err = s.enqueue(ctx, tx, item, job.Spec{Kind: restoreWork{}.Kind(), Tasks: []string{taskTransferBack, taskWriteConfig},
			Args: restoreArgs{Point: p.Item.Child("recoveryPoints", p.ID), TargetGroup: req.TargetGroup, StorageAccount: req.StorageAccount,
				Luns: req.Luns, AllDisks: req.Luns == nil, Container: s.containerFor(p)},
			Details: map[string]string{
				"Job Type": "Recover disks", "Target VM Name": p.VM.Name(), "Target Storage Account Name": req.StorageAccount.Name(),
				"Recovery point time ":  p.Time.UTC().Format(bagTime), // with the blank: Azure's key has it
				"Target resource group": req.TargetGroup.Name(),
			}})
		return err
	})
	s.o.Jobs.Wake()
	return j, err
}

// ValidateRestore is Restore up to where it would begin. In Azure there are two operations for it, each with an
// action of its own.
func (s *Service) ValidateRestore(ctx context.Context, action string, req RestoreRequest) error {
	if err := s.o.Authorizer.Authorize(ctx, action, vaultOf(req.Point)); err != nil {
		return err
	}
	p, err := s.restorable(ctx, req)
	if err != nil {
		return err
	}
	item, err := s.lookupItem(ctx, p.Item)
	if err != nil {
		return err
	}
	return item.readable()
}

// restorable returns the recovery point, if it can be restored as the request wants it.
func (s *Service) restorable(ctx context.Context, req RestoreRequest) (Point, error) {
	p, err := s.lookupPoint(ctx, req.Point)
	if err != nil {
		return Point{}, err
	}
	if err := s.checkTarget(ctx, p, req); err != nil {
		return Point{}, err
	}
	return p, s.checkRestoreKeys(s.o.AsService(ctx), p)
}

// containerFor makes a container name that no other restore has: "{vm}-{32 hex digits}".
func (s *Service) containerFor(p Point) string {
	var name strings.Builder
	for _, r := range strings.ToLower(p.VM.Name()) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			name.WriteRune(r)
		}
	}
	unique := strings.ReplaceAll(s.o.NewID(), "-", "")
	vm := cmp.Or(name.String(), "vm")
	return vm[:min(len(vm), maxContainerName-len(unique)-1)] + "-" + unique
}

func (s *Service) checkTarget(ctx context.Context, p Point, req RestoreRequest) error {
	if req.Type != restoreDisks {
		return restoreTypeNotSupported(req.Type)
	}
	if vault, err := s.lookupVault(ctx, vaultOf(p.Item)); err != nil {
		return err
	} else if req.Region != "" && !sameRegion(req.Region, vault.Location) {
		return restoreElsewhere(vault, req.Region)
	}
	if req.TargetGroup.ResourceGroup == "" {
		return restoreNeeds("targetResourceGroupId")
	}
	if req.StorageAccount.Name() == "" || req.StorageAccount.Provider == "" {
		return restoreNeeds("storageAccountId")
	}
	for _, lun := range req.Luns {
		if !slices.ContainsFunc(p.Disks, func(d PointDisk) bool { return d.Lun == lun }) {
			names := make([]string, len(p.Disks))
			for i, d := range p.Disks {
				names[i] = fmt.Sprintf("%s (LUN %d)", d.Name, d.Lun)
			}
			return noSuchDisk(lun, names)
		}
	}
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.Compute/disks/write", req.TargetGroup); err != nil {
		return err
	}
	if err := s.o.Artifacts.AccountExists(ctx, req.StorageAccount); err != nil {
		return err
	}
	return s.o.Groups.GroupExists(ctx, req.TargetGroup.ResourceGroup)
}

// sameRegion compares names of regions, which people also write with blanks: West Europe.
func sameRegion(a, b string) bool {
	return strings.EqualFold(strings.ReplaceAll(a, " ", ""), strings.ReplaceAll(b, " ", ""))
}

// checkRestoreKeys makes sure that the keys a restored VM will ask for are where its settings say.
func (s *Service) checkRestoreKeys(ctx context.Context, p Point) error {
	var gone []string
	for _, k := range p.Keys {
		if k.Outside != nil {
			absent, err := s.absentOutside(ctx, p.VM, k)
			if err != nil {
				return err
			}
			gone = append(gone, absent...)
			continue
		}
		for _, vault := range []armid.ID{k.SecretVault, k.KeyVault} {
			missing, err := s.o.Keys.Missing(ctx, vault, s.o.ServiceObject, keyvault.AzureBackupTemplate())
			if isNotFound(err) {
				return keyVaultGone(p.VM.Name(), vault)
			}
			if err != nil {
				return err
			}
			if !missing.IsZero() {
				return keyVaultPermissions(p.VM, vault, missing)
			}
		}
		absent, err := s.absent(ctx, k)
		if err != nil {
			return err
		}
		gone = append(gone, absent...)
	}
	if len(gone) > 0 {
		slices.Sort(gone)
		return keyAndSecretGone(p.VM.Name(), slices.Compact(gone))
	}
	return nil
}

// absent names what of a pair its key vault does not have.
func (s *Service) absent(ctx context.Context, k KeyPair) (gone []string, err error) {
	keyID, err := keyvault.ParseKeyID(k.KeyURL)
	if err != nil {
		return nil, err
	}
	secretID, err := keyvault.ParseSecretID(k.SecretURL)
	if err != nil {
		return nil, err
	}
	if _, err := s.o.Keys.Key(ctx, keyID); isNotFound(err) {
		gone = append(gone, "key "+keyID.Name)
	} else if err != nil {
		return nil, err
	}
	if _, err := s.o.Keys.Secret(ctx, secretID); isNotFound(err) {
		gone = append(gone, "secret "+secretID.Name)
	} else if err != nil {
		return nil, err
	}
	return gone, nil
}

// restoreWork does the jobs that restore disks.
type restoreWork struct{ s *Service }

// Kind implements job.Work.
func (restoreWork) Kind() string { return "Restore" }

// Run implements job.Work.
func (w restoreWork) Run(ctx context.Context, r *job.Run) error {
	run := &restoreRun{s: w.s, r: r}
	err := run.run(ctx)
	if err != nil && (ctx.Err() == nil || job.WasCancelled(ctx)) {
		run.undo(context.WithoutCancel(ctx))
	}
	if run.done != nil {
		run.done()
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	err = translate(err)
	w.s.raiseFailed(context.WithoutCancel(ctx), r, "restore", run.point, err)
	return err
}

// restoreRun is one restore while it runs.
type restoreRun struct {
	s    *Service
	r    *job.Run
	args restoreArgs

	point  Point
	store  *recovery.Store
	done   func() // lets go of the store
	stored *recovery.Point
	vm     compute.VM
	disks  []compute.Disk // as they were, in the order of point.Disks
	result []restoredDisk
}

// restoredDisk is a disk of the point and the resource it has become.
type restoredDisk struct {
	PointDisk
	Disk compute.Disk
}

func (r *restoreRun) run(ctx context.Context) error {
	if err := r.open(ctx); err != nil {
		return err
	}
	r.r.Task(taskTransferBack)
	if err := r.restoreDisks(ctx); err != nil {
		return err
	}
	r.r.Task(taskWriteConfig)
	return r.writeArtifacts(ctx)
}

func (r *restoreRun) open(ctx context.Context) (err error) {
	if err := r.r.Args(&r.args); err != nil {
		return err
	}
	if r.point, err = r.s.lookupPoint(ctx, r.args.Point); err != nil {
		return err
	}
	item, err := r.s.lookupItem(ctx, r.point.Item)
	if err != nil {
		return err
	}
	// As its owner: a collection must know what is being read.
	if r.store, r.done, err = r.s.stores.write(ctx, item.store); err != nil {
		return storeUnreadable(item, err)
	}
	if r.stored, err = storedPoint(ctx, r.store, r.point); err != nil {
		return err
	}
	if r.vm, r.disks, err = savedMachine(r.stored); err != nil {
		return pointDamaged(err)
	}
	return nil
}

// wanted reports whether the request asks for a disk; the OS disk is always restored.
func (r *restoreRun) wanted(d PointDisk) bool {
	return r.args.AllDisks || d.Lun < 0 || slices.Contains(r.args.Luns, d.Lun)
}

func (r *restoreRun) restoreDisks(ctx context.Context) error {
	var total, before int64
	var restored, all []string
	for _, d := range r.point.Disks {
		all = append(all, d.Name)
		if r.wanted(d) {
			total += d.Size
			restored = append(restored, d.Name)
		}
	}
	for i, d := range r.point.Disks {
		if !r.wanted(d) {
			continue
		}
		disk, err := r.restoreDisk(ctx, d, r.disks[i], func(done, of int64) {
			if of > 0 {
				r.r.Progress(before+int64(float64(done)/float64(of)*float64(d.Size)), total)
			}
		})
		if err != nil {
			return err
		}
		before += d.Size
		r.r.Progress(before, total)
		r.r.Note("%s / %s Transferred", megabytes(before), megabytes(total))
		r.result = append(r.result, restoredDisk{d, disk})
	}
	r.r.Detail("Restored disk(s)", strings.Join(restored, "; "))
	r.r.Detail("Backed-up disk(s)", strings.Join(all, "; "))
	return nil
}

// restoreDisk writes one disk beside its final path, makes it durable, and only then lets it become a
// resource. Its name is decided by the job, so an attempt that follows a kill finds what is done.
func (r *restoreRun) restoreDisk(ctx context.Context, d PointDisk, as compute.Disk, progress recovery.Progress) (compute.Disk, error) {
	name, id := r.target(d)
	if done, err := r.s.o.Machines.LookupDisk(ctx, id); err == nil {
		return done, nil
	}
	source, err := r.stored.Disk(d.Name)
	if err != nil {
		return compute.Disk{}, pointDamaged(err)
	}
	image, err := r.newDisk(ctx, name, d)
	if err != nil {
		return compute.Disk{}, restoreFailure(d.Name, err)
	}
	defer func() { _ = image.Abort() }() // does nothing once committed
	// Commit makes the disk durable, so that Restore need not.
	if _, err := r.store.Restore(ctx, source, image, recovery.RestoreOptions{NoSync: true, Progress: progress}); err != nil {
		return compute.Disk{}, restoreFailure(d.Name, err)
	}
	if err := image.Commit(); err != nil {
		return compute.Disk{}, restoreFailure(d.Name, err)
	}
	state, err := r.guestState(d)
	if err != nil {
		return compute.Disk{}, pointDamaged(err)
	}
	disk, err := r.s.o.Machines.AdoptRestored(ctx, id, image.Path(), d.Size, as, state)
	if err != nil {
		return compute.Disk{}, errors.Join(err, r.s.o.Fabric.Remove(context.WithoutCancel(ctx), image.Path()))
	}
	return disk, nil
}

// guestState is what the machine was beside its disks; it comes with the OS disk, from points of machines that ran.
func (r *restoreRun) guestState(d PointDisk) (*fabric.GuestState, error) {
	if d.Lun >= 0 {
		return nil, nil
	}
	return guestStateOf(r.stored)
}

// target is the disk resource that a disk becomes. Its name has Azure's form and the beginning of the job's id:
// of two disks of one name that are restored in one second, each must become its own.
func (r *restoreRun) target(d PointDisk) (name string, id armid.ID) {
	unique, _, _ := strings.Cut(r.r.ID(), "-")
	name = d.Name + "-" + r.r.Created().UTC().Format(timeSuffix) + "-" + unique
	return name, r.args.TargetGroup.Resource("Microsoft.Compute/disks", name)
}

// newDisk begins an image. One that is there although no resource has it was left by an attempt that was
// killed between naming the image and making it a resource; the name is this job's alone.
func (r *restoreRun) newDisk(ctx context.Context, name string, d PointDisk) (NewDisk, error) {
	folder := strings.ToLower(r.args.TargetGroup.ResourceGroup)
	data := d.Counters.New + d.Counters.Reused
	target, err := r.s.o.Fabric.NewDisk(ctx, folder, name+".raw", d.Size, data)
	if left, ok := errors.AsType[*fabric.ImageError](err); ok && left.Kind == fabric.Exists && r.r.Attempt() > 1 {
		if err := r.s.o.Fabric.Remove(ctx, left.Path); err != nil {
			return nil, err
		}
		return r.s.o.Fabric.NewDisk(ctx, folder, name+".raw", d.Size, data)
	}
	return target, err
}

// undo removes what a restore that failed has made, whichever attempt made it: a machine has all of its disks
// or none. What a VM was given already stays.
func (r *restoreRun) undo(ctx context.Context) {
	for _, d := range r.point.Disks {
		if !r.wanted(d) {
			continue
		}
		name, id := r.target(d)
		err := r.s.o.Machines.DropRestored(ctx, id)
		if err == nil && r.r.Attempt() > 1 { // takes over what a killed attempt left, and lets go of it
			var left NewDisk
			if left, err = r.newDisk(ctx, name, d); err == nil {
				err = left.Abort()
			}
		}
		if err != nil {
			r.r.Log().Warn("remove a disk of a restore that failed", "disk", name, "error", err)
		}
	}
}

func restoreFailure(disk string, err error) error {
	image, ok := errors.AsType[*fabric.ImageError](err)
	if ok && image.Kind == fabric.NoSpace || errors.Is(err, syscall.ENOSPC) {
		return targetFull(disk, err)
	}
	return fmt.Errorf("restore disk %s: %w", disk, err)
}

// writeArtifacts leaves what a person needs to make a VM of the disks.
func (r *restoreRun) writeArtifacts(ctx context.Context) error {
	keys, err := keysOf(r.point, r.stored)
	if err != nil {
		return err
	}
	names := artifactNames(r.vm.ID.Name(), r.r.ID())
	documents := []struct {
		name, detail string
		make         func() ([]byte, error)
	}{
		{names.config, "Config Blob Uri", func() ([]byte, error) { return configuration(r.vm, r.result) }},
		{names.template, "Template Blob Uri", func() ([]byte, error) { return template(r.vm, r.result, r.point) }},
		{names.encryption, "", func() ([]byte, error) { return encryptionInfo(keys) }},
	}
	for _, d := range documents {
		if d.name == names.encryption && len(keys) == 0 {
			continue
		}
		data, err := d.make()
		if err != nil {
			return fmt.Errorf("make %s: %w", d.name, err)
		}
		url, err := r.s.o.Artifacts.WriteArtifact(ctx, r.args.StorageAccount, r.args.Container, d.name, data)
		if err != nil {
			return fmt.Errorf("write %s: %w", d.name, err)
		}
		if d.detail != "" {
			r.r.Detail(d.detail, url)
		} else {
			r.r.Detail("Encryption Info Blob Name", d.name)
		}
	}
	r.r.Detail("Config Blob Name", names.config)
	r.r.Detail("Config Blob Container Name", r.args.Container)
	return nil
}

type artifacts struct{ config, template, encryption string }

func artifactNames(vm, job string) artifacts {
	return artifacts{"config-" + vm + "-" + job + ".json", "azuredeploy" + job + ".json", "encryption-" + vm + "-" + job + ".json"}
}

// azureTime writes a time as Azure's documents do.
func azureTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.9999999Z") }
