package libvirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	lv "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"kluis/internal/fabric"
)

// beginJob begins the job, and the checkpoint with it.
func (s *snapshot) beginJob(ctx context.Context, last token) error {
	backup, err := s.backupXML(last)
	if err != nil {
		return err
	}
	var checkpoint lv.OptString
	if s.next.Name != "" {
		text, err := checkpointXML(s.next.Name, s.domain, s.next.Disks)
		if err != nil {
			return err
		}
		checkpoint = lv.OptString{text}
	}
	var flags lv.DomainBackupBeginFlags
	if s.h.local {
		flags = lv.DomainBackupBeginReuseExternal // makeScratch has made them
	} else {
		s.h.making.Lock()
		defer s.h.making.Unlock()
	}
	err = s.h.do(ctx, callTimeout, func(c *lv.Libvirt) error { return c.DomainBackupBegin(s.d, backup, checkpoint, flags) })
	s.begun = err == nil || !isRefusal(err) // a call without an answer may have begun it
	return s.h.elsewhere(err)
}

// isRefusal reports whether libvirt itself said no.
func isRefusal(err error) bool {
	_, ok := lvError(err)
	return ok
}

func lvError(err error) (lv.Error, bool) { return errors.AsType[lv.Error](err) }

func (s *snapshot) backupXML(last token) (string, error) {
	wanted := map[string]*disk{}
	for _, d := range s.disks {
		wanted[d.target] = d
	}
	server, err := s.from.xml()
	if err != nil {
		return "", err
	}
	b := libvirtxml.DomainBackup{Pull: &libvirtxml.DomainBackupPull{Server: server, Disks: &libvirtxml.DomainBackupPullDisks{}}}
	for _, target := range targetsOf(s.domain) {
		x := libvirtxml.DomainBackupPullDisk{Name: target, Backup: "no"}
		if d := wanted[target]; d != nil {
			x.Backup, x.ExportName = "yes", target
			x.Scratch = &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: s.scratch(target)}}
			if d.incremental {
				x.BackupMode, x.Incremental, x.ExportBitmap = "incremental", last.Name, bitmapOf(target)
			} else {
				x.BackupMode = "full"
			}
		}
		b.Pull.Disks.Disks = append(b.Pull.Disks.Disks, x)
	}
	return b.Marshal()
}

// scratch is the scratch file of a disk. On a host elsewhere those of all machines lie side by side, and what a host that
// lost power has left of one is in nobody's way.
func (s *snapshot) scratch(target string) string {
	name := target + ".scratch"
	if !s.h.local {
		name = fmt.Sprintf("%s-%d-%s", s.uuid, s.at.UnixNano(), name)
	}
	return filepath.Join(s.live, name)
}

func bitmapOf(target string) string { return "kluis-" + target }

// alone makes sure that no other job works on the machine: libvirt would have us wait for half a minute. A daemon that was
// ended in the middle of DomainBackupBegin knows when it is back that there was a job, but not which: it cannot say anything of
// it, nor end it, and lets nobody begin another, nor start the machine once it was off (libvirt 9.0).
func (h *Host) alone(ctx context.Context, d lv.Domain) error {
	kind, err := ask(ctx, h, callTimeout, func(c *lv.Libvirt) (int32, error) {
		kind, _, _, _, _, _, _, _, _, _, _, _, err := c.DomainGetJobInfo(d)
		return kind, err
	})
	if isCode(err, lv.ErrInternalError) {
		return h.fault(d.Name, fabric.Held, fmt.Errorf("libvirt was ended while a job of it began: %w", err))
	}
	if err != nil {
		return fmt.Errorf("look for other jobs of machine %s: %w", d.Name, err)
	}
	if lv.DomainJobType(kind) != lv.DomainJobNone {
		return h.fault(d.Name, fabric.Busy, errors.New("another job works on it, a migration or a backup of another program"))
	}
	return nil
}

// endLeftOver ends what a process that died has left of its backup: a frozen guest and a job.
func (h *Host) endLeftOver(ctx context.Context, d lv.Domain) error {
	if err := h.thawMarked(ctx, d); err != nil {
		return err
	}
	if err := h.endJob(ctx, d); err != nil || !h.local {
		return err
	}
	return os.RemoveAll(h.liveOf(formatUUID(d.UUID)))
}

// endJob ends a backup job that was left behind, if it is ours.
func (h *Host) endJob(ctx context.Context, d lv.Domain) error {
	text, err := h.job(ctx, d)
	if err != nil || !h.isOurs(text) {
		return err
	}
	h.o.Log.Warn("a backup job was left behind; it is ended", "machine", d.Name)
	if err := h.abort(ctx, d); err != nil {
		return err
	}
	return h.resumeStopped(ctx, d)
}

// job describes the backup job of a machine; empty if it has none.
func (h *Host) job(ctx context.Context, d lv.Domain) (string, error) {
	text, err := ask(ctx, h, callTimeout, func(c *lv.Libvirt) (string, error) { return c.DomainBackupGetXMLDesc(d, 0) })
	if isCode(err, lv.ErrNoDomainBackup) || isCode(err, lv.ErrOperationInvalid) || lv.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look for a backup job of machine %s: %w", d.Name, err)
	}
	return text, nil
}

// isOurs reports whether a job is ours: it has its files in our folder.
func (h *Host) isOurs(job string) bool { return strings.Contains(job, h.o.LiveDir+"/") }

// abort ends the backup job of a machine, which is how one in pull mode ends. libvirt only asks QEMU to end it, disk by
// disk: until all have ended no other can begin. A job that is gone has ended by itself.
func (h *Host) abort(ctx context.Context, d lv.Domain) error {
	err := h.do(ctx, callTimeout, func(c *lv.Libvirt) error { return c.DomainAbortJob(d) })
	if err != nil && !lv.IsNotFound(err) && !isCode(err, lv.ErrOperationInvalid) {
		return fmt.Errorf("end backup job of machine %s: %w", d.Name, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errors.New("it does not end"))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := h.job(ctx, d)
		if err != nil || !h.isOurs(text) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("end backup job of machine %s: %w", d.Name, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
