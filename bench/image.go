package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
)

const (
	mib    = int64(1) << 20
	region = 16 * mib // data and holes come in pieces of this size
)

// extent is a range of an image, as 'kluis store put --changed' reads it.
type extent struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

// noise is bytes that look like ciphertext: AES-CTR under a key made of the seed.
func noise(seed uint64) cipher.Stream {
	key := make([]byte, 16)
	binary.LittleEndian.PutUint64(key, seed)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key has a right length
	}
	return cipher.NewCTR(block, make([]byte, aes.BlockSize))
}

// makeImage writes a raw image of which a share of the regions is ciphertext and the rest holes. It
// returns the regions that hold something.
func makeImage(path string, size int64, share float64, seed uint64) ([]int64, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if err := f.Truncate(size); err != nil {
		return nil, err
	}
	random := rand.New(rand.NewPCG(seed, 1))
	regions := random.Perm(int(size / region))
	used := make([]int64, 0, len(regions))
	for _, r := range regions[:int(float64(len(regions))*share)] {
		used = append(used, int64(r)*region)
	}
	slices.Sort(used)
	stream, buf := noise(seed), make([]byte, mib)
	for _, off := range used {
		for at := off; at < off+region; at += mib {
			stream.XORKeyStream(buf, buf)
			if _, err := f.WriteAt(buf, at); err != nil {
				return nil, err
			}
		}
	}
	return used, f.Sync()
}

// change writes new ciphertext over a number of bytes of an image, in random extents of 64 KiB within the
// regions in use, at multiples of 4 KiB as a guest's file system would. It returns them.
func change(path string, used []int64, total int64, seed uint64) ([]extent, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	const piece = 64 << 10
	random, stream := rand.New(rand.NewPCG(seed, 2)), noise(seed)
	var all []extent
	buf := make([]byte, piece)
	for ; total > 0; total -= piece {
		off := used[random.IntN(len(used))] + random.Int64N((region-piece)/4096)*4096
		stream.XORKeyStream(buf, buf)
		if _, err := f.WriteAt(buf, off); err != nil {
			return nil, err
		}
		all = append(all, extent{off, piece})
	}
	slices.SortFunc(all, func(a, b extent) int { return int(a.Offset - b.Offset) })
	return union(all), f.Sync()
}

// union joins extents that touch, so that their lengths add up to what changed.
func union(sorted []extent) []extent {
	all := sorted[:0]
	for _, e := range sorted {
		if n := len(all); n > 0 && e.Offset <= all[n-1].Offset+all[n-1].Length {
			all[n-1].Length = max(all[n-1].Length, e.Offset+e.Length-all[n-1].Offset)
			continue
		}
		all = append(all, e)
	}
	return all
}

// bitmap widens extents to granules of 64 KiB, as the dirty bitmap of a hypervisor tells them.
func bitmap(extents []extent) []extent {
	const granule = 64 << 10
	wide := make([]extent, len(extents))
	for i, e := range extents {
		off := e.Offset &^ (granule - 1)
		wide[i] = extent{off, (e.Offset + e.Length - off + granule - 1) &^ (granule - 1)}
	}
	return union(wide)
}

func sum(extents []extent) (total int64) {
	for _, e := range extents {
		total += e.Length
	}
	return total
}

func writeExtents(path string, extents []extent) error {
	text, err := json.Marshal(extents)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// makeMixed makes an ext4 image full of files as a server has them: this machine's programs, libraries and
// documentation, up to half of the image.
func makeMixed(ctx context.Context, path string, size int64) error {
	tree, err := os.MkdirTemp("", "kluis-bench-files-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tree) }()
	if err := gather(tree, size/2); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "mke2fs", "-q", "-t", "ext4", "-d", tree, path, fmt.Sprintf("%dk", size>>10)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mke2fs: %w\n%s", err, out)
	}
	return nil
}
