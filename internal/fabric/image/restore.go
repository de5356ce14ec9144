package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"kluis/internal/fabric"
)

// NewDisk is a raw image that is being written. It has no name of its own until Commit; a writer that
// dies leaves a file with a leading dot, which the next attempt at the same disk takes over.
// WriteAt may be called from many goroutines.
type NewDisk struct {
	file      *os.File
	root      *os.Root // the folder that holds it
	temporary string
	name      string
	path      string
	noHurry   bool
}

// NewDisk begins a disk of size bytes, name, in the folder dir below the one for restored disks. All of
// its size must be free. Errors are *fabric.ImageError, of kind NoSpace, Exists, InUse and NotAllowed
// where they are that.
func (f *Fabric) NewDisk(ctx context.Context, dir, name string, size int64) (*NewDisk, error) {
	return f.NewSparseDisk(ctx, dir, name, size, size)
}

// NewSparseDisk is NewDisk for a disk of which only data bytes will be written.
func (f *Fabric) NewSparseDisk(ctx context.Context, dir, name string, size, data int64) (*NewDisk, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path, rel, err := f.restorePath(dir, name)
	if err == nil && size < 0 {
		err = faultf(fabric.Unreadable, "a disk of %d bytes", size)
	}
	if err != nil {
		return nil, named(path, err)
	}
	d, err := f.begin(rel, path)
	if err != nil {
		return nil, named(path, err)
	}
	if err := d.reserve(size, data); err != nil {
		return nil, errors.Join(named(path, err), d.Abort())
	}
	return d, nil
}

// restorePath returns where a disk will be, and its folder relative to the one for restored disks.
func (f *Fabric) restorePath(dir, name string) (path, rel string, err error) {
	shown := filepath.Join(dir, name)
	if f.restoreDir == "" {
		return shown, "", faultf(fabric.NotAllowed, "no folder for restored disks is configured")
	}
	if name == "" || name != filepath.Base(name) || !filepath.IsLocal(name) || strings.HasPrefix(name, ".") || strings.ContainsRune(name, 0) {
		return shown, "", faultf(fabric.NotAllowed, "%q is no name for a file", name)
	}
	rel = filepath.Clean(dir)
	if filepath.IsAbs(rel) {
		if rel, err = filepath.Rel(f.restoreDir, rel); err != nil {
			return shown, "", faultf(fabric.NotAllowed, "the folder leads elsewhere")
		}
	}
	if !filepath.IsLocal(rel) || strings.ContainsRune(rel, 0) {
		return shown, "", faultf(fabric.NotAllowed, "the folder leads elsewhere")
	}
	return filepath.Join(f.restoreDir, rel, name), rel, nil
}

// begin opens the temporary file and locks it, so that two writers of one disk don't meet.
func (f *Fabric) begin(rel, path string) (*NewDisk, error) {
	top, err := os.OpenRoot(f.restoreDir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = top.Close() }()
	if _, err := top.Stat(rel); errors.Is(err, fs.ErrNotExist) {
		// QEMU, another user, passes through to the disk of a machine that is made of it. The disks themselves are ours alone.
		if err := errors.Join(top.MkdirAll(rel, 0o711), top.Chmod(rel, 0o711)); err != nil {
			return nil, err
		}
	}
	root, err := top.OpenRoot(rel)
	if err != nil {
		return nil, err
	}
	return beginIn(root, path)
}

// beginIn begins a disk in a folder, which belongs to the disk from then on.
func beginIn(root *os.Root, path string) (*NewDisk, error) {
	name := filepath.Base(path)
	d := &NewDisk{root: root, name: name, temporary: "." + name + ".restoring", path: path}
	_, err := root.Lstat(name)
	if !errors.Is(err, fs.ErrNotExist) {
		_ = root.Close()
		if err == nil {
			err = fs.ErrExist
		}
		return nil, err
	}
	if d.file, err = openLocked(root, d.temporary); err != nil {
		_ = root.Close()
		return nil, err
	}
	return d, nil
}

func openLocked(root *os.Root, name string) (*os.File, error) {
	for {
		file, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = file.Close()
			return nil, faultf(fabric.InUse, "it is being restored already")
		}
		// Between opening and locking, the one who held the lock may have renamed or removed the file.
		mine, err := file.Stat()
		if err == nil {
			var there fs.FileInfo
			if there, err = root.Lstat(name); err == nil && os.SameFile(mine, there) {
				return file, nil
			}
		}
		_ = file.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// reserve empties the file, looks for room and gives it its length.
func (d *NewDisk) reserve(size, data int64) error {
	if err := d.file.Truncate(0); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(d.file.Fd()), &st); err != nil {
		return fmt.Errorf("look for free space: %w", err)
	}
	if free := st.Bavail * uint64(st.Bsize); data > 0 && uint64(data) > free {
		return faultf(fabric.NoSpace, "it needs %d bytes and %d are free", data, free)
	}
	return d.Truncate(size)
}

// Path is where the disk will be after Commit.
func (d *NewDisk) Path() string { return d.path }

// InNoHurry leaves it to the system when what is written goes to the disk. It is for those who will
// CommitSoon, and is called before anything is written.
func (d *NewDisk) InNoHurry() { d.noHurry = true }

// WriteAt writes a part of the disk. What is never written is a hole and reads as zeros. What was written
// goes to the disk at once, while the next part comes, so that Commit has little left to wait for.
func (d *NewDisk) WriteAt(p []byte, off int64) (int, error) {
	n, err := d.file.WriteAt(p, off)
	if n > 0 && !d.noHurry {
		_ = unix.SyncFileRange(int(d.file.Fd()), off, int64(n), unix.SYNC_FILE_RANGE_WRITE) // Sync decides
	}
	return n, d.named(err)
}

// ReadAt reads back what was written, to check it.
func (d *NewDisk) ReadAt(p []byte, off int64) (int, error) { return d.file.ReadAt(p, off) }

// Truncate sets the disk's size.
func (d *NewDisk) Truncate(size int64) error { return d.named(d.file.Truncate(size)) }

// Sync makes durable what was written.
func (d *NewDisk) Sync() error { return d.named(d.file.Sync()) }

func (d *NewDisk) named(err error) error {
	if err == nil {
		return nil
	}
	return named(d.path, err)
}

// Commit makes the disk durable and gives it its name. It fails with Exists if the name was taken
// meanwhile. The disk is closed afterwards, also after an error.
func (d *NewDisk) Commit() error {
	if d.file == nil {
		return d.named(fs.ErrClosed)
	}
	err := d.file.Sync()
	if err == nil {
		err = d.link()
	}
	if err == nil {
		err = d.syncFolder()
	}
	return errors.Join(d.named(err), d.Abort())
}

// CommitSoon is Commit without waiting for the disk: after a power cut the image may be there and not be
// whole.
func (d *NewDisk) CommitSoon() error {
	if d.file == nil {
		return d.named(fs.ErrClosed)
	}
	return errors.Join(d.named(d.link()), d.Abort())
}

// link gives the disk its name. Unlike a rename it replaces nothing.
func (d *NewDisk) link() error { return d.root.Link(d.temporary, d.name) }

func (d *NewDisk) syncFolder() error {
	folder, err := d.root.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = folder.Close() }()
	return folder.Sync()
}

// Close ends a disk that was not committed, as Abort does. After Commit or Abort it does nothing.
func (d *NewDisk) Close() error { return d.Abort() }

// Abort removes what was written, unless it was committed.
func (d *NewDisk) Abort() error {
	if d.file == nil {
		return nil
	}
	err := d.root.Remove(d.temporary)
	err = errors.Join(err, d.file.Close(), d.root.Close())
	d.file = nil
	return d.named(err)
}

// Keep ends the writing and leaves what was written where the next attempt finds it.
func (d *NewDisk) Keep() error {
	if d.file == nil {
		return nil
	}
	err := errors.Join(d.file.Close(), d.root.Close())
	d.file = nil
	return d.named(err)
}

// Remove deletes a restored disk, and its folder if that is empty then. One that is gone already is
// fine. Nothing outside the folder for restored disks is ever removed.
func (f *Fabric) Remove(ctx context.Context, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	rel, ok := "", false
	if f.restoreDir != "" && filepath.IsAbs(path) {
		rel, ok = below(f.restoreDir, filepath.Clean(path))
	}
	if !ok {
		return named(path, faultf(fabric.NotAllowed, "only restored disks are removed"))
	}
	root, err := os.OpenRoot(f.restoreDir)
	if err != nil {
		return named(path, err)
	}
	defer func() { _ = root.Close() }()
	info, err := root.Lstat(rel)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return named(path, err)
	case !info.Mode().IsRegular():
		return named(path, faultf(fabric.NotRegular, "it is of type %s", info.Mode().Type()))
	}
	if err := root.Remove(rel); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return named(path, err)
	}
	if dir := filepath.Dir(rel); dir != "." {
		_ = root.Remove(dir) // fails while there is something in it, as it should
	}
	return nil
}
