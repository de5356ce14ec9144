package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"kluis/internal/keyservice"
	"kluis/internal/keyvault"
	"kluis/internal/problem"
	"kluis/internal/proof"
	"kluis/internal/secret"
)

// keyMaterial is what a backup knows of the key of one disk.
type keyMaterial struct {
	bek     secret.Bytes // empty if it could not be unwrapped; wiped when the run is over
	err     error        // why not
	machine string       // the VM that the secret says it is of
}

// prove opens the backed-up bytes with the backed-up keys. The verdict is written on the point; it never
// fails the backup.
func (b *backupRun) prove(ctx context.Context) (err error) {
	var disks []proof.Disk
	for _, d := range b.point.Disks {
		written, err := b.writer.Disk(d.Name)
		if err != nil {
			return fmt.Errorf("read back disk %s: %w", d.Name, err)
		}
		disks = append(disks, proof.Disk{Name: d.Name, ReaderAt: written, Size: d.Size, ExpectEncrypted: b.point.hasKeys(d.Name), BEK: b.keys[d.Name].bek,
			NoBEK: whyNoBEK(b.keys[d.Name].err), Untried: untried(b.keys[d.Name].err), From: b.point.unwrappedBy(d.Name)})
	}
	if b.point.Verdict, err = proof.Prove(ctx, disks, b.s.o.Now); err != nil {
		return err
	}
	b.explain()
	b.r.Detail("Proof", string(b.point.Verdict.State))
	for _, w := range warningsOf(b.point) {
		b.r.Warn(w)
	}
	return nil
}

// explain says of a disk whose key opens nothing what only the key vault knows: whose key it is.
func (b *backupRun) explain() {
	for _, v := range b.point.Verdict.Disks {
		machine := b.keys[v.Name].machine
		if v.Kind == proof.WrongKey && machine != "" && !strings.EqualFold(machine, b.vm.ID.Name()) {
			b.point.Verdict.Explain(v.Name, "the secret says that it is of the virtual machine "+machine)
		}
	}
}

// whyNoBEK tells a person why the secret in a recovery point can't be unwrapped by the key in it; nil if it can.
// The errors name ids and tags, and nothing secret.
func whyNoBEK(err error) error {
	if err == nil {
		return nil
	}
	if keyservice.KindOf(err) != 0 || problem.Of(err) != nil {
		return err
	}
	for _, known := range []error{keyvault.ErrSecretVersionMissing, keyvault.ErrKeyVersionMissing, keyvault.ErrNotWrapped, keyvault.ErrUnwrap} {
		if errors.Is(err, known) {
			return err
		}
	}
	return errors.New("the backups of secret and key in it do not open")
}

// warningsOf is what should be said of a point that was taken. A disk that drifts fails the proof for that
// reason; it is told once.
func warningsOf(p Point) (all []*problem.Error) {
	for _, d := range p.Disks {
		if d.Unreported {
			all = append(all, unreportedChanges(p, d))
		}
	}
	told := map[string]bool{}
	for _, d := range driftOf(p) {
		all = append(all, encryptionDrift(p, d))
		told[d.Disk] = true
	}
	if p.Verdict.State == proof.Failed && len(p.Verdict.Disks) == 0 {
		return append(all, notProved(p.Verdict.Reason, p.Verdict.Advice))
	}
	for _, v := range p.Verdict.Disks {
		if v.State == proof.Failed && !told[v.Name] {
			all = append(all, notProved("disk "+v.Name+": "+v.Reason, v.Advice))
		}
	}
	return all
}
