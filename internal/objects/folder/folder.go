// Package folder keeps objects as files under one local folder.
//
// An object "a/b" is the file a/b. It is written to a file without a meaning under .tmp, synced, given
// its name by link(2), which unlike rename(2) never replaces a file, and the folders that changed are
// synced. So an object is there whole or not at all, also after a power cut, and of two writers of one
// name exactly one wins. A writer that dies leaves at most a file under .tmp: every writer holds a
// file lock on its own, and Open removes those that nobody holds.
//
// All access goes through os.Root: no name, and no symbolic link planted in the folder, leads outside.
package folder

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"

	"golang.org/x/sys/unix"

	"kluis/internal/objects"
)

const tempDir = ".tmp"

// Folder is a Bucket in a local folder.
type Folder struct {
	root    *os.Root
	durable sync.Map // the folders that are known to be durable, by name
}

// Open opens the folder dir, which is made (with mode 0700) if it does not exist.
func Open(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	f := &Folder{root: root}
	if err := f.removeStale(); err != nil {
		_ = root.Close()
		return nil, err
	}
	return f, nil
}

// Close releases the folder.
func (f *Folder) Close() error { return f.root.Close() }

// Put stores an object; see objects.Bucket.
func (f *Folder) Put(ctx context.Context, name string, size int64, r io.Reader) (err error) {
	if err := objects.CheckName(name); err != nil {
		return err
	}
	if _, err := f.root.Lstat(name); err == nil {
		return fmt.Errorf("put %s: %w", name, objects.ErrExists)
	}
	temp, err := f.createTemp()
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	defer func() {
		err = errors.Join(err, f.discard(temp))
	}()
	if err := fill(ctx, temp, size, r); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	dir := path.Dir(name)
	if err := f.makeDir(dir); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	if err := f.root.Link(tempName(temp), name); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("put %s: %w", name, objects.ErrExists)
	} else if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return f.syncDir(dir)
}

// Get reads a range of an object; see objects.Bucket.
func (f *Folder) Get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if err := objects.CheckName(name); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	file, err := f.root.Open(name)
	if isNotExist(err) {
		return nil, fmt.Errorf("get %s: %w", name, objects.ErrNotExist)
	} else if err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	info, err := file.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = objects.ErrNotExist
	case off < 0 || off > info.Size() || n > info.Size()-off:
		err = objects.ErrTruncated
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	if n < 0 {
		n = info.Size() - off
	}
	return &section{io.NewSectionReader(file, off, n), file, n}, nil
}

// section is a range of a file. A file that shrinks under the reader gives ErrTruncated.
type section struct {
	r    io.Reader
	file *os.File
	left int64
}

func (s *section) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.left -= int64(n)
	if err == io.EOF && s.left > 0 {
		err = objects.ErrTruncated
	}
	return n, err
}

func (s *section) Close() error { return s.file.Close() }

// Delete removes an object; see objects.Bucket.
func (f *Folder) Delete(ctx context.Context, name string) error {
	if err := objects.CheckName(name); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if info, err := f.root.Lstat(name); err == nil && info.IsDir() {
		return nil
	}
	if err := f.root.Remove(name); isNotExist(err) {
		return nil
	} else if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return f.syncDir(path.Dir(name))
}

// isNotExist also covers a name below an object, which is a file and no folder.
func isNotExist(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

func tempName(temp *os.File) string { return path.Join(tempDir, path.Base(temp.Name())) }

// createTemp makes a new file under .tmp and locks it.
func (f *Folder) createTemp() (*os.File, error) {
	if err := f.makeDir(tempDir); err != nil {
		return nil, err
	}
	for {
		temp, err := f.root.OpenFile(path.Join(tempDir, rand.Text()), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(temp.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = temp.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				continue // somebody's removeStale was faster and is about to remove it
			}
			return nil, fmt.Errorf("lock %s: %w", temp.Name(), err)
		}
		// Between creation and lock somebody's removeStale may have removed it.
		var st unix.Stat_t
		if err := unix.Fstat(int(temp.Fd()), &st); err == nil && st.Nlink > 0 {
			return temp, nil
		}
		_ = temp.Close()
	}
}

// discard removes the temporary name; the object's own name, if it was given, stays.
func (f *Folder) discard(temp *os.File) error {
	err := f.root.Remove(tempName(temp))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, temp.Close())
}

// removeStale removes what writers that died have left under .tmp.
func (f *Folder) removeStale() error {
	entries, err := fs.ReadDir(f.root.FS(), tempDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("clean up %s: %w", tempDir, err)
	}
	for _, e := range entries {
		name := path.Join(tempDir, e.Name())
		file, err := f.root.Open(name)
		if err != nil {
			continue
		}
		if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			err = f.root.Remove(name)
		}
		_ = file.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("clean up: %w", err)
		}
	}
	return nil
}

// makeDir makes dir and what is missing above it, durably. A folder that is there already may have been
// made a moment ago by a writer that has yet to sync it, so each is synced once in the life of f.
func (f *Folder) makeDir(dir string) error {
	if _, ok := f.durable.Load(dir); ok || dir == "." {
		return nil
	}
	parent := path.Dir(dir)
	if err := f.makeDir(parent); err != nil {
		return err
	}
	if err := f.root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := f.syncDir(parent); err != nil {
		return err
	}
	f.durable.Store(dir, true)
	return nil
}

func (f *Folder) syncDir(dir string) error {
	d, err := f.root.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := d.Sync(); err != nil {
		_ = d.Close()
		return fmt.Errorf("sync folder: %w", err)
	}
	return d.Close()
}

var _ objects.Bucket = (*Folder)(nil)
