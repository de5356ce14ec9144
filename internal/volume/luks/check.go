package luks

import (
	"cmp"
	"fmt"
	"slices"
)

// check finds what can't be true of a header that both versions share: key slots that reach over each
// other, over the header or over the data, and data beyond the end of the disk. It also fills what
// follows from the rest. headerEnd is where the header itself ends.
func (h *Header) check(at place, headerEnd int64) error {
	keysEnd, size := h.Offset, at.data
	if at.detached {
		keysEnd = at.header
	} else if h.Offset < headerEnd {
		return &UnsupportedError{"segment", "the data begins inside the header: a detached header, or a damaged one"}
	}
	if err := h.checkSlots(headerEnd, keysEnd); err != nil {
		return err
	}
	if h.Offset > size {
		return &DamageError{"segment", fmt.Sprintf("the data begins at %d, beyond the disk's end at %d", h.Offset, size)}
	}
	if h.Size == 0 {
		h.Size = size - h.Offset
	}
	if h.Size > size-h.Offset {
		return &DamageError{"segment", fmt.Sprintf("%d bytes of data begin at %d, and the disk ends at %d", h.Size, h.Offset, size)}
	}
	if h.Size -= h.Size % int64(h.SectorSize); h.Size == 0 {
		return &DamageError{"segment", "there is no data behind the header"}
	}
	return nil
}

// area is where a key slot keeps its key, also when the slot is free or holds another key: cryptsetup
// refuses a header whose areas overlap, so a guest couldn't open it, whatever we make of it.
type area struct {
	slot         int
	offset, size int64
}

// checkSlots checks the key slots, whose areas lie between headerEnd and keysEnd.
func (h *Header) checkSlots(headerEnd, keysEnd int64) error {
	if err := checkAreas(h.areas, headerEnd, keysEnd); err != nil {
		return err
	}
	if len(h.slots) == 0 {
		return &DamageError{"key slots", "none is in use"}
	}
	slices.SortFunc(h.slots, func(a, b slot) int { return cmp.Compare(a.ID, b.ID) })
	for i := range h.slots {
		s := &h.slots[i]
		where := fmt.Sprintf("key slot %d", s.ID)
		switch {
		case s.keySize != h.KeyBits/8:
			return &DamageError{where, fmt.Sprintf("a volume key of %d bits, and the data needs %d", s.keySize*8, h.KeyBits)}
		case s.stripes < 1 || s.stripes > maxStripes:
			return &DamageError{where, fmt.Sprintf("%d stripes; 1 to %d are allowed", s.stripes, maxStripes)}
		case s.splitSize() > s.areaSize:
			return &DamageError{where, fmt.Sprintf("its key needs %d bytes, and its area has %d", s.splitSize(), s.areaSize)}
		}
		h.Keyslots = append(h.Keyslots, s.Keyslot)
	}
	return nil
}

func checkAreas(areas []area, headerEnd, keysEnd int64) error {
	slices.SortFunc(areas, func(a, b area) int { return cmp.Compare(a.offset, b.offset) })
	end, before := headerEnd, -1
	for _, a := range areas {
		where := fmt.Sprintf("key slot %d", a.slot)
		switch {
		case a.offset < end && before >= 0:
			return &DamageError{where, fmt.Sprintf("its area overlaps that of key slot %d", before)}
		case a.offset < end:
			return &DamageError{where, "its area overlaps the header"}
		case a.offset > keysEnd || a.size > keysEnd-a.offset:
			return &DamageError{where, "its area overlaps the data"}
		}
		end, before = a.offset+a.size, a.slot
	}
	return nil
}
