package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"kluis/internal/fabric"
)

// file is an image file that is open for reading, and what it looked like then.
type file struct {
	*os.File
	path      string // without symbolic links
	info      fs.FileInfo
	size      int64
	allocated int64
	modified  time.Time
}

// open follows a path into an allowed folder and opens the regular file there.
func (f *Fabric) open(path string) (*file, error) {
	real, folder, err := f.resolve(path)
	if err != nil {
		return nil, &fabric.ImageError{Path: path, Kind: kindOf(err), Err: err}
	}
	opened, err := openRegular(folder, real)
	if err != nil {
		return nil, &fabric.ImageError{Path: path, Kind: kindOf(err), Err: err}
	}
	return look(opened, real)
}

// look notes what an open file looks like.
func look(opened *os.File, real string) (*file, error) {
	info, err := opened.Stat()
	var size int64
	if err == nil {
		size, err = length(opened, info)
	}
	if err != nil {
		_ = opened.Close()
		return nil, &fabric.ImageError{Path: real, Kind: fabric.Unreadable, Err: err}
	}
	file := &file{File: opened, path: real, info: info, size: size, modified: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		file.allocated = st.Blocks * 512
	}
	return file, nil
}

// length returns the size of a file or a block device.
func length(opened *os.File, info fs.FileInfo) (int64, error) {
	if info.Mode()&fs.ModeDevice == 0 {
		return info.Size(), nil
	}
	return opened.Seek(0, io.SeekEnd)
}

// resolve returns where a path leads and the allowed folder that holds it.
func (f *Fabric) resolve(path string) (real, folder string, err error) {
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return "", "", faultf(fabric.NotAllowed, "the path is not absolute")
	}
	real, err = filepath.EvalSymlinks(path)
	if err != nil {
		// Whether something exists outside the allowed folders is nobody's business.
		if f.folderOf(filepath.Clean(path)) == "" {
			return "", "", faultf(fabric.NotAllowed, "the path leads elsewhere")
		}
		return "", "", err
	}
	if folder = f.folderOf(real); folder == "" {
		return "", "", faultf(fabric.NotAllowed, "the path leads elsewhere")
	}
	return real, folder, nil
}

// folderOf returns the allowed folder in which an absolute, clean path lies, or "".
func (f *Fabric) folderOf(path string) string {
	for _, folder := range f.allow {
		if _, ok := below(folder, path); ok {
			return folder
		}
	}
	return ""
}

// below returns path relative to folder, if it lies strictly inside.
func below(folder, path string) (string, bool) {
	rel, err := filepath.Rel(folder, path)
	return rel, err == nil && rel != "." && filepath.IsLocal(rel)
}

// openRegular opens a file of a folder. The path has no symbolic links; should one appear now, os.Root
// refuses to leave the folder through it. Anything but a regular file is refused before it is opened,
// as opening a device can have effects, and without waiting for a pipe's writer.
func openRegular(folder, path string) (*os.File, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	rel, _ := below(folder, path)
	info, err := root.Lstat(rel)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, faultf(fabric.NotRegular, "it is of type %s", info.Mode().Type())
	}
	opened, err := root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	now, err := opened.Stat()
	if err == nil && !os.SameFile(info, now) {
		err = faultf(fabric.Changed, "it was replaced while it was opened")
	}
	if err != nil {
		_ = opened.Close()
		return nil, err
	}
	return opened, nil
}

// verify checks that the file is the one that was opened, and as long and as old as then.
func (f *file) verify(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	now, err := f.Stat()
	if err != nil {
		return &fabric.ImageError{Path: f.path, Kind: fabric.Unreadable, Err: err}
	}
	size, err := length(f.File, now)
	if err != nil {
		return &fabric.ImageError{Path: f.path, Kind: fabric.Unreadable, Err: err}
	}
	named, err := os.Lstat(f.path)
	switch {
	case size < f.size:
		err = faultf(fabric.Truncated, "it has %d bytes and had %d", size, f.size)
	case size != f.size || !now.ModTime().Equal(f.modified):
		err = faultf(fabric.Changed, "size or time of modification is not what it was")
	case err != nil:
	case !os.SameFile(named, f.info):
		err = faultf(fabric.Changed, "another file has its name")
	}
	if err != nil {
		return &fabric.ImageError{Path: f.path, Kind: kindOf(err), Err: err}
	}
	return nil
}

// fault is an error whose kind is known and whose image is not yet.
type fault struct {
	kind fabric.Kind
	text string
}

func (e *fault) Error() string { return e.text }

func faultf(kind fabric.Kind, format string, args ...any) error {
	return &fault{kind, fmt.Sprintf(format, args...)}
}

// kindOf classifies an error of opening or reading an image.
func kindOf(err error) fabric.Kind {
	if f, ok := errors.AsType[*fault](err); ok {
		return f.kind
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return fabric.Missing
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fabric.NoSpace
	case errors.Is(err, fs.ErrExist):
		return fabric.Exists
	}
	return fabric.Unreadable
}

// named turns an error about an image into an *fabric.ImageError; the end of a context stays what it is.
func named(path string, err error) error {
	if _, ok := errors.AsType[*fabric.ImageError](err); ok || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &fabric.ImageError{Path: path, Kind: kindOf(err), Err: err}
}
