package luks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"kluis/internal/secret"
	"kluis/internal/tooltest"
	"kluis/internal/volume/volumetest"
)

// spy keeps the buffers that were read into, to look at them later.
type spy struct {
	io.ReaderAt
	buffers [][]byte
}

func (s *spy) ReadAt(p []byte, off int64) (int, error) {
	s.buffers = append(s.buffers, p)
	return s.ReaderAt.ReadAt(p, off)
}

// TestWipes looks at the memory that held the volume key, whole and split.
func TestWipes(t *testing.T) {
	tooltest.Need(t, "cryptsetup")
	plain, out := filepath.Join(t.TempDir(), "plain"), filepath.Join(t.TempDir(), "volume")
	if err := os.WriteFile(plain, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := volumetest.Encrypt(context.Background(), plain, out, []byte("key"), volumetest.Options{Version: 1}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, passphrase := range []string{"another", "key"} {
		watched := &spy{ReaderAt: bytes.NewReader(b)}
		v, err := Open(context.Background(), watched, int64(len(b)), secret.New([]byte(passphrase)))
		if (err == nil) != (passphrase == "key") {
			t.Fatal(err)
		}
		areas := 0
		for _, p := range watched.buffers {
			if len(p) != 64*4000 {
				continue
			}
			areas++
			if !bytes.Equal(p, make([]byte, len(p))) {
				t.Error("after Open the memory holds the split key")
			}
		}
		if areas != 1 {
			t.Errorf("%d key-slot areas were read", areas)
		}
		if err != nil {
			continue
		}
		key := v.key.Reveal()
		if bytes.Equal(key, make([]byte, 64)) {
			t.Error("there is no volume key")
		}
		if err := v.Close(); err != nil || !bytes.Equal(key, make([]byte, 64)) {
			t.Errorf("after Close the memory holds the volume key, error %v", err)
		}
		if _, err := v.ReadAt(make([]byte, 512), 0); !errors.Is(err, ErrClosed) {
			t.Errorf("a read after Close: %v", err)
		}
		if err := v.Close(); err != nil {
			t.Errorf("a second Close: %v", err)
		}
	}
}

// TestDerivationLeavesNothing looks behind a derived key, where the rest of its last block was.
func TestDerivationLeavesNothing(t *testing.T) {
	key, err := pbkdf2(context.Background(), sha256.New, []byte("x"), []byte("y"), 1, 40)
	if err != nil {
		t.Fatal(err)
	}
	if rest := key[40:cap(key)]; !bytes.Equal(rest, make([]byte, len(rest))) {
		t.Errorf("behind a derived key the memory holds %x", rest)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if key, err := pbkdf2(ctx, sha256.New, []byte("x"), []byte("y"), cancelEvery+2, 64); key != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled derivation gives %d bytes, %v", len(key), err)
	}
}
