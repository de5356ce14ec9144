package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/database"
	"kluis/internal/fabric"
	"kluis/internal/job"
	"kluis/internal/keyvault"
	"kluis/internal/problem"
	"kluis/internal/recovery"
)

// The tasks of a backup, as people follow them. The first two are Azure's own.
const (
	taskSnapshot = "Take Snapshot"
	taskTransfer = "Transfer data to vault"
	taskKeys     = "Back up keys and secrets"
	taskProve    = "Prove recovery point"
)

// bagTime is how Azure writes a time into a job's property bag.
const bagTime = "1/2/2006 3:04:05 PM"

type backupArgs struct {
	Item      armid.ID  `json:"item"`
	Point     string    `json:"point"`
	Expiry    time.Time `json:"expiry"`
	Scheduled time.Time `json:"scheduled,omitzero"`
}

// pointID makes the id of a recovery point: decimal, as Azure's, and ascending with time. An item has
// one backup at a time, so the microsecond is enough.
func pointID(now time.Time) string { return strconv.FormatInt(now.UnixMicro(), 10) }

// BackUp starts a backup of an item now. A zero expiry keeps the recovery point for 30 days.
func (s *Service) BackUp(ctx context.Context, id armid.ID, expiry time.Time) (j job.Job, err error) {
	if err := s.o.Authorizer.Authorize(ctx, itemActions+"/backup/action", vaultOf(id)); err != nil {
		return job.Job{}, err
	}
	if id, err = canonicalItem(id); err != nil {
		return job.Job{}, err
	}
	now := s.o.Now()
	if expiry.IsZero() {
		expiry = now.Add(defaultRetention)
	}
	if !expiry.After(now) {
		return job.Job{}, expiryInThePast(expiry)
	}
	if expiry.After(now.AddDate(maxRetained, 0, 0)) {
		return job.Job{}, expiryTooFar(expiry)
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		item, err := selectItem(ctx, tx, id)
		if err != nil {
			return err
		}
		if item.SoftDeleted() {
			return itemSoftDeleted(item)
		}
		if item.State == ProtectionStopped {
			return protectionStopped(item)
		}
		j, err = s.enqueue(ctx, tx, item, backupSpec(item, now, time.Time{}, expiry))
		return err
	})
	s.o.Jobs.Wake()
	return j, err
}

// backupWork does the jobs that back up.
type backupWork struct{ s *Service }

// Kind implements job.Work.
func (backupWork) Kind() string { return "Backup" }

// Run implements job.Work: one backup, and what is to be noted of it on the item.
func (w backupWork) Run(ctx context.Context, r *job.Run) error {
	b := &backupRun{s: w.s, r: r}
	err := b.run(ctx)
	b.close()
	if err == nil || ctx.Err() != nil {
		return err
	}
	err = translate(err)
	if noteErr := b.noteFailure(context.WithoutCancel(ctx), err); noteErr != nil {
		r.Log().Error("note failed backup on item", "error", noteErr)
	}
	return err
}

// backupRun is one backup while it runs.
type backupRun struct {
	s     *Service
	r     *job.Run
	args  backupArgs
	item  Item
	store *recovery.Store
	done  func()          // lets go of the store
	last  *recovery.Point // the item's newest point; nil if there is none, or it cannot be read

	vm         compute.VM
	disks      []compute.Disk
	excluded   []PointDisk
	encryption []compute.DiskEncryption
	snapshot   fabric.Snapshot
	keep       fabric.Checkpoint // from which the next backup will begin
	guest      *fabric.GuestState
	targets    map[string]string // the host's names for the disks, by ours
	writer     *recovery.Writer
	point      Point
	keys       map[string]keyMaterial // by disk name
}

// run tells a backup in order. Until commit, nothing of it can be seen; after it, the point is there
// whatever happens.
func (b *backupRun) run(ctx context.Context) error {
	committed, err := b.open(ctx)
	if err != nil {
		return err
	}
	if committed != nil { // an earlier attempt died after its commit
		b.settleCommitted(ctx, committed)
		return b.list(ctx, committed)
	}
	b.r.Task(taskSnapshot)
	if err := b.checkSource(ctx); err != nil {
		return err
	}
	if err := b.takeSnapshot(ctx); err != nil {
		return err
	}
	defer b.settleSnapshot(ctx)
	if b.writer, err = b.store.Begin(ctx, b.args.Point); err != nil {
		return err
	}
	defer b.writer.Abort() // does nothing once committed
	b.r.Task(taskTransfer)
	if err := b.transferData(ctx); err != nil {
		return err
	}
	b.closeSnapshot(ctx) // what comes now reads the store, and a guest that runs pays for every moment of its snapshot
	b.r.Task(taskKeys)
	if err := b.backUpKeys(ctx); err != nil {
		return err
	}
	b.r.Task(taskProve)
	if err := b.prove(ctx); err != nil {
		return err
	}
	root, err := b.commit(ctx)
	if err != nil {
		return err
	}
	b.keep = b.snapshot.Checkpoint()
	return b.list(ctx, root)
}

// open finds item and store, and the point itself if an earlier attempt committed it.
func (b *backupRun) open(ctx context.Context) (committed *recovery.Point, err error) {
	if err := b.r.Args(&b.args); err != nil {
		return nil, err
	}
	if b.item, err = b.s.lookupItem(ctx, b.args.Item); err != nil {
		return nil, err
	}
	if b.store, b.done, err = b.s.stores.write(ctx, b.item.store); err != nil {
		return nil, storeUnreadable(b.item, err)
	}
	committed, err = b.store.Point(ctx, b.args.Point)
	if errors.Is(err, recovery.ErrNoPoint) {
		b.openLast(ctx)
		return nil, nil
	}
	return committed, err
}

// openLast opens the item's newest point. One that cannot be read makes the backup slower and no worse.
func (b *backupRun) openLast(ctx context.Context) {
	if b.item.LastPoint == "" {
		return
	}
	last, err := b.store.Point(ctx, b.item.LastPoint)
	if err != nil {
		b.r.Log().Warn("last recovery point cannot serve as parent", "point", b.item.LastPoint, "error", err)
		return
	}
	b.last = last
}

// since is the checkpoint of the item's newest point.
func (b *backupRun) since() fabric.Checkpoint {
	if b.last == nil {
		return ""
	}
	p, err := decodePoint(b.last)
	if err != nil {
		b.r.Log().Warn("last recovery point does not say from where to go on", "point", b.item.LastPoint, "error", err)
	}
	return fabric.Checkpoint(p.Checkpoint)
}

// checkSource reads VM and disks, and makes sure that their keys can be backed up, before anything is
// moved: a transfer of hours must not end in a permissions error.
func (b *backupRun) checkSource(ctx context.Context) (err error) {
	b.vm, err = b.s.o.Machines.LookupVM(ctx, b.item.VM)
	if isNotFound(err) {
		return vmNotFound(b.item.VM)
	}
	if err != nil {
		return err
	}
	included, excluded := b.item.Disks.split(b.vm)
	b.excluded = excluded
	for _, id := range included {
		disk, err := b.s.o.Machines.LookupDisk(ctx, id)
		if err != nil {
			return err
		}
		b.disks = append(b.disks, disk)
	}
	if b.encryption, err = b.s.checkKeys(b.s.o.AsService(ctx), b.vm.ID); err != nil {
		return err
	}
	if err := b.checkSelection(ctx); err != nil {
		return err
	}
	b.encryption = slices.DeleteFunc(b.encryption, func(e compute.DiskEncryption) bool { return !b.item.Disks.Has(e.Lun) })
	return nil
}

// checkSelection looks again whether disks may be left out: the VM may have been encrypted since it was protected.
func (b *backupRun) checkSelection(ctx context.Context) error {
	if len(b.excluded) == 0 {
		return nil
	}
	return b.s.o.DB.Read(ctx, func(tx *database.Tx) error {
		p, err := selectPolicy(ctx, tx, b.item.Policy)
		if err != nil {
			return err
		}
		return b.item.Disks.allowed(b.vm.ID, b.encryption, p)
	})
}

func (b *backupRun) takeSnapshot(ctx context.Context) error {
	vm, err := b.s.machineOf(ctx, b.vm.ID, b.disks)
	if err != nil {
		return err
	}
	if err := b.readGuestState(ctx, vm); err != nil {
		return err
	}
	b.keep = b.since()
	snapshot, err := b.s.o.Fabric.Snapshot(ctx, vm, b.keep)
	if err != nil {
		return fmt.Errorf("snapshot of %s: %w", vm.Name, err)
	}
	b.snapshot, b.targets = snapshot, map[string]string{}
	for _, d := range vm.Disks {
		b.targets[d.ID] = d.Target
	}
	level := snapshot.Consistency()
	b.point = Point{ID: b.args.Point, Item: b.item.ID, VM: b.vm.ID, Time: b.s.o.Now(), Expiry: b.args.Expiry, Scheduled: b.args.Scheduled, Job: b.r.ID(),
		Consistency: level.Level, ConsistencyReason: level.Reason, Frozen: level.Frozen, Checkpoint: string(snapshot.Checkpoint()),
		Host: vm.Host, VMSize: b.vm.Properties.HardwareProfile.VMSize, OSType: b.vm.OSType(), Excluded: b.excluded}
	if len(b.excluded) > 0 {
		b.r.Detail("Backed-up disk(s)", namesOf(b.disks, func(d compute.Disk) string { return d.ID.Name() }))
		b.r.Detail("Excluded disk(s)", namesOf(b.excluded, func(d PointDisk) string { return d.Name }))
	}
	notes := snapshot.Notes()
	if b.guest != nil {
		notes = append(notes, b.guest.Notes...)
	}
	b.noteLevel(level, notes)
	return nil
}

// machineOf is a VM, with some of its disks, as its host is asked for it.
func (s *Service) machineOf(ctx context.Context, id armid.ID, disks []compute.Disk) (vm fabric.VM, err error) {
	vm = fabric.VM{ID: id.Key(), Name: id.Name()}
	if vm.Host, vm.UUID, _, err = s.o.Machines.Placement(ctx, id); err != nil {
		return vm, err
	}
	for _, disk := range disks {
		spec, err := s.o.Machines.ImageOf(ctx, disk.ID)
		if err != nil {
			return vm, err
		}
		vm.Disks = append(vm.Disks, spec)
	}
	return vm, nil
}

// noteLevel tells what the moment is worth, and what it cost the guest.
func (b *backupRun) noteLevel(level fabric.Consistency, notes []string) {
	b.r.Note("%s", strings.TrimSuffix(level.Level+": "+level.Reason, ": "))
	for _, note := range notes {
		b.r.Note("%s", note)
	}
	if level.Frozen > 0 {
		b.r.Note("The guest's file systems stood still for %d ms", level.Frozen.Milliseconds())
		b.r.Detail("Guest frozen (ms)", strconv.FormatInt(level.Frozen.Milliseconds(), 10))
	}
}

// namesOf joins names as Azure does in a job's property bag.
func namesOf[T any](all []T, name func(T) string) string {
	names := make([]string, len(all))
	for i, v := range all {
		names[i] = name(v)
	}
	return strings.Join(names, "; ")
}

// closeSnapshot ends the reading on the host also when the job was cancelled.
func (b *backupRun) closeSnapshot(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := b.snapshot.Close(ctx); err != nil {
		b.r.Log().Error("close snapshot", "error", err)
	}
}

// settleSnapshot leaves the one checkpoint on the host from which the next backup will begin. What it does not
// get done the next backup does.
func (b *backupRun) settleSnapshot(ctx context.Context) {
	b.closeSnapshot(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := b.snapshot.Settle(ctx, b.keep); err != nil {
		b.r.Log().Error("settle snapshot", "error", err)
	}
}

// settleCommitted is settleSnapshot for an attempt that died after its commit.
func (b *backupRun) settleCommitted(ctx context.Context, root *recovery.Point) {
	p, err := decodePoint(root)
	if err == nil {
		err = b.s.settleHost(ctx, p.VM, fabric.Checkpoint(p.Checkpoint))
	}
	if err != nil {
		b.r.Log().Error("settle snapshot", "error", err)
	}
}

// settleHost leaves one checkpoint of ours on the host of a VM, or none. Of a VM that is gone nothing can be left.
func (s *Service) settleHost(ctx context.Context, vm armid.ID, keep fabric.Checkpoint) error {
	machine, err := s.machineOf(ctx, vm, nil)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return s.o.Fabric.Settle(ctx, machine, keep)
}

// transferData writes each disk. Whatever is in the store already, from the last point or from an
// attempt that was killed, is not stored again.
func (b *backupRun) transferData(ctx context.Context) error {
	var total, before int64
	for _, d := range b.snapshot.Disks() {
		total += d.Size()
	}
	var all recovery.Counters
	for i, source := range b.snapshot.Disks() {
		size := source.Size()
		progress := func(done, of int64) {
			if of > 0 {
				b.r.Progress(before+int64(float64(done)/float64(of)*float64(size)), total)
			}
		}
		written, err := b.transferDisk(ctx, b.disks[i], source, progress)
		if err != nil {
			return fmt.Errorf("transfer disk %s: %w", b.disks[i].ID.Name(), err)
		}
		before += size
		b.r.Progress(before, total)
		b.point.Disks = append(b.point.Disks, written)
		counters := written.Counters
		all.Read, all.New, all.Reused, all.Stored = all.Read+counters.Read, all.New+counters.New, all.Reused+counters.Reused, all.Stored+counters.Stored
	}
	b.r.Note("%s read, %s new, %s reused, %s stored", megabytes(all.Read), megabytes(all.New), megabytes(all.Reused), megabytes(all.Stored))
	for name, n := range map[string]int64{"Bytes read": all.Read, "Bytes new": all.New, "Bytes reused": all.Reused, "Bytes stored": all.Stored} {
		b.r.Detail(name, strconv.FormatInt(n, 10))
	}
	b.r.Detail("Backup Size", megabytes(all.Read))
	return nil
}

// The part of a disk that is read beside its changed extents, to see whether they leave something out.
const (
	auditShare = 1000 // one of so many bytes
	auditLeast = 4 << 20
)

// transferDisk writes one disk: what changed since the last point, or all of it where that cannot be believed or
// turns out to be wrong. Which of the two, and why, is told.
func (b *backupRun) transferDisk(ctx context.Context, disk compute.Disk, source fabric.Disk, progress recovery.Progress) (PointDisk, error) {
	d := PointDisk{Name: disk.ID.Name(), Lun: b.vm.LunOf(disk.ID), ID: disk.ID, Size: source.Size(), Target: b.targets[disk.ID.Name()]}
	parent := b.parent(d.Name, d.Size)
	whole, why := source.Whole()
	if source.Changed() && parent == nil {
		source, why = whole, "the last recovery point does not have it in this size"
	}
	write := func(source fabric.Disk) (err error) {
		d.Counters, err = b.writer.WriteDisk(ctx, d.Name, fabricSource{source}, recovery.DiskOptions{Parent: parent, Changed: source.Changed(),
			Audit: max(d.Size/auditShare, auditLeast), Rate: b.s.rate, Progress: progress})
		return err
	}
	d.Incremental = source.Changed()
	err := write(source)
	if unreported, ok := errors.AsType[*recovery.UnreportedError](err); ok {
		d.Incremental, d.Unreported, why = false, true, unreported.Error()
		err = write(whole)
	}
	if err != nil {
		return d, err
	}
	if d.Rescanned = why; why != "" {
		b.r.Note("Disk %s was read as a whole: %s", d.Name, why)
		b.r.Detail("Read as a whole: "+d.Name, why)
	}
	return d, source.Verify(ctx)
}

// parent is the same disk in the item's newest point, or nil: then every chunk is looked up, which is
// slower and stores no more.
func (b *backupRun) parent(disk string, size int64) *recovery.Disk {
	if b.last == nil {
		return nil
	}
	parent, err := b.last.Disk(disk)
	if err != nil || parent.Size() != size {
		return nil
	}
	return parent
}

// backUpKeys attaches what the key vault makes of each disk's secret and key, as Backup Management
// Service, and from those alone unwraps the BEK for the proof.
func (b *backupRun) backUpKeys(ctx context.Context) error {
	ctx = b.s.o.AsService(ctx)
	b.keys = map[string]keyMaterial{}
	keyBlobs := map[string][]byte{} // disks often share a KEK: it is backed up once
	for i, e := range b.encryption {
		keeper, err := b.s.keeperOf(b.vm.ID, e)
		if err != nil {
			return err
		}
		current, err := keeper.secret(ctx)
		if err != nil {
			return keyFailure("secret", e.SecretURL, err)
		}
		secretBlob, err := keeper.backUpSecret(ctx)
		if err != nil {
			return keyFailure("secret", e.SecretURL, err)
		}
		keyBlob, ok := keyBlobs[e.KeyURL]
		if !ok {
			if keyBlob, err = keeper.backUpKey(ctx); err != nil {
				return keyFailure("key", e.KeyURL, err)
			}
			keyBlobs[e.KeyURL] = keyBlob
		}
		if err := b.attachKeys(i, e, keyBlob, secretBlob, current); err != nil {
			return err
		}
		said, _ := keyvault.ReadBEK(current.ContentType, current.Tags) // what is wrong with them, unwrapped tells
		key := keyMaterial{machine: said.Machine}
		if key.bek, key.err = keeper.unwrapped(ctx, keyBlob, secretBlob, current); key.err != nil {
			// The proof will say so; the point is kept all the same.
			b.r.Log().Warn("BEK cannot be unwrapped from the recovery point", "disk", e.DiskID.Name(), "error", key.err)
		}
		b.keys[e.DiskID.Name()] = key
	}
	return nil
}

// keyFailure tells a secret or key that is gone from one that may not be read, which the key vault says itself.
func keyFailure(what, url string, err error) error {
	if isNotFound(err) {
		return keyNotReadable(what, url, err)
	}
	return fmt.Errorf("back up %s: %w", what, err)
}

func (b *backupRun) close() {
	for _, key := range b.keys {
		key.bek.Wipe()
	}
	if b.done != nil {
		b.done()
	}
}

// commit attaches the documents and writes the root: from here on the point exists.
func (b *backupRun) commit(ctx context.Context) (*recovery.Point, error) {
	for i := range b.point.Disks {
		written, err := b.writer.Disk(b.point.Disks[i].Name)
		if err != nil {
			return nil, err
		}
		b.point.Disks[i].Digest = written.Digest()
	}
	if err := b.attachGuestState(); err != nil {
		return nil, err
	}
	for name, v := range map[string]any{pointDocument: b.point, vmDocument: b.vm, disksDocument: b.disks} {
		doc, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", name, err)
		}
		if err := b.writer.Attach(name, doc); err != nil {
			return nil, fmt.Errorf("attach %s: %w", name, err)
		}
	}
	root, err := b.writer.Commit(ctx, map[string]string{labelItem: b.item.ID.Key()})
	if err != nil {
		return nil, fmt.Errorf("commit recovery point: %w", err)
	}
	return root, nil
}

// list puts a committed point on the list, notes it on the item, and lets expired points go. It is not
// cut short by a cancel: the point is there, so the list must say so.
func (b *backupRun) list(ctx context.Context, root *recovery.Point) error {
	ctx = context.WithoutCancel(ctx)
	point, err := decodePoint(root)
	if err != nil {
		return err
	}
	b.r.Detail("Recovery Point Id", point.ID)
	err = b.s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		item, err := selectItem(ctx, tx, point.Item)
		if err != nil {
			return err
		}
		item.LastBackup, item.LastStatus, item.Problem = b.s.o.Now(), string(job.Completed), nil
		item.collectSoon(b.s.o.Now())
		warnings := warningsOf(point)
		if len(warnings) > 0 {
			p := warnings[0]
			item.LastStatus = string(job.CompletedWithWarnings)
			item.Problem = &job.Problem{Code: p.Code, Message: p.Message, Advice: p.Advice}
		}
		if err := b.s.raise(ctx, tx, sourceOf(b.r), item.ID, point.ID, warnings...); err != nil {
			return err
		}
		return adopt(ctx, tx, &item, root, nil)
	})
	if err != nil {
		return err
	}
	if _, err := b.s.retain(ctx, point.Item, b.store); err != nil { // the backup is done; the collection tries again
		b.r.Log().Error("let expired recovery points go", "error", err)
	}
	return nil
}

// noteFailure puts a failed backup on its item.
func (b *backupRun) noteFailure(ctx context.Context, cause error) error {
	return b.s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		item, err := selectItem(ctx, tx, b.args.Item)
		if err != nil {
			return err
		}
		item.LastBackup, item.LastStatus = b.s.o.Now(), string(job.Failed)
		item.collectSoon(b.s.o.Now()) // what it stored is given back, unless the next backup finds it
		if p := problem.Of(cause); p != nil {
			item.Problem = &job.Problem{Code: p.Code, Message: p.Message, Advice: p.Advice, Target: p.Target}
		}
		if item.State == IRPending || item.State == Protected {
			item.State = ProtectionError
		}
		if err := b.s.raise(ctx, tx, sourceOf(b.r), item.ID, "", jobFailed("backup", item.VM, cause)); err != nil {
			return err
		}
		return putItem(ctx, tx, item)
	})
}

// fabricSource is a disk of a snapshot as the recovery store reads it: the same, with the store's word for
// an extent.
type fabricSource struct{ fabric.Disk }

// Extents implements recovery.Source.
func (f fabricSource) Extents(ctx context.Context) iter.Seq2[recovery.Extent, error] {
	return func(yield func(recovery.Extent, error) bool) {
		for e, err := range f.Disk.Extents(ctx) {
			if !yield(recovery.Extent(e), err) {
				return
			}
		}
	}
}

// translate turns an engine's error into one for a person. What already is one stays.
func translate(err error) error {
	if problem.Of(err) != nil {
		return err
	}
	if image, ok := errors.AsType[*fabric.ImageError](err); ok {
		return imageProblem(image)
	}
	if host, ok := errors.AsType[*fabric.HostError](err); ok {
		return hostProblem(host)
	}
	if damage, ok := errors.AsType[*recovery.DamageError](err); ok {
		return pointDamaged(damage)
	}
	if errors.Is(err, syscall.ENOSPC) {
		return storeFull(err)
	}
	return err
}

func megabytes(n int64) string { return strconv.FormatInt((n+1<<19)>>20, 10) + " MB" }
