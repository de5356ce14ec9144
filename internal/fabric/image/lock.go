package image

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/sys/unix"

	"kluis/internal/fabric"
)

// QEMU guards images with locks on single bytes (block/file-posix.c): byte 100+n says "I use
// permission n", byte 200+n says "I don't share permission n". A writer uses permission 1, one who may
// resize uses 3. The locks belong to the open file, so they end with it.
const (
	qemuUses         = 100
	qemuDoesNotShare = 200
	qemuWrite        = 1
	qemuResize       = 3
)

// lock does what a reading QEMU does: first say that nobody may write or resize, then look whether
// somebody does. In this order two who come at the same time cannot both succeed.
func (f *file) lock(log *slog.Logger) error {
	fd := f.Fd()
	for _, permission := range []int64{qemuWrite, qemuResize} {
		l := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart, Start: qemuDoesNotShare + permission, Len: 1}
		if err := unix.FcntlFlock(fd, unix.F_OFD_SETLK, &l); err != nil {
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
				return faultf(fabric.InUse, "another process holds a lock on it")
			}
			// File systems without locks: QEMU goes on without, and so do we; verify finds what changed.
			log.Debug("image cannot be locked", "path", f.path, "error", err)
			return nil
		}
	}
	for _, permission := range []int64{qemuWrite, qemuResize} {
		l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: qemuUses + permission, Len: 1}
		if err := unix.FcntlFlock(fd, unix.F_OFD_GETLK, &l); err != nil {
			return fmt.Errorf("look for locks: %w", err)
		}
		if l.Type != unix.F_UNLCK {
			return faultf(fabric.InUse, "a running QEMU has it open for writing")
		}
	}
	return nil
}
