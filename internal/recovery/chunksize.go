package recovery

import (
	"bytes"
	"context"
	"fmt"

	"kluis/internal/recovery/chunk"
)

// A disk that is not encrypted is worth larger chunks: its content compresses, and the more of it at once the better. With
// 256 KiB an image full of files is stored in 5 percent less than with 64 KiB. Ciphertext gains nothing, and its increments
// would cost more.
const (
	plainChunkSize = 256 << 10
	plainDiskSize  = 64 << 20 // with less data on it, no disk is worth a look
	sampleSize     = 4 << 10
	sampleCount    = 64
)

// chooseChunkSize looks at samples of a disk that has no parent and for which nobody has chosen.
func (t *transfer) chooseChunkSize(ctx context.Context) (int64, error) {
	usual := t.w.store.header.ChunkSize
	data := int64(0)
	for e, err := range t.src.Extents(ctx) {
		if err != nil {
			return 0, fmt.Errorf("list extents: %w", err)
		}
		data += e.Length
	}
	if usual >= plainChunkSize || data < plainDiskSize {
		return usual, nil
	}
	plain, full := 0, 0
	buf := make([]byte, sampleSize)
	// The samples lie evenly in what is not a hole: at step/2, step + step/2, and so on.
	step := data / sampleCount
	next := step / 2
	for e, err := range t.src.Extents(ctx) {
		if err != nil {
			return 0, fmt.Errorf("list extents: %w", err)
		}
		for ; next < e.Length; next += step {
			sample := buf[:max(0, min(sampleSize, t.size-e.Offset-next))]
			if err := t.readAt(ctx, sample, e.Offset+next); err != nil {
				return 0, err
			}
			if bytes.Equal(sample, zeros[:len(sample)]) {
				continue
			}
			full++
			if chunk.Promising(sample) {
				plain++
			}
		}
		next -= e.Length
	}
	if plain > full/2 {
		return plainChunkSize, nil
	}
	return usual, nil
}
