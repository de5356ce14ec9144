package recovery_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"kluis/internal/recovery"
)

// BenchmarkStore backs up, backs up again and restores a disk of ciphertext in a file, with the default
// pack size. The disk's size in MiB is set by KLUIS_BENCH_MIB.
func BenchmarkStore(b *testing.B) {
	size := 256
	if n, err := strconv.Atoi(os.Getenv("KLUIS_BENCH_MIB")); err == nil {
		size = n
	}
	path := filepath.Join(b.TempDir(), "disk.img")
	file, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for i := range size {
		if _, err := file.Write(noise(uint64(i), mib)); err != nil {
			b.Fatal(err)
		}
	}
	src := fileSource{File: file, size: int64(size) * mib}
	for b.Loop() {
		b.StopTimer()
		o := options(newClock())
		o.PackSize = 0
		s := create(b, newBucket(b), o)
		b.StartTimer()
		elapsed := func(name string, f func()) {
			start := b.Elapsed()
			f()
			b.ReportMetric(float64(size)/(b.Elapsed()-start).Seconds(), name+"-MiB/s")
		}
		elapsed("first", func() { backup(b, s, "1", src, recovery.DiskOptions{}) })
		elapsed("rescan", func() { backup(b, s, "2", src, recovery.DiskOptions{Parent: disk(b, s, "1")}) })
		elapsed("restore", func() {
			out, err := os.Create(filepath.Join(b.TempDir(), "out.img"))
			if err != nil {
				b.Fatal(err)
			}
			if _, err := s.Restore(b.Context(), disk(b, s, "2"), out, recovery.RestoreOptions{}); err != nil {
				b.Fatal(err)
			}
			_ = out.Close()
		})
		elapsed("verify", func() {
			if _, err := s.Check(b.Context(), recovery.CheckOptions{Level: recovery.LevelContent}); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// fileSource is an image in a file.
type fileSource struct {
	*os.File
	size int64
}

func (f fileSource) Size() int64 { return f.size }

func (f fileSource) Extents(context.Context) iterExtents {
	return func(yield func(recovery.Extent, error) bool) { yield(recovery.Extent{Length: f.size}, nil) }
}
