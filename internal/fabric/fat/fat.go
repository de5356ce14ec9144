// Package fat writes small FAT volumes: a label and a few files, all in memory. That is how a guest is handed the keys
// of its disks, so nothing here touches a disk, and whoever asked for a volume wipes it.
//
// A volume has 1 MiB: a boot sector, two FATs of 12 bits an entry, a root folder and clusters of one sector. Every
// file has a short name of no meaning and its own name in entries of a long one, because no key's file fits 8.3.
//
// Source: Microsoft FAT Specification (August 2005), sections 3 (boot sector and BPB), 4 (FAT), 6 (root directory)
// and 7 (long file names).
package fat

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

// File is a file of a volume.
type File struct {
	Name    string
	Content []byte
}

// The geometry of a volume, in sectors unless it says otherwise.
const (
	sectorSize  = 512
	sectors     = 2048
	fatSectors  = 6
	rootEntries = 64
	entrySize   = 32
	rootSectors = rootEntries * entrySize / sectorSize
	rootStart   = 1 + 2*fatSectors
	dataStart   = rootStart + rootSectors
	clusters    = sectors - dataStart // numbered from 2

	// Size is how many bytes a volume has.
	Size = sectors * sectorSize
)

const (
	media     = 0xF8 // a fixed disk
	endOfFile = 0xFFF

	attrReadOnly = 0x01
	attrLabel    = 0x08
	attrLongName = 0x0F

	lastLongEntry = 0x40
	longEntryLen  = 13 // characters
	maxLongName   = 255

	dayOne = 1<<5 | 1 // 1 January 1980
)

// Volume makes a volume with a label of at most 11 characters and the files.
func Volume(label string, files []File) (_ []byte, err error) {
	name, err := labelOf(label)
	if err != nil {
		return nil, err
	}
	v := &volume{bytes: make([]byte, Size), next: 2}
	defer func() {
		if err != nil {
			clear(v.bytes)
		}
	}()
	v.writeBootSector(name)
	v.setFAT(0, 0xF00|media)
	v.setFAT(1, endOfFile)
	if err := v.addEntry(entry(name, attrLabel, 0, 0)); err != nil {
		return nil, err
	}
	for i, f := range files {
		if err := v.addFile(i, f); err != nil {
			return nil, fmt.Errorf("file %q of volume %s: %w", f.Name, label, err)
		}
	}
	return v.bytes, nil
}

type volume struct {
	bytes   []byte
	entries int // of the root folder that are used
	next    int // free cluster
}

func labelOf(s string) (name [11]byte, err error) {
	if s == "" || len(s) > len(name) || strings.ToUpper(s) != s {
		return name, fmt.Errorf("%q is no label of a volume: 1 to %d characters, no small letters", s, len(name))
	}
	copy(name[:], s+strings.Repeat(" ", len(name)))
	return name, nil
}

func (v *volume) writeBootSector(label [11]byte) {
	b, le := v.bytes[:sectorSize], binary.LittleEndian
	copy(b[0:], "\xEB\x3C\x90KLUIS   ")
	le.PutUint16(b[11:], sectorSize)
	b[13] = 1               // sectors of a cluster
	le.PutUint16(b[14:], 1) // sectors before the first FAT
	b[16] = 2               // FATs
	le.PutUint16(b[17:], rootEntries)
	le.PutUint16(b[19:], sectors)
	b[21] = media
	le.PutUint16(b[22:], fatSectors)
	le.PutUint16(b[24:], 32) // sectors of a track and heads, which nobody uses
	le.PutUint16(b[26:], 2)
	b[36] = 0x80 // a fixed disk
	b[38] = 0x29 // serial number, label and type follow
	le.PutUint32(b[39:], 0x4B4C5549)
	copy(b[43:], label[:])
	copy(b[54:], "FAT12   ")
	copy(b[510:], "\x55\xAA")
}

// setFAT writes an entry of 12 bits into both FATs.
func (v *volume) setFAT(cluster, value int) {
	for i := range 2 {
		at := v.bytes[(1+i*fatSectors)*sectorSize+cluster*3/2:]
		if cluster%2 == 0 {
			at[0], at[1] = byte(value), at[1]&0xF0|byte(value>>8)
		} else {
			at[0], at[1] = at[0]&0x0F|byte(value<<4), byte(value>>4)
		}
	}
}

// addFile writes content, name and short entry of a file.
func (v *volume) addFile(number int, f File) error {
	name := utf16.Encode([]rune(f.Name))
	if len(name) == 0 || len(name) > maxLongName || strings.ContainsAny(f.Name, "\\/:*?\"<>|\x00") {
		return fmt.Errorf("it cannot be called that")
	}
	first, err := v.addContent(f.Content)
	if err != nil {
		return err
	}
	short := [11]byte([]byte(fmt.Sprintf("FILE%04d   ", number)))
	for _, e := range longEntries(name, checksum(short)) {
		if err := v.addEntry(e); err != nil {
			return err
		}
	}
	return v.addEntry(entry(short, attrReadOnly, first, len(f.Content)))
}

// addContent writes the clusters of a file and returns the first, which is 0 for an empty one.
func (v *volume) addContent(content []byte) (first int, err error) {
	n := (len(content) + sectorSize - 1) / sectorSize
	if v.next-2+n > clusters {
		return 0, fmt.Errorf("there is no room for %d bytes", len(content))
	}
	if n == 0 {
		return 0, nil
	}
	first = v.next
	copy(v.bytes[(dataStart+first-2)*sectorSize:], content)
	for i := range n {
		to := first + i + 1
		if i == n-1 {
			to = endOfFile
		}
		v.setFAT(first+i, to)
	}
	v.next += n
	return first, nil
}

func (v *volume) addEntry(e [entrySize]byte) error {
	if v.entries == rootEntries {
		return fmt.Errorf("the root folder is full")
	}
	copy(v.bytes[rootStart*sectorSize+v.entries*entrySize:], e[:])
	v.entries++
	return nil
}

func entry(name [11]byte, attributes byte, first, size int) (e [entrySize]byte) {
	copy(e[:], name[:])
	e[11] = attributes
	binary.LittleEndian.PutUint16(e[16:], dayOne) // created, read and written
	binary.LittleEndian.PutUint16(e[18:], dayOne)
	binary.LittleEndian.PutUint16(e[24:], dayOne)
	binary.LittleEndian.PutUint16(e[26:], uint16(first))
	binary.LittleEndian.PutUint32(e[28:], uint32(size))
	return e
}

// longEntries hold a name in parts of 13 characters, the last part first.
func longEntries(name []uint16, sum byte) (entries [][entrySize]byte) {
	places := []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}
	parts := (len(name) + longEntryLen - 1) / longEntryLen
	for part := parts - 1; part >= 0; part-- {
		var e [entrySize]byte
		e[0], e[11], e[13] = byte(part+1), attrLongName, sum
		if part == parts-1 {
			e[0] |= lastLongEntry
		}
		for i, at := range places {
			c := uint16(0xFFFF) // behind the name's end, which is a 0
			if n := part*longEntryLen + i; n < len(name) {
				c = name[n]
			} else if n == len(name) {
				c = 0
			}
			binary.LittleEndian.PutUint16(e[at:], c)
		}
		entries = append(entries, e)
	}
	return entries
}

// checksum ties the entries of a long name to their short one.
func checksum(short [11]byte) (sum byte) {
	for _, c := range short {
		sum = sum>>1 | sum<<7
		sum += c
	}
	return sum
}
