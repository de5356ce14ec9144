package bitlocker

import (
	"encoding/binary"
	"fmt"
)

// What an entry is for, and what is in it.
const (
	entryVMK         = 0x0002
	entryFVEK        = 0x0003
	entryStartupKey  = 0x0006
	entryDescription = 0x0007
	entryRelocated   = 0x000f

	valueKey         = 0x0001
	valueText        = 0x0002
	valueStretch     = 0x0003
	valueCCM         = 0x0005
	valueVMK         = 0x0008
	valueExternalKey = 0x0009
	valueRegion      = 0x000f
)

const (
	entryHeader = 8
	// maxEntries bounds a list of entries; Windows writes about ten.
	maxEntries = 256
)

// entry is a piece of the metadata: a size, what it is for, and what is in it. Some hold entries again.
type entry struct {
	kind, value uint16
	data        []byte
}

func decodeEntries(b []byte) ([]entry, error) {
	var all []entry
	for len(b) > 0 {
		if len(b) < entryHeader || zeros(b) {
			break // padding
		}
		n := int(binary.LittleEndian.Uint16(b))
		if n < entryHeader || n > len(b) || len(all) == maxEntries {
			return nil, &DamageError{"entries", fmt.Sprintf("entry %d has %d bytes, and %d are left", len(all)+1, n, len(b))}
		}
		all = append(all, entry{binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint16(b[4:]), b[entryHeader:n]})
		b = b[n:]
	}
	return all, nil
}

// inside decodes the entries that begin at off of e's data.
func (e entry) inside(off int) ([]entry, error) {
	if len(e.data) < off {
		return nil, &DamageError{"entries", fmt.Sprintf("an entry has %d bytes; it needs %d", len(e.data), off)}
	}
	return decodeEntries(e.data[off:])
}

// protector is a Protector with what opens it.
type protector struct {
	Protector
	id   [16]byte
	salt []byte // of the stretched key of a password
	key  []byte // the clear key
	vmk  entry
}

// kindOf names a protection by its number, which is put together of bits: what is with a TPM is of no use
// without that TPM.
func kindOf(protection uint16) string {
	const tpm, externalKey, pin, recovery, password = 0x0100, 0x0200, 0x0400, 0x0800, 0x2000
	switch protection {
	case 0:
		return KindClearKey
	case tpm:
		return KindTPM
	case externalKey:
		return KindExternalKey
	case tpm | pin:
		return KindTPMPIN
	case tpm | externalKey:
		return KindTPMExternalKey
	case recovery:
		return KindRecoveryPassword
	case password:
		return KindPassword
	}
	return KindUnknown
}

func decodeProtector(e entry) (protector, error) {
	const idSize, kindOffset, propertiesOffset = 16, 26, 28
	properties, err := e.inside(propertiesOffset)
	if err != nil {
		return protector{}, err
	}
	p := protector{id: [16]byte(e.data[:idSize])}
	p.ID, p.Kind = guid(e.data[:idSize]), kindOf(binary.LittleEndian.Uint16(e.data[kindOffset:]))
	for _, property := range properties {
		switch property.value {
		case valueStretch:
			const saltOffset, saltEnd = 4, 20
			if len(property.data) < saltEnd {
				return protector{}, &DamageError{"protector " + p.ID, "its salt is cut short"}
			}
			p.salt = property.data[saltOffset:saltEnd]
		case valueKey:
			if p.Kind == KindClearKey {
				if p.key, err = keyOf(property); err != nil {
					return protector{}, &DamageError{"protector " + p.ID, err.Error()}
				}
			}
		case valueCCM:
			p.vmk = property
		}
	}
	return p, nil
}

// keyOf returns the 256 bits of a key that isn't encrypted.
func keyOf(e entry) ([]byte, error) {
	const methodSize, keySize = 4, 32
	if e.value != valueKey || len(e.data) != methodSize+keySize {
		return nil, fmt.Errorf("a key of %d bytes", len(e.data)-methodSize)
	}
	return e.data[methodSize:], nil
}
