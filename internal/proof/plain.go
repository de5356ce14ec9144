package proof

import (
	"context"

	"kluis/internal/volume"
)

// Plain is an encrypted volume of a disk, opened: its plain bytes. Close wipes the key.
type Plain struct {
	Partition  int    // 0: the whole disk
	Encryption string // LUKS2 aes-xts-plain64, …
	volume.Opened
}

// Open opens every encrypted volume of a disk with its BEK, as Prove does, for somebody who reads what is in
// them. All of them open or none does. The error says why in a proof's words; a disk on which nothing is
// encrypted has no volumes to open, and no error.
func Open(ctx context.Context, d Disk) (all []Plain, err error) {
	defer func() {
		if err != nil {
			for _, p := range all {
				_ = p.Close() // wipes the key; there is nothing to write back
			}
			all = nil
		}
	}()
	disk, err := volume.Inspect(d, d.Size)
	if err != nil {
		return nil, err
	}
	for _, v := range disk.Volumes {
		if !v.Encrypted {
			continue
		}
		if f := closed(v, d); f != nil {
			return all, &notOpened{f.reason, nil}
		}
		opened, _, err := volume.Open(ctx, d, v, d.BEK)
		if ctx.Err() != nil {
			return all, ctx.Err()
		}
		if err != nil {
			return all, &notOpened{openFinding(err, v).reason, err}
		}
		all = append(all, Plain{v.Partition, encryption(v), opened})
	}
	return all, nil
}

// notOpened is an error in a proof's words.
type notOpened struct {
	reason string
	err    error
}

func (e *notOpened) Error() string { return e.reason }
func (e *notOpened) Unwrap() error { return e.err }

// closed is why a volume can't be opened, whatever the key.
func closed(v volume.Volume, d Disk) *finding {
	switch {
	case v.Unsupported != "":
		return &finding{v.Unsupported, adviceUnsupported}
	case v.Conversion != "":
		return &finding{conversion(v), adviceConversion}
	}
	return noKey(v, d)
}
