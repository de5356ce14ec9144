// Package sector reads plain bytes from a volume that can be decrypted only in whole sectors: what LUKS and
// BitLocker have in common.
package sector

import (
	"errors"
	"io"
)

// unit bounds what is read and decrypted in one go, and so the time between two looks at an error.
const unit = 64 << 10

// ReadAt fills p from off of a volume of size bytes, with io.ReaderAt's manners. read fills its buffer with
// whole plain sectors of sectorSize bytes from an offset that is a multiple of that size; size is one too.
func ReadAt(p []byte, off, size int64, sectorSize int, read func(p []byte, off int64) error) (int, error) {
	if off < 0 {
		return 0, errors.New("read a volume: negative offset")
	}
	if off >= size {
		return 0, io.EOF
	}
	var end error
	if left := size - off; int64(len(p)) > left {
		p, end = p[:left], io.EOF
	}
	sector := int64(sectorSize)
	var buf []byte
	n := 0
	for n < len(p) {
		at := off + int64(n)
		skip := at % sector
		if whole := int64(len(p)-n) / sector * sector; skip == 0 && whole > 0 {
			part := p[n : int64(n)+min(whole, unit)]
			if err := read(part, at); err != nil {
				return n, err
			}
			n += len(part)
			continue
		}
		if buf == nil {
			buf = make([]byte, sector)
		}
		if err := read(buf, at-skip); err != nil {
			return n, err
		}
		n += copy(p[n:], buf[skip:])
	}
	return n, end
}

// ReadFull reads exactly len(p) bytes of r at off.
func ReadFull(r io.ReaderAt, p []byte, off int64) error {
	_, err := io.ReadFull(io.NewSectionReader(r, off, int64(len(p))), p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
