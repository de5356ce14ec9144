package image

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"kluis/internal/fabric"
)

// OpenDisk is an image, or a block device, that a tool has opened by itself. It may be read from many
// goroutines.
type OpenDisk struct {
	disk
	format string
}

// OpenFile opens an image for reading, wherever it is: it is meant for commands that a person runs with
// his own rights, and it asks for no allowed folder. All else is as in a snapshot: locks, formats, and
// no files but this one. An empty format means that it is recognised. Errors are *fabric.ImageError.
func OpenFile(ctx context.Context, path, format string) (*OpenDisk, error) {
	file, err := openLocal(path, os.O_RDONLY)
	if err != nil {
		return nil, named(path, err)
	}
	d, err := openDisk(ctx, file, format)
	if err != nil {
		_ = file.Close()
		return nil, named(path, err)
	}
	return d, nil
}

func openDisk(ctx context.Context, file *file, format string) (*OpenDisk, error) {
	if err := file.lock(slog.New(slog.DiscardHandler)); err != nil {
		return nil, err
	}
	h, err := identify(file, file.size)
	if format != "" {
		h, err = identifyAs(file, file.size, format, 0)
	}
	if err != nil {
		return nil, err
	}
	d, err := localQEMU.readDisk(ctx, file, h, filepath.Base(file.path))
	if err != nil {
		return nil, err
	}
	return &OpenDisk{d, h.format}, nil
}

// Format is the image's format, as it was given or recognised.
func (d *OpenDisk) Format() string { return d.format }

// Close ends the reading.
func (d *OpenDisk) Close() error { return d.close(context.Background()) }

// openLocal opens a regular file or a block device. A device that is mounted is refused for writing.
func openLocal(path string, flags int) (*file, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	device := info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0
	if !device && !info.Mode().IsRegular() {
		return nil, faultf(fabric.NotRegular, "it is of type %s", info.Mode().Type())
	}
	if device && flags != os.O_RDONLY {
		flags |= unix.O_EXCL
	}
	opened, err := os.OpenFile(path, flags|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.EBUSY) {
		return nil, faultf(fabric.InUse, "the device is mounted or used otherwise")
	} else if err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		_ = opened.Close()
		return nil, err
	}
	return look(opened, real)
}
