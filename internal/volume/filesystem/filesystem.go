// Package filesystem recognises what a volume holds by its superblock, without mounting or trusting it.
//
// Recognised means more than a magic number: where the format has a checksum it must agree, and where it
// has none the numbers must fit each other. A superblock that has the magic and fails this is reported as
// damaged, which is what a proof wants to know.
package filesystem

import (
	"errors"
	"fmt"
	"io"
)

// ErrNotRecognised says that no known format begins here.
var ErrNotRecognised = errors.New("no file system is recognised")

// DamageError says that a format is recognised and that its superblock can't be right.
type DamageError struct{ Type, What string }

func (e *DamageError) Error() string {
	return "the " + e.Type + " superblock is damaged: " + e.What
}

// FileSystem is what the superblock says.
type FileSystem struct {
	Type  string `json:"type"` // ext2, ext3, ext4, xfs, btrfs, swap, lvm, vfat, ntfs
	UUID  string `json:"uuid,omitempty"`
	Label string `json:"label,omitempty"`
	Size  int64  `json:"size,omitempty"` // 0: the format doesn't say
}

// probe looks for one format. It returns ErrNotRecognised when its magic isn't there.
type probe func(r *reader) (FileSystem, error)

// The order matters where one format keeps another's traces: boot sectors come last, since the formats
// before them leave the first sector alone.
var probes = []probe{probeExt, probeXFS, probeBtrfs, probeLVM, probeSwap, probeNTFS, probeFAT}

// Recognise looks at the volume r of size bytes. It reads a few sectors. The error is ErrNotRecognised,
// a *DamageError, or r's own.
func Recognise(r io.ReaderAt, size int64) (FileSystem, error) {
	in := &reader{r: r, size: size}
	var damage error
	for _, p := range probes {
		fs, err := p(in)
		if in.err != nil {
			return FileSystem{}, in.err
		}
		if err == nil {
			err = fits(fs, size)
		}
		if err == nil {
			return fs, nil
		}
		// A damaged superblock of one format may be a chance magic number in another's data.
		if damage == nil && !errors.Is(err, ErrNotRecognised) {
			damage = err
		}
	}
	if damage != nil {
		return FileSystem{}, damage
	}
	return FileSystem{}, ErrNotRecognised
}

func fits(fs FileSystem, size int64) error {
	if fs.Size > size {
		return &DamageError{fs.Type, fmt.Sprintf("it says %d bytes, and the volume has %d", fs.Size, size)}
	}
	return nil
}

// reader reads small pieces and keeps the first error; what lies beyond the end doesn't exist.
type reader struct {
	r    io.ReaderAt
	size int64
	err  error
}

// at returns n bytes from off, or nil.
func (r *reader) at(off int64, n int) []byte {
	if r.err != nil || off > r.size-int64(n) {
		return nil
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(r.r, off, int64(n)), b); err != nil {
		r.err = fmt.Errorf("read the superblock at %d: %w", off, err)
		return nil
	}
	return b
}
