package volume

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"kluis/internal/volume/luks"
)

// What is scanned for detached headers: Azure Disk Encryption keeps the header of a Linux OS disk as a file
// on the boot partition. A disk is written by its guest, so what it can make us read is bounded, over all
// of its partitions: a few bytes of each block of this much.
const (
	maxScanned = 2 << 30
	maxHeaders = 16
)

// findDetached looks for the headers of partitions that hold nothing known but noise, on the partitions that
// hold a file system. A header in a file of several pieces isn't read whole: then no key opens it.
func findDetached(disk io.ReaderAt, volumes []Volume) error {
	var headless []*Volume
	for i := range volumes {
		random, err := noise(disk, volumes[i])
		if err != nil {
			return err
		}
		if random {
			headless = append(headless, &volumes[i])
		}
	}
	if len(headless) == 0 {
		return nil
	}
	headers, err := scanAll(disk, volumes)
	if err != nil {
		return err
	}
	// Nothing says which partition a header belongs to: the largest is the one that a system is on.
	slices.SortStableFunc(headless, func(a, b *Volume) int { return cmp.Compare(b.Size, a.Size) })
	for _, v := range headless {
		for i, place := range headers {
			h, err := luks.ReadDetachedHeader(io.NewSectionReader(disk, place.Offset, place.Size), place.Size, v.Size)
			if err != nil {
				continue // remains of a header, or one of a larger volume
			}
			v.Header, headers = &place, slices.Delete(headers, i, i+1)
			if err := v.fillLUKS(h, nil); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// scanAll returns the places of headers on all partitions that hold a file system.
func scanAll(disk io.ReaderAt, volumes []Volume) (all []Header, err error) {
	left := int64(maxScanned)
	for _, boot := range volumes {
		if boot.Kind == Unknown || boot.Encrypted || boot.Size > left {
			continue
		}
		left -= boot.Size
		if all, err = scan(disk, boot, all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// scan adds the places on one partition where a file begins as a header does.
func scan(disk io.ReaderAt, boot Volume, all []Header) ([]Header, error) {
	const magic = "LUKS\xba\xbe"
	b := make([]byte, len(magic))
	unit := fileUnit(boot.Size)
	for off := boot.Offset; off < boot.Offset+boot.Size-unit && len(all) < maxHeaders; off += unit {
		if _, err := disk.ReadAt(b, off); err != nil {
			return nil, fmt.Errorf("read at %d: %w", off, err)
		}
		if string(b) == magic {
			all = append(all, Header{Partition: boot.Partition, Offset: off, Size: boot.Offset + boot.Size - off})
		}
	}
	return all, nil
}

// fileUnit is where files begin: mke2fs gives file systems below 512 MiB blocks of 1 KiB.
func fileUnit(size int64) int64 {
	if size < 512<<20 {
		return 1 << 10
	}
	return 4 << 10
}

// noise tells whether a partition begins with what only encryption leaves: all bytes are there, none often.
func noise(disk io.ReaderAt, v Volume) (bool, error) {
	const sample, distinct, often = 4096, 250, 64
	if v.Kind != Unknown || v.Partition == 0 || v.Size < sample {
		return false, nil
	}
	b := make([]byte, sample)
	if _, err := io.ReadFull(io.NewSectionReader(disk, v.Offset, sample), b); err != nil {
		return false, fmt.Errorf("read partition %d: %w", v.Partition, err)
	}
	var counts [256]int
	different, most := 0, 0
	for _, c := range b {
		if counts[c]++; counts[c] == 1 {
			different++
		}
		most = max(most, counts[c])
	}
	return different >= distinct && most <= often, nil
}
