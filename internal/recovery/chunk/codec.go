package chunk

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Codec seals and opens records, with compression. It may be used by several goroutines.
type Codec struct {
	enc     *zstd.Encoder
	dec     *zstd.Decoder
	scratch sync.Pool // *[]byte of MaxSize and a little
}

// NewCodec makes a codec; Close releases it.
func NewCodec() (*Codec, error) {
	workers := runtime.GOMAXPROCS(0)
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(workers),
		zstd.WithWindowSize(MaxSize), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	if err != nil {
		return nil, fmt.Errorf("make compressor: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(workers), zstd.WithDecoderMaxMemory(MaxSize),
		zstd.WithDecoderMaxWindow(MaxSize), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("make decompressor: %w", err)
	}
	c := &Codec{enc: enc, dec: dec}
	c.scratch.New = func() any { b := make([]byte, 0, MaxSize+MaxSize/64); return &b }
	return c, nil
}

// Close releases the codec.
func (c *Codec) Close() {
	_ = c.enc.Close()
	c.dec.Close()
}

// Seal appends the record of a chunk to dst. It fills in the flags and the length of i. Here, and nowhere
// else, the plain bytes of a guest's disk become ciphertext.
func (c *Codec) Seal(dst, plain []byte, box *Box, at Place, i Info) ([]byte, Info) {
	i.Plain, i.Flags = uint32(len(plain)), 0
	if i.Kind == Node || !Promising(plain) {
		return box.seal(dst, plain, at, i), i
	}
	scratch := c.scratch.Get().(*[]byte)
	defer c.scratch.Put(scratch)
	small := c.enc.EncodeAll(plain, (*scratch)[:0])
	if len(small) > len(plain)-len(plain)/16 || len(small) >= len(plain) {
		return box.seal(dst, plain, at, i), i
	}
	i.Flags = Compressed
	return box.seal(dst, small, at, i), i
}

// Open appends the chunk of a record to dst, after it was authenticated. dst must have room for i.Plain
// bytes if it shall not be allocated anew.
func (c *Codec) Open(dst, sealed []byte, box *Box, at Place, i Info) ([]byte, error) {
	if err := i.Check(int64(len(sealed))); err != nil {
		return nil, err
	}
	if i.Flags == 0 {
		return box.open(dst, sealed, at, i)
	}
	scratch := c.scratch.Get().(*[]byte)
	defer c.scratch.Put(scratch)
	small, err := box.open((*scratch)[:0], sealed, at, i)
	if err != nil {
		return nil, err
	}
	end := len(dst) + int(i.Plain)
	if cap(dst) < end {
		dst = append(make([]byte, 0, end), dst...)
	}
	plain, err := c.dec.DecodeAll(small, dst[:len(dst):end])
	if err != nil || len(plain) != end {
		return nil, fmt.Errorf("record in slot %d does not decompress to %d bytes: %w", at.Slot, i.Plain, ErrDamaged)
	}
	return plain, nil
}

// Promising tells whether compressing is worth a try, from a histogram of four samples: ciphertext, of
// which encrypted disks consist, is told apart in a few microseconds.
func Promising(plain []byte) bool {
	const sample = 1 << 10
	var count [256]uint32
	n := 0
	if len(plain) <= 4*sample {
		n = tally(&count, plain)
	} else {
		for q := range 4 {
			off := q * (len(plain) - sample) / 3
			n += tally(&count, plain[off:off+sample])
		}
	}
	// The sum of squares of n evenly distributed bytes is n + n²/256 on average; with n = 4096 its
	// standard deviation is below one percent.
	sum := 0
	for _, c := range count {
		sum += int(c) * int(c)
	}
	even := n + n*n/256
	return sum > even+even/16
}

func tally(count *[256]uint32, b []byte) int {
	for _, c := range b {
		count[c]++
	}
	return len(b)
}
