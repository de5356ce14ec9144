package volume

import (
	"context"
	"errors"
	"fmt"
	"io"

	"kluis/internal/secret"
	"kluis/internal/volume/bitlocker"
	"kluis/internal/volume/luks"
)

// Why an encrypted volume doesn't open. An error of Open that is none of these is the disk's or the context's.
var (
	ErrWrongKey    = errors.New("the key doesn't open the volume")
	ErrDamaged     = errors.New("the volume is damaged")
	ErrUnsupported = errors.New("the volume can't be read")
)

// Opened is the plain bytes of an encrypted volume. Close wipes its key.
type Opened interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Open opens what Inspect found on the disk. key is a passphrase or key file for LUKS, its exact bytes; for
// BitLocker it is a .BEK file, a recovery password or a password, and none is needed for a volume that isn't
// protected. by says what of the volume the key opened.
func Open(ctx context.Context, disk io.ReaderAt, v Volume, key secret.Bytes) (opened Opened, by string, err error) {
	r := io.NewSectionReader(disk, v.Offset, v.Size)
	switch {
	case !v.Encrypted:
		return nil, "", openError{ErrUnsupported, errors.New("the volume is not encrypted")}
	case v.Kind == BitLocker:
		return openBitLocker(ctx, r, v, key)
	case v.Header != nil:
		header := io.NewSectionReader(disk, v.Header.Offset, v.Header.Size)
		return openedLUKS(luks.OpenDetached(ctx, header, v.Header.Size, r, v.Size, key))
	}
	return openedLUKS(luks.Open(ctx, r, v.Size, key))
}

func openedLUKS(v *luks.Volume, err error) (Opened, string, error) {
	if err != nil {
		return nil, "", explain(err)
	}
	return v, fmt.Sprintf("key slot %d", v.Slot()), nil
}

func openBitLocker(ctx context.Context, r io.ReaderAt, v Volume, from secret.Bytes) (Opened, string, error) {
	key := bitlocker.ClearKey()
	if !v.Unprotected || from.Len() > 0 {
		var err error
		if key, err = bitlocker.Guess(from); err != nil {
			return nil, "", openError{ErrWrongKey, err}
		}
	}
	defer key.Wipe()
	opened, err := bitlocker.Open(ctx, r, v.Size, key)
	if err != nil {
		return nil, "", explain(err)
	}
	p := opened.Protector()
	return opened, fmt.Sprintf("protector %s (%s)", p.ID, p.Kind), nil
}

// openError is an error with the reason that it belongs to.
type openError struct{ reason, err error }

func (e openError) Error() string   { return e.err.Error() }
func (e openError) Unwrap() []error { return []error{e.reason, e.err} }

// explain gives an error of the rooms below its reason.
func explain(err error) error {
	var luksDamage *luks.DamageError
	var luksUnsupported *luks.UnsupportedError
	var damage *bitlocker.DamageError
	var unsupported *bitlocker.UnsupportedError
	switch {
	case errors.Is(err, luks.ErrWrongKey) || errors.Is(err, bitlocker.ErrWrongKey):
		return openError{ErrWrongKey, err}
	case errors.As(err, &luksDamage) || errors.As(err, &damage) || errors.Is(err, luks.ErrNotLUKS) || errors.Is(err, bitlocker.ErrNotBitLocker):
		return openError{ErrDamaged, err}
	case errors.As(err, &luksUnsupported) || errors.As(err, &unsupported):
		return openError{ErrUnsupported, err}
	}
	return err
}
