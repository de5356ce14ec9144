// Package bitlocker reads BitLocker volumes as Windows 7 to 11 make them, To Go's among them: what their
// metadata say, whether a key opens them, and the bytes inside. It never writes.
//
// The words are Microsoft's. The *FVEK* encrypts sectors. The *VMK* encrypts the FVEK. Each *protector* keeps
// the VMK once more, encrypted under what it is named after: an external key (a .BEK file, which is what
// Azure Disk Encryption keeps as the BEK), a password, a recovery password of 48 digits, a TPM; or under a
// *clear key* that lies beside it, and then nothing protects the volume. All this is in the *metadata*, a
// list of entries, of which the volume holds three copies whose places the boot sector tells.
//
// The first sectors of the file system had to make room for BitLocker's boot sector and lie elsewhere,
// encrypted like the rest. In the plain volume they are back at its beginning; their place and the three
// copies read as zeros, as Windows has it.
//
// What holds: every number comes from outside and is checked before it is used. A copy of the metadata
// counts only when its CRC agrees, and a volume opens only when the keys' own tags agree (AES-CCM) and the
// hash of the metadata, kept under the VMK, does too. What a key costs is fixed by the format, and how often
// it is tried is bounded. Derived keys are wiped; the AES schedules inside crypto/aes can't be.
//
// Sources: the format description of the libbde project (J. Metz), the documentation of cryptsetup's BITLK,
// N. Ferguson's paper of 2006, and RFC 3610.
package bitlocker

import (
	"context"
	"errors"
	"fmt"
	"io"

	"kluis/internal/secret"
	"kluis/internal/volume/sector"
)

// ErrNotBitLocker says that no BitLocker volume begins here.
var ErrNotBitLocker = errors.New("no BitLocker volume")

// ErrWrongKey says that a key opens none of the protectors of its kind. A damaged protector can't be told
// from a wrong key: in either case the tag disagrees.
var ErrWrongKey = errors.New("the key opens none of the protectors")

// ErrClosed is returned by reads of a volume after Close.
var ErrClosed = errors.New("the volume is closed")

// DamageError says that a volume is broken: where, and what is wrong there.
type DamageError struct{ Where, What string }

func (e *DamageError) Error() string {
	return "the BitLocker volume is damaged: " + e.Where + ": " + e.What
}

// UnsupportedError says that a volume is sound as far as can be told, and is of a kind or in a state that
// this package doesn't read.
type UnsupportedError struct{ Where, What string }

func (e *UnsupportedError) Error() string {
	return "the BitLocker volume can't be read: " + e.Where + ": " + e.What
}

// Kinds of protectors.
const (
	KindClearKey         = "clearKey"
	KindTPM              = "tpm"
	KindExternalKey      = "externalKey"
	KindTPMPIN           = "tpmAndPin"
	KindTPMExternalKey   = "tpmAndExternalKey"
	KindRecoveryPassword = "recoveryPassword"
	KindPassword         = "password"
	KindUnknown          = "unknown"
)

// Protector is one way to the volume's key.
type Protector struct {
	ID   string `json:"id"` // the GUID that manage-bde shows; of an external key, the name of its file
	Kind string `json:"kind"`
}

// States of a volume.
const (
	StateEncrypted  = "encrypted"
	StateEncrypting = "encrypting"
	StateDecrypting = "decrypting"
)

// Header is what can be known of a volume without a key.
type Header struct {
	ID          string // of the volume, a GUID
	Description string // computer, volume and date, as Windows noted them
	ToGo        bool
	Cipher      string // AES-XTS-128, AES-CBC-256, AES-CBC-128 Elephant
	KeyBits     int
	SectorSize  int
	Size        int64 // of the plain volume
	// State is StateEncrypted unless Windows is at it; Encrypted is how many bytes are, from the beginning.
	State      string
	Encrypted  int64
	Protectors []Protector
	// Damage names what is broken although the volume can still be opened: some of the metadata's copies.
	Damage []string

	method     method
	protectors []protector
	fvek       entry
	hash       entry // SHA-256 of the metadata, under the VMK
	sum        [32]byte
	relocated  region   // where the first sectors are
	hidden     []region // what reads as zeros
}

// region is a range of bytes of the volume.
type region struct{ off, size int64 }

func (r region) contains(off int64) bool { return off >= r.off && off-r.off < r.size }

// Protected tells whether a key is needed at all: a clear key lies on the volume for everybody to use. That
// is how Windows suspends protection, and how it leaves volumes that it encrypted before anybody asked.
func (h Header) Protected() bool {
	for _, p := range h.Protectors {
		if p.Kind == KindClearKey {
			return false
		}
	}
	return true
}

// Volume is an opened volume: its plain bytes. It may be read by several goroutines; Close must not run
// beside a read.
type Volume struct {
	r         io.ReaderAt
	header    *Header
	protector Protector
	key       secret.Bytes
	cipher    *sectorCipher
}

// Open tries key on the protectors of its kind. r is size bytes long and must stay readable until Close. The
// error is ErrNotBitLocker, ErrWrongKey, a *DamageError, an *UnsupportedError, the context's, or r's own.
func Open(ctx context.Context, r io.ReaderAt, size int64, key Key) (*Volume, error) {
	h, err := ReadHeader(r, size)
	if err != nil {
		return nil, err
	}
	if h.State != StateEncrypted {
		return nil, &UnsupportedError{"state", fmt.Sprintf("Windows is %s it: %d of %d bytes are encrypted", h.State, h.Encrypted, h.Size)}
	}
	fvek, by, err := h.unlock(ctx, key)
	if err != nil {
		return nil, err
	}
	c, err := newSectorCipher(h.method, fvek)
	if err != nil {
		clear(fvek)
		return nil, &UnsupportedError{"cipher", err.Error()}
	}
	return &Volume{r: r, header: h, protector: by, key: secret.New(fvek), cipher: c}, nil
}

// Info returns what the metadata say.
func (v *Volume) Info() Header { return *v.header }

// Protector is the one that the key opened.
func (v *Volume) Protector() Protector { return v.protector }

// Size is the number of plain bytes.
func (v *Volume) Size() int64 { return v.header.Size }

// Close wipes the key. Reads fail afterwards.
func (v *Volume) Close() error {
	v.key.Wipe()
	v.cipher = nil
	return nil
}

// ReadAt reads plain bytes.
func (v *Volume) ReadAt(p []byte, off int64) (int, error) {
	if v.cipher == nil {
		return 0, ErrClosed
	}
	return sector.ReadAt(p, off, v.header.Size, v.header.SectorSize, v.readSectors)
}

// readSectors fills p with whole plain sectors from off, in runs that come from one place each.
func (v *Volume) readSectors(p []byte, off int64) error {
	for len(p) > 0 {
		n := v.header.run(off, int64(len(p)))
		if err := v.readRun(p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// readRun fills p with sectors that are all hidden, all relocated, or neither.
func (v *Volume) readRun(p []byte, off int64) error {
	h := v.header
	for _, r := range h.hidden {
		if r.contains(off) {
			clear(p)
			return nil
		}
	}
	if off < h.relocated.size {
		off += h.relocated.off
	}
	if err := sector.ReadFull(v.r, p, off); err != nil {
		return fmt.Errorf("read encrypted sectors at %d: %w", off, err)
	}
	v.cipher.decrypt(p, h.SectorSize, off)
	return nil
}

// run returns how many of n bytes from off lie within the same regions as off does.
func (h *Header) run(off, n int64) int64 {
	end := off + n
	cut := func(at int64) {
		if at > off && at < end {
			end = at
		}
	}
	cut(h.relocated.size)
	for _, r := range h.hidden {
		cut(r.off)
		cut(r.off + r.size)
	}
	return end - off
}
