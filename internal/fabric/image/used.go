package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"kluis/internal/fabric"
)

// Used is a raw image or a block device that holds something already and gets the bytes of a disk in
// its place. It may be read and written from many goroutines.
type Used struct{ usedFile }

// OpenUsed opens an image file or a block device to restore a disk in its place. A device must not be
// mounted; a file must not be in use by QEMU. Errors are *fabric.ImageError.
func OpenUsed(path string) (*Used, error) {
	file, err := openLocal(path, os.O_RDWR)
	if err != nil {
		return nil, named(path, err)
	}
	device := file.info.Mode()&fs.ModeDevice != 0
	if err := file.lockForWriting(); err != nil {
		_ = file.Close()
		return nil, named(path, err)
	}
	return &Used{usedFile{file.File, file.path, device}}, nil
}

// Close ends the writing.
func (u *Used) Close() error { return u.file.Close() }

// usedFile is a file that may hold anything.
type usedFile struct {
	file   *os.File
	path   string
	device bool
}

// Size is how many bytes there are now.
func (u *usedFile) Size() (int64, error) {
	info, err := u.file.Stat()
	if err != nil {
		return 0, named(u.path, err)
	}
	size, err := length(u.file, info)
	if err != nil {
		return 0, named(u.path, err)
	}
	return size, nil
}

// ReadAt reads what is there.
func (u *usedFile) ReadAt(p []byte, off int64) (int, error) { return u.file.ReadAt(p, off) }

// WriteAt overwrites.
func (u *usedFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := u.file.WriteAt(p, off)
	if err != nil {
		err = named(u.path, err)
	}
	return n, err
}

// Truncate gives a file its size. A device keeps its own and must be large enough; what it has beyond
// is left as it is.
func (u *usedFile) Truncate(size int64) error {
	var err error
	if u.device {
		var has int64
		if has, err = u.Size(); err == nil && has < size {
			err = faultf(fabric.NoSpace, "the device has %d bytes and the disk %d", has, size)
		}
	} else {
		err = u.file.Truncate(size)
	}
	if err != nil {
		return named(u.path, err)
	}
	return nil
}

// Sync makes durable what was written.
func (u *usedFile) Sync() error {
	if err := u.file.Sync(); err != nil {
		return named(u.path, err)
	}
	return nil
}

// WriteZeroes makes a range read as zeros, and gives its space back where that is possible: a hole in a
// file, a discard on a device that promises zeros afterwards. Where nothing of the kind works it writes.
func (u *usedFile) WriteZeroes(off, n int64) error {
	for _, mode := range []uint32{unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE} {
		if unix.Fallocate(int(u.file.Fd()), mode|unix.FALLOC_FL_KEEP_SIZE, off, n) == nil {
			return nil
		}
	}
	for end := off + n; off < end; {
		part := min(end-off, int64(len(zeros)))
		if _, err := u.WriteAt(zeros[:part], off); err != nil {
			return fmt.Errorf("zero %d bytes at %d: %w", part, off, err)
		}
		off += part
	}
	return nil
}

var zeros [1 << 20]byte

// NextData returns the first range at or after off that may hold anything but zeros; n is 0 if there is none.
func (u *usedFile) NextData(off int64) (start, n int64, err error) {
	size, err := u.Size()
	if err == nil && off < size {
		var e fabric.Extent
		e, err = (&rawDisk{file: &file{File: u.file, path: u.path, size: size}}).next(off)
		start, n = e.Offset, e.Length
	}
	if err != nil {
		return 0, 0, named(u.path, err)
	}
	return start, n, nil
}

// lockForWriting does what a writing QEMU does, for a file that nobody else may use meanwhile.
func (f *file) lockForWriting() error {
	for _, at := range []int64{qemuUses + qemuWrite, qemuUses + qemuResize, qemuDoesNotShare, qemuDoesNotShare + qemuWrite, qemuDoesNotShare + qemuResize} {
		l := unix.Flock_t{Type: unix.F_RDLCK, Start: at, Len: 1}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l); err != nil {
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
				return faultf(fabric.InUse, "another process holds a lock on it")
			}
			return nil // a file system without locks
		}
	}
	for _, at := range []int64{qemuDoesNotShare + qemuWrite, qemuDoesNotShare + qemuResize, qemuUses, qemuUses + qemuWrite, qemuUses + qemuResize} {
		l := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
			return fmt.Errorf("look for locks: %w", err)
		}
		if l.Type != unix.F_UNLCK {
			return faultf(fabric.InUse, "another process has it open")
		}
	}
	return nil
}
