package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"kluis/internal/client"
)

// source is a disk of 24 MiB with data in its second, and from its ninth MiB on.
type source struct {
	content []byte
	cut     int64        // from here on nothing is answered; 0: nowhere
	read    atomic.Int64 // bytes
}

var errCut = errors.New("the line is cut")

func newSource() *source {
	s := &source{content: make([]byte, 24<<20+footer)}
	for i := range s.content {
		if mib := i >> 20; mib == 1 || mib >= 8 {
			s.content[i] = byte(i%251 + 1)
		}
	}
	return s
}

func (s *source) Pages(context.Context) ([]client.PageRange, error) {
	return []client.PageRange{{Start: 1 << 20, End: 2<<20 - 1}, {Start: 8 << 20, End: int64(len(s.content)) - 1}}, nil
}

func (s *source) Read(_ context.Context, off int64, n int) ([]byte, error) {
	if s.cut > 0 && off >= s.cut {
		return nil, errCut
	}
	s.read.Add(int64(n))
	return s.content[off : off+int64(n)], nil
}

// A download that was cut goes on where it was; what it leaves is the disk, with holes where the disk has zeros.
func TestDownloadGoesOn(t *testing.T) {
	s := newSource()
	file := filepath.Join(t.TempDir(), "disk.raw")
	d := func() *download {
		return &download{disk: s, file: file, note: note{Size: int64(len(s.content)) - footer, Modified: "today"}}
	}
	var done, total int64
	watch := func(d, of int64) { done, total = d, of }
	s.cut = 12 << 20
	if _, err := d().run(t.Context(), watch); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("what is not whole has its name")
	}
	before := s.read.Load()
	s.cut = 0
	read, err := d().run(t.Context(), watch)
	if err != nil {
		t.Fatal(err)
	}
	if again := s.read.Load() - before; again != read || read != 12<<20 || done != total || total != 17<<20 {
		t.Errorf("read %d, %d of them anew; %d of %d", s.read.Load(), read, done, total)
	}
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, s.content[:24<<20]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if left, _ := filepath.Glob(file + ".*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// What was begun of another disk, or of the same before it was written to, is begun anew.
func TestDownloadOfAnotherDisk(t *testing.T) {
	s := newSource()
	file := filepath.Join(t.TempDir(), "disk.raw")
	for name, text := range map[string]string{"another": `{"size":25165824,"modified":"yesterday","done":25165824}`, "none": `{"size":2516`} {
		for path, content := range map[string]string{file + ".part": "what was there", file + ".part.json": text} {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d := &download{disk: s, file: file, note: note{Size: int64(len(s.content)) - footer, Modified: "today"}}
		if read, err := d.run(t.Context(), func(int64, int64) {}); err != nil || read != 17<<20 {
			t.Errorf("%s: read %d, %v", name, read, err)
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, s.content[:24<<20]) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
}
