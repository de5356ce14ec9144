package nbd

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestWritesToQEMU(t *testing.T) {
	const size = 20<<20 + 512
	image := filepath.Join(t.TempDir(), "image")
	want := bytes.Repeat([]byte{7}, size)
	if err := os.WriteFile(image, want, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), "unix", serveWritable(t, image, "raw"), "disk", ContextAllocation)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.ReadOnly() || !c.MultiConn() {
		t.Errorf("read-only %v, multi-conn %v", c.ReadOnly(), c.MultiConn())
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			part := want[i<<20:][:1<<20-i*100]
			_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(part)
			if n, err := c.WriteAt(part, int64(i)<<20); n != len(part) || err != nil {
				t.Errorf("write: %d, %v", n, err)
			}
		})
	}
	wg.Wait()
	clear(want[3<<20+10 : 5<<20])
	if err := c.WriteZeroes(3<<20+10, 2<<20-10); err != nil {
		t.Error(err)
	}
	if err := c.Trim(17<<20, 1<<20); err != nil {
		t.Error(err)
	}
	if err := c.Flush(); err != nil {
		t.Error(err)
	}
	got := make([]byte, size)
	if _, err := c.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	copy(want[17<<20:18<<20], got[17<<20:]) // what a trimmed range reads as is not defined
	if !bytes.Equal(got, want) {
		t.Error("what was written is not what is read")
	}
	for name, err := range map[string]error{
		"zeroes over the end": c.WriteZeroes(size-1, 2), "before the beginning": c.Trim(-1, 1),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if n, err := c.WriteAt(make([]byte, 2), size-1); n != 0 || err == nil {
		t.Errorf("write over the end: %d, %v", n, err)
	}
}

func TestWritesToReadOnlyExport(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), "unix", serve(t, image, "raw"), "disk")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WriteAt([]byte("x"), 0); !errors.Is(err, ErrReadOnly) {
		t.Errorf("write: %v", err)
	}
	if err := c.WriteZeroes(0, 512); !errors.Is(err, ErrReadOnly) {
		t.Errorf("zeroes: %v", err)
	}
	if err := c.Flush(); err != nil {
		t.Errorf("flush: %v", err)
	}
}

func TestWriteReplies(t *testing.T) {
	simple := func(errno uint32) []byte {
		return be.AppendUint64(be.AppendUint32(be.AppendUint32(nil, magicSimple), errno), 1)
	}
	for _, test := range []struct {
		name  string
		reply []byte
		err   string
	}{
		{"simple", simple(0), ""},
		{"simple error", simple(28), "ENOSPC"},
		{"structured", new(script).chunk(1, chunkNone, 1, nil).Bytes(), ""},
		{"structured error", new(script).chunk(1, chunkError, 1, failure(5, "worn out")).Bytes(), "worn out"},
		{"data", new(script).chunk(1, chunkOffsetData, 1, at(0, "x")).Bytes(), "chunk of type 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := New(t.Context(), newCanned(new(script).writable(64).Bytes(), test.reply), "disk")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			err = c.WriteZeroes(0, 16)
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if err := c.Trim(0, 1); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("trim, which this server does not know: %v", err)
			}
		})
	}
}
