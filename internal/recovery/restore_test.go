package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	files "kluis/internal/fabric/image"
	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
	"kluis/internal/tooltest"
)

// used is a target in memory that holds something.
type used struct {
	target
	zeroed int64
	stop   func() error // called before each write, if it isn't nil
}

func (u *used) Truncate(n int64) error {
	u.data = append(u.data[:min(n, int64(len(u.data)))], make([]byte, max(0, n-int64(len(u.data))))...)
	return nil
}

func (u *used) ReadAt(p []byte, off int64) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return bytes.NewReader(u.data).ReadAt(p, off)
}

func (u *used) WriteAt(p []byte, off int64) (int, error) {
	if u.stop != nil {
		if err := u.stop(); err != nil {
			return 0, err
		}
	}
	return u.target.WriteAt(p, off)
}

func (u *used) WriteZeroes(off, n int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	clear(u.data[off : off+n])
	u.zeroed += n
	return nil
}

// NextData knows holes of the size of a page.
func (u *used) NextData(off int64) (start, n int64, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	const page = 4096
	hole := func(off int64) bool {
		p := u.data[off:min(off/page*page+page, int64(len(u.data)))]
		return bytes.Count(p, []byte{0}) == len(p)
	}
	size := int64(len(u.data))
	for off < size && hole(off) {
		off = off/page*page + page
	}
	end := off
	for end < size && !hole(end) {
		end = end/page*page + page
	}
	return off, max(0, min(end, size)-off), nil
}

func TestRestoreInPlace(t *testing.T) {
	s := create(t, newBucket(t), options(newClock()))
	data := mixed(3, 5*mib+12345)
	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	d := disk(t, s, "1")
	stored := int64(0) // what is no hole
	for e, err := range d.Extents(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		stored += e.Length
	}
	for _, test := range []struct {
		name    string
		change  func(b []byte) []byte
		written int64 // at most
		zeroed  int64
	}{
		{"nothing changed", func(b []byte) []byte { return b }, 0, 0},
		{"one byte", func(b []byte) []byte { b[2*cs+7] ^= 1; return b }, cs, 0},
		{"the last byte", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, 12345, 0},
		{"something in a hole", func(b []byte) []byte { b[cs+9] = 1; return b }, 0, cs},
		{"longer", func(b []byte) []byte { return append(b, 1, 2, 3) }, 0, 0},
		{"shorter", func(b []byte) []byte { return b[:3*mib] }, 3 * mib, 0},
		{"nothing there", func([]byte) []byte { return nil }, stored, 0},
		{"zeros", func(b []byte) []byte { clear(b); return b }, stored, 0},
		{"all else", func(b []byte) []byte { return bytes.Repeat([]byte{9}, len(b)) }, stored, int64(len(data)) - stored},
	} {
		t.Run(test.name, func(t *testing.T) {
			var to used
			to.data = test.change(bytes.Clone(data))
			got, err := s.Restore(t.Context(), d, &to, recovery.RestoreOptions{InPlace: true})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(to.data, data) || !to.synced {
				t.Errorf("the target is not the disk (synced: %v)", to.synced)
			}
			if got.Size != int64(len(data)) || got.Written != to.written || got.Zeroed != to.zeroed {
				t.Errorf("counted %+v, target saw %d written, %d zeroed", got, to.written, to.zeroed)
			}
			if got.Written > test.written || got.Zeroed > test.zeroed || test.written > 0 && got.Written == 0 || test.zeroed > 0 && got.Zeroed == 0 {
				t.Errorf("%+v, want at most %d written and %d zeroed", got, test.written, test.zeroed)
			}
			if got.Same > got.Read || got.Written+got.Same < stored {
				t.Errorf("counters make no sense: %+v", got)
			}
		})
	}
	t.Run("overwriting without a look", func(t *testing.T) {
		var to used
		to.data = bytes.Repeat([]byte{9}, len(data))
		got, err := s.Restore(t.Context(), d, &to, recovery.RestoreOptions{})
		if err != nil || !bytes.Equal(to.data, data) || got.Read != 0 || got.Written != stored || got.Zeroed != int64(len(data))-stored {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("a target that cannot be read", func(t *testing.T) {
		to := target{data: []byte("untouched")}
		if _, err := s.Restore(t.Context(), d, &to, recovery.RestoreOptions{InPlace: true}); err == nil || string(to.data) != "untouched" {
			t.Errorf("%v, target %.20q", err, to.data)
		}
	})
}

// Whatever was there, whenever it was interrupted, in the end the disk is there.
func TestRestoreGoesOn(t *testing.T) {
	s := create(t, newBucket(t), options(newClock()))
	data := mixed(4, 3*mib+100)
	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	d := disk(t, s, "1")
	rapid.Check(t, func(t *rapid.T) {
		to := &used{}
		to.data = bytes.Clone(data[:rapid.IntRange(0, len(data)).Draw(t, "length")])
		for range rapid.IntRange(0, 20).Draw(t, "changes") {
			if n := len(to.data); n > 0 {
				at := rapid.IntRange(0, n-1).Draw(t, "at")
				to.data[at] = rapid.Byte().Draw(t, "byte")
			}
		}
		left := rapid.IntRange(0, 6).Draw(t, "writes before the end")
		full := errors.New("target is gone")
		to.stop = func() error {
			to.mu.Lock()
			defer to.mu.Unlock()
			if left--; left < 0 {
				return full
			}
			return nil
		}
		_, err := s.Restore(context.Background(), d, to, recovery.RestoreOptions{InPlace: rapid.Bool().Draw(t, "in place at first")})
		if err != nil && !errors.Is(err, full) {
			t.Fatal(err)
		}
		to.stop = nil
		again, err := s.Restore(context.Background(), d, to, recovery.RestoreOptions{InPlace: true})
		if err != nil || !bytes.Equal(to.data, data) {
			t.Fatalf("not the disk: %v", err)
		}
		last, err := s.Restore(context.Background(), d, to, recovery.RestoreOptions{InPlace: true})
		if err != nil || last.Written+last.Zeroed != 0 || again.Written+again.Same != last.Same {
			t.Fatalf("after %+v a third time did %+v, %v", again, last, err)
		}
	})
}

// A restore to a file that is killed leaves what it wrote; the next goes on with it.
func TestRestoreToFileGoesOn(t *testing.T) {
	s := create(t, newBucket(t), options(newClock()))
	data := mixed(5, 8*mib)
	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	d := disk(t, s, "1")
	path := filepath.Join(t.TempDir(), "disk.raw")
	begin := func() files.NewImage {
		to, err := files.CreateFile(t.Context(), path, files.Raw, d.Size())
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := begin()
	before, err := s.Restore(ctx, d, first, recovery.RestoreOptions{InPlace: first.Resumed(), Progress: func(done, _ int64) {
		if done > 2*mib {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || before.Written == 0 {
		t.Fatalf("%+v, %v", before, err)
	}
	if err := first.Keep(); err != nil {
		t.Fatal(err)
	}
	second := begin()
	after, err := s.Restore(t.Context(), d, second, recovery.RestoreOptions{InPlace: second.Resumed(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Commit(); err != nil {
		t.Fatal(err)
	}
	if after.Same != before.Written {
		t.Errorf("first %+v, then %+v", before, after)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
		t.Errorf("not the disk: %v", err)
	}
}

func TestRestoreToEveryFormat(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-nbd")
	s := create(t, newBucket(t), options(newClock()))
	for _, size := range []int{cs + 512, 9*mib - 512} {
		data := mixed(6, size)
		id := "size-" + string(rune('a'+size%7))
		backup(t, s, id, &image{data: data}, recovery.DiskOptions{})
		raw := filepath.Join(t.TempDir(), "raw")
		if err := os.WriteFile(raw, data, 0o600); err != nil {
			t.Fatal(err)
		}
		for format, driver := range map[string]string{files.Raw: "raw", files.Qcow2: "qcow2", files.VHD: "vpc", files.VHDX: "vhdx"} {
			path := filepath.Join(t.TempDir(), "disk")
			to, err := files.CreateFile(t.Context(), path, format, int64(size))
			if err != nil {
				t.Fatal(err)
			}
			defer to.Abort()
			if _, err := s.Restore(t.Context(), disk(t, s, id), to, recovery.RestoreOptions{}); err != nil {
				t.Errorf("%s: %v", format, err)
			}
			if err := to.Commit(); err != nil {
				t.Errorf("%s: %v", format, err)
			}
			if out, err := exec.CommandContext(t.Context(), "qemu-img", "compare", "-f", "raw", "-F", driver, raw, path).CombinedOutput(); err != nil {
				t.Errorf("%s of %d bytes: %v: %s", format, size, err, out)
			}
		}
	}
}

func TestRestoreToDevice(t *testing.T) {
	tooltest.Need(t, "losetup")
	s := create(t, newBucket(t), options(newClock()))
	data := mixed(7, 4*mib+512)
	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	path := filepath.Join(t.TempDir(), "disk")
	const larger = 6 * mib
	if err := os.WriteFile(path, bytes.Repeat([]byte{0xaa}, larger), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", path).CombinedOutput()
	if err != nil {
		t.Skipf("this machine gives no loop devices: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	defer func() { _ = exec.Command("losetup", "--detach", device).Run() }()
	for _, inPlace := range []bool{false, true} {
		to, err := files.OpenUsed(device)
		if err != nil {
			t.Fatal(err)
		}
		defer to.Close()
		got, err := s.Restore(t.Context(), disk(t, s, "1"), to, recovery.RestoreOptions{InPlace: inPlace})
		if err != nil {
			t.Fatal(err)
		}
		if inPlace && got.Written+got.Zeroed != 0 {
			t.Errorf("the second time did %+v", got)
		}
		there := make([]byte, larger)
		if _, err := to.ReadAt(there, 0); err != nil || !bytes.Equal(there[:len(data)], data) || there[len(data)] != 0xaa {
			t.Errorf("in place %v: the device does not hold the disk, and beyond it what it held: %v", inPlace, err)
		}
		if err := to.Close(); err != nil {
			t.Error(err)
		}
	}
	backup(t, s, "2", &image{data: make([]byte, larger+512)}, recovery.DiskOptions{})
	to, err := files.OpenUsed(device)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if _, err := s.Restore(t.Context(), disk(t, s, "2"), to, recovery.RestoreOptions{}); err == nil {
		t.Error("a disk was restored to a device that is smaller")
	}
}

func TestRestoreKeepsToItsRate(t *testing.T) {
	s := create(t, newBucket(t), options(newClock()))
	data := noise(8, 3*mib)
	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	// At one byte a second the second unit has to wait for days; the end of the context is noticed at once.
	ctx, cancel := context.WithCancel(t.Context())
	var to target
	_, err := s.Restore(ctx, disk(t, s, "1"), &to, recovery.RestoreOptions{Rate: recovery.NewRate(1), Progress: func(int64, int64) { cancel() }})
	if !errors.Is(err, context.Canceled) || to.written > mib+cs {
		t.Errorf("%d bytes were written, %v", to.written, err)
	}
	if _, err := s.Restore(t.Context(), disk(t, s, "1"), &to, recovery.RestoreOptions{Rate: recovery.NewRate(1 << 40)}); err != nil || !bytes.Equal(to.data, data) {
		t.Errorf("at a high rate: %v", err)
	}
}

// Damage stops a restore in place too, and nothing wrong is written.
func TestRestoreInPlaceOfDamage(t *testing.T) {
	b := objectstest.NewMemory()
	s := create(t, b, options(newClock()))
	data := noise(9, 4*cs)
	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	for object, err := range b.List(t.Context(), "packs/") {
		if err != nil {
			t.Fatal(err)
		}
		if content := contentOf(t, b, object.Name); len(content) > 4*cs { // not the manifest's
			content[32+2*cs] ^= 1
			b.Replace(object.Name, content)
		}
	}
	to := &used{}
	to.data = bytes.Clone(data)
	if _, err := s.Restore(t.Context(), disk(t, s, "1"), to, recovery.RestoreOptions{InPlace: true}); err != nil || to.written != 0 {
		t.Errorf("nothing of the store is needed, and yet: %v", err)
	}
	clear(to.data)
	_, err := s.Restore(t.Context(), disk(t, s, "1"), to, recovery.RestoreOptions{InPlace: true})
	var damage *recovery.DamageError
	if !errors.As(err, &damage) || damage.Disk != "os" || damage.Length != cs {
		t.Fatalf("error %v", err)
	}
	for off := 0; off < len(data); off += cs {
		got := to.data[off : off+cs]
		if !bytes.Equal(got, data[off:off+cs]) && bytes.Count(got, []byte{0}) != cs {
			t.Errorf("wrong bytes at %d", off)
		}
	}
}
