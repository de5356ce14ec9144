package compute

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/fabric"
	"kluis/internal/job"
	"kluis/internal/problem"
)

// A disk or a snapshot that is a copy of another is there at once, in the provisioning state Creating, and is nobody's
// to use until a job has copied the image. Where that fails it is gone again, and the operation says why. The job may
// be run again from the start: what an earlier attempt has left is removed first. Deleting the target stops the job.

// copyKind is the kind of the jobs.
const copyKind = "CopyDisk"

// copyFolder holds the copies, below the folder for restored disks.
const copyFolder = "copies"

// copyArgs is what the job is told.
type copyArgs struct {
	Target   armid.ID
	UniqueID string // of the target: another one may have its id by then
	Source   armid.ID
}

// plannedCopy is a copy that may be begun.
type plannedCopy struct {
	properties DiskProperties // of the target
	image      Image          // likewise
	args       copyArgs
}

func (d Disk) isCopy() bool { return strings.EqualFold(d.Properties.CreationData.CreateOption, "Copy") }

// beginDisk begins a disk that is a copy of a snapshot or of another disk. It is there when its operation has ended.
func (s *Service) beginDisk(ctx context.Context, d Disk) (Disk, error) {
	c, err := s.planCopy(ctx, d.ID, d.Properties)
	if err != nil {
		return Disk{}, err
	}
	d.Properties = c.properties
	row := diskRow{Disk: d, image: c.image, owned: true}
	j, err := s.beginCopy(ctx, c, func(tx *database.Tx) error { return insertDisk(ctx, tx, row) })
	if database.IsUnique(err) {
		return Disk{}, diskExists(d.ID)
	}
	row.operation = j
	return row.shown(s.o.Now()), err
}

// sameSource refuses another source than the one that a disk or snapshot was made of. A client may leave it out.
func sameSource(id armid.ID, was, now CreationData) error {
	if now.SourceURI != "" && now.SourceURI != was.SourceURI {
		return imageFixed(id, was.SourceURI)
	}
	if !now.SourceResourceID.IsZero() && !now.SourceResourceID.Equal(was.SourceResourceID) {
		return imageFixed(id, was.SourceResourceID.String())
	}
	return nil
}

// noSnapshotAt refuses the image of a snapshot as that of a disk: nobody writes to a snapshot.
func noSnapshotAt(ctx context.Context, tx *database.Tx, d Disk, path string) error {
	taken, err := hasSnapshotAt(ctx, tx, path)
	if err == nil && taken {
		return imageTaken(d, path)
	}
	return err
}

// planCopy looks whether a disk or snapshot that is asked for can be made, of what its creation data name. asked are
// its properties; what they leave open is the source's.
func (s *Service) planCopy(ctx context.Context, id armid.ID, asked DiskProperties) (plannedCopy, error) {
	c := asked.CreationData
	if !strings.EqualFold(c.CreateOption, "Copy") {
		return plannedCopy{}, createOptionNotSupported(id, c.CreateOption)
	}
	if !c.SourceResourceID.Is(DiskType) && !c.SourceResourceID.Is(SnapshotType) {
		return plannedCopy{}, copySourceRequired(id)
	}
	// Who copies a disk could as well have its bytes.
	if err := s.o.Authorizer.Authorize(ctx, c.SourceResourceID.Type()+"/beginGetAccess/action", c.SourceResourceID); err != nil {
		return plannedCopy{}, err
	}
	src, err := s.source(ctx, c.SourceResourceID)
	if isNotFound(err) {
		return plannedCopy{}, copySourceMissing(id, c.SourceResourceID)
	}
	if err != nil {
		return plannedCopy{}, err
	}
	if gib := (src.image.Size + 1<<30 - 1) >> 30; asked.SizeGB != 0 && asked.SizeGB != gib {
		return plannedCopy{}, copySizeFixed(id, gib)
	}
	if err := s.tryToRead(ctx, src); err != nil {
		return plannedCopy{}, err
	}
	return s.asCopy(id, asked, src)
}

// asCopy is what a copy of a source will be.
func (s *Service) asCopy(id armid.ID, asked DiskProperties, src source) (plannedCopy, error) {
	p := asked
	p.UniqueID, p.TimeCreated = s.o.NewID(), s.o.Now()
	p.CreationData = CreationData{CreateOption: "Copy", SourceResourceID: src.id, SourceUniqueID: src.uniqueID}
	if p.EncryptionSettings == nil {
		p.EncryptionSettings = src.encryption
	}
	if p.OSType == "" {
		p.OSType = src.osType
	}
	p.SizeBytes, p.SizeGB = src.image.Size, (src.image.Size+1<<30-1)>>30
	p.ProvisioningState, p.DiskState = creating, unattached
	path, err := s.o.Images.CopyPath(copyFolder, p.UniqueID)
	if err != nil {
		return plannedCopy{}, err
	}
	return plannedCopy{properties: p, image: Image{Path: path, Format: src.image.Format, Size: src.image.Size}, args: copyArgs{id, p.UniqueID, src.id}}, nil
}

// beginCopy writes the target's row and enqueues the job, both or neither. It returns the job's id.
func (s *Service) beginCopy(ctx context.Context, c plannedCopy, insert func(*database.Tx) error) (string, error) {
	var j job.Job
	err := s.o.DB.InTx(ctx, func(tx *database.Tx) (err error) {
		if err := insert(tx); err != nil {
			return err
		}
		j, err = s.o.Jobs.Enqueue(ctx, tx, job.Spec{Kind: copyKind, Scope: c.args.Target.Scope().Key(), Entity: c.args.Target.Key(),
			Exclusive: exclusive(c.args.Target), Args: c.args})
		return err
	})
	if errors.Is(err, job.ErrBusy) { // one of that name was deleted just now, and its job has not noticed yet
		return "", copyInProgress(c.args.Target)
	}
	if err != nil {
		return "", err
	}
	s.o.Jobs.Wake()
	return j.ID, nil
}

func exclusive(target armid.ID) string { return copyKind + " " + target.Key() }

// Works are the kinds of jobs that the service does.
func (s *Service) Works() []job.Work { return []job.Work{copyWork{s}} }

type copyWork struct{ s *Service }

// Kind implements job.Work.
func (copyWork) Kind() string { return copyKind }

// Run implements job.Work.
func (w copyWork) Run(ctx context.Context, r *job.Run) error {
	var args copyArgs
	if err := r.Args(&args); err != nil {
		return err
	}
	t, err := w.s.copyTarget(ctx, args)
	if err == nil {
		err = w.s.copyImage(ctx, r, args, t)
	}
	if err != nil && (ctx.Err() == nil || job.WasCancelled(ctx)) {
		return errors.Join(err, w.s.dropTarget(context.WithoutCancel(ctx), args))
	}
	return err
}

// copyImage copies the image to its place and lets the target be used.
func (s *Service) copyImage(ctx context.Context, r *job.Run, args copyArgs, to Image) error {
	src, err := s.source(ctx, args.Source)
	if isNotFound(err) {
		return copySourceMissing(args.Target, args.Source)
	}
	if err != nil {
		return err
	}
	if err := s.o.Images.Remove(ctx, to.Path); err != nil {
		return fmt.Errorf("remove what an earlier attempt has left: %w", err)
	}
	spec := fabric.DiskSpec{ID: args.Source.Name(), Path: src.image.Path, Format: src.image.Format, ExpectedSize: src.image.Size}
	if err := s.o.Images.Copy(ctx, spec, copyFolder, args.UniqueID, r.Progress); err != nil {
		return copyProblem(args.Source, err)
	}
	return s.finish(ctx, args)
}

// copyTarget returns the image that is to be made; NotFound if nobody wants it any more.
func (s *Service) copyTarget(ctx context.Context, args copyArgs) (i Image, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		i, err = wanted(ctx, tx, args, nil)
		return err
	})
	return i, err
}

// finish lets the target be used.
func (s *Service) finish(ctx context.Context, args copyArgs) error {
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		_, err := wanted(ctx, tx, args, func(p *DiskProperties) { p.ProvisioningState = succeeded })
		return err
	})
}

// wanted returns the image of the target, and changes its properties if there is a change. It is NotFound if
// the target is gone, or another one.
func wanted(ctx context.Context, tx *database.Tx, args copyArgs, change func(*DiskProperties)) (Image, error) {
	if args.Target.Is(SnapshotType) {
		row, err := selectSnapshot(ctx, tx, args.Target)
		if err == nil && row.Properties.UniqueID != args.UniqueID {
			err = notFound(SnapshotType, args.Target)
		}
		if err == nil && change != nil {
			change(&row.Properties.DiskProperties)
			err = updateSnapshot(ctx, tx, row)
		}
		return row.image, err
	}
	row, err := selectDisk(ctx, tx, args.Target)
	if err == nil && row.Properties.UniqueID != args.UniqueID {
		err = notFound(DiskType, args.Target)
	}
	if err == nil && change != nil {
		change(&row.Properties)
		err = putDisk(ctx, tx, row)
	}
	return row.image, err
}

// dropTarget removes a target that could not be made, and whatever there is of its file.
func (s *Service) dropTarget(ctx context.Context, args copyArgs) error {
	path, err := s.o.Images.CopyPath(copyFolder, args.UniqueID)
	if err != nil {
		return err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if _, err := wanted(ctx, tx, args, nil); err != nil {
			if isNotFound(err) {
				return nil
			}
			return err
		}
		if args.Target.Is(SnapshotType) {
			return deleteSnapshot(ctx, tx, args.Target)
		}
		return deleteDisk(ctx, tx, args.Target)
	})
	return errors.Join(err, s.o.Images.Remove(ctx, path))
}

// Operation is what a client follows: a grant of access, or the copying of a disk.
type Operation struct {
	ID         string
	Resource   armid.ID // that it is about
	Status     string   // "InProgress", "Succeeded", "Failed", "Canceled"
	Percent    int
	Start, End time.Time
	AccessURL  string         // what a grant came to
	Error      *problem.Error // why it failed
}

// Operation returns an operation to whoever may see what it is about.
func (s *Service) Operation(ctx context.Context, id string) (Operation, error) {
	url, err := s.AccessURL(ctx, id)
	if err == nil || !isNotFound(err) {
		return Operation{ID: id, Status: "Succeeded", Percent: 100, AccessURL: url}, err
	}
	j, err := s.o.Jobs.Job(ctx, id)
	if errors.Is(err, job.ErrNotFound) || err == nil && j.Kind != copyKind {
		return Operation{}, operationNotFound(id)
	}
	if err != nil {
		return Operation{}, err
	}
	target, err := armid.Parse(j.Entity)
	if err != nil {
		return Operation{}, err
	}
	typ := DiskType
	if target.Is(SnapshotType) {
		typ = SnapshotType
	}
	if err := s.o.Authorizer.Authorize(ctx, typ+"/read", target); err != nil {
		return Operation{}, err
	}
	return describe(j, target), nil
}

func describe(j job.Job, target armid.ID) Operation {
	o := Operation{ID: j.ID, Resource: target, Status: j.Status(), Start: j.Created, End: j.Ended}
	if j.Total > 0 {
		o.Percent = int(100 * j.Done / j.Total)
	}
	switch {
	case j.State != job.Ended:
		o.Status = "InProgress"
	case j.Outcome == job.Completed, j.Outcome == job.CompletedWithWarnings:
		o.Status, o.Percent = "Succeeded", 100
	case j.Outcome == job.Cancelled:
		o.Status = "Canceled"
	}
	if n := len(j.Problems); n > 0 && o.Status == "Failed" {
		p := j.Problems[n-1]
		o.Error = problem.New(problem.Conflict, p.Code, "%s", p.Message).WithTarget(p.Target).WithAdvice("%s", p.Advice)
	}
	return o
}

// Await waits until a disk or snapshot has been made, for whoever goes on with it.
func (s *Service) Await(ctx context.Context, operation string) error {
	tick := time.NewTicker(awaitEvery)
	defer tick.Stop()
	for {
		j, err := s.o.Jobs.Job(ctx, operation)
		if err != nil {
			return err
		}
		if o := describe(j, armid.ID{}); o.Status != "InProgress" {
			if o.Error != nil {
				return o.Error
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

const awaitEvery = 200 * time.Millisecond
