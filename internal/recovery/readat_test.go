package recovery_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"kluis/internal/nbd"
	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
	"kluis/internal/tooltest"
)

// islands is a disk of several leaves, most of it holes.
func islands(n int) []byte {
	data := make([]byte, n)
	for off := 3 * cs; off < n; off += 17 * mib {
		copy(data[off:min(off+5*mib+777, n)], mixed(uint64(off), 5*mib+777))
	}
	copy(data[n-100:], noise(1, 100))
	return data
}

func TestReadAtAnywhere(t *testing.T) {
	s := create(t, newBucket(t), options(newClock()))
	data := islands(130*mib + 999)
	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	d := disk(t, s, "1")
	t.Run("from many goroutines", func(t *testing.T) {
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(3, uint64(i)))
				p := make([]byte, 3*mib)
				for range 60 {
					got := p[:1+r.IntN([]int{4096, cs, 3 * mib}[r.IntN(3)]-1)]
					off := r.IntN(len(data) - len(got))
					if n, err := d.ReadAt(got, int64(off)); n != len(got) || err != nil || !bytes.Equal(got, data[off:off+n]) {
						t.Errorf("%d bytes at %d: %d, %v", len(got), off, n, err)
					}
				}
			})
		}
		wg.Wait()
	})
	t.Run("one after the other", func(t *testing.T) {
		got, err := io.ReadAll(io.NewSectionReader(d, 0, d.Size())) // 512 bytes and more at a time
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("another disk, %v", err)
		}
	})
}

func TestNextData(t *testing.T) {
	s := create(t, newBucket(t), options(newClock()))
	data := islands(130*mib + 999)
	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	d := disk(t, s, "1")
	zero := func(off, n int64) bool { return bytes.Count(data[off:off+n], []byte{0}) == int(n) }
	rapid.Check(t, func(t *rapid.T) {
		off := rapid.Int64Range(0, d.Size()+cs).Draw(t, "off")
		start, n, err := d.NextData(t.Context(), off)
		switch {
		case err != nil:
			t.Fatal(err)
		case n == 0 && (off >= d.Size() || zero(off, d.Size()-off)):
		case n == 0, start < off, start+n > d.Size():
			t.Fatalf("after %d come %d bytes at %d", off, n, start)
		case !zero(off, start-off):
			t.Fatalf("there is data between %d and %d", off, start)
		case start > off && start%cs != 0, zero(start/cs*cs, min(cs, d.Size()-start/cs*cs)):
			t.Fatalf("no data at %d", start)
		}
	})
	// All of them are the extents.
	var all, want []recovery.Extent
	for off := int64(0); ; {
		start, n, err := d.NextData(t.Context(), off)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		if last := len(all) - 1; last >= 0 && all[last].Offset+all[last].Length == start {
			all[last].Length += n
		} else {
			all = append(all, recovery.Extent{Offset: start, Length: n})
		}
		off = start + n
	}
	for e, err := range d.Extents(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, e)
	}
	if fmt.Sprint(all) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", all, want)
	}
	backup(t, s, "empty", &image{data: make([]byte, mib)}, recovery.DiskOptions{})
	if _, n, err := disk(t, s, "empty").NextData(t.Context(), 0); n != 0 || err != nil {
		t.Errorf("a disk without data: %d, %v", n, err)
	}
}

// What is read ahead may be damaged without disturbing who reads what is not.
func TestReadAtBesideDamage(t *testing.T) {
	b := objectstest.NewMemory()
	s := create(t, b, options(newClock()))
	data := noise(11, 8*cs)
	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	d := disk(t, s, "1")
	bad := int64(-1)
	for object, err := range b.List(t.Context(), "packs/") {
		if err != nil {
			t.Fatal(err)
		}
		if content := contentOf(t, b, object.Name); len(content) > 8*cs {
			at := bytes.Index(content, content[32+5*cs:][:64])
			content[at] ^= 1
			b.Replace(object.Name, content)
		}
	}
	p := make([]byte, 4096)
	for off := int64(0); off < int64(len(data)); off += int64(len(p)) {
		_, err := d.ReadAt(p, off)
		var damage *recovery.DamageError
		switch {
		case err == nil && !bytes.Equal(p, data[off:off+int64(len(p))]):
			t.Fatalf("wrong bytes at %d", off)
		case err == nil:
		case !errors.As(err, &damage) || damage.Length != cs || off < damage.Offset || off >= damage.Offset+cs:
			t.Fatalf("read at %d: %v", off, err)
		case bad >= 0 && bad != damage.Offset:
			t.Fatalf("damage at %d and at %d", bad, damage.Offset)
		default:
			bad = damage.Offset
		}
	}
	if bad < 0 {
		t.Error("nobody noticed the damage")
	}
}

// exported offers a point's disk on a socket.
func exported(t testing.TB, d *recovery.Disk) (uri string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd") // names of sockets must be short
	if err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	server := nbd.NewServer(nbd.ServerOptions{})
	release := d.Hold()
	if err := server.Offer(nbd.Export{Name: "disk", Disk: d}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
		release()
		_ = os.RemoveAll(dir)
	})
	return "nbd+unix:///disk?socket=" + sock
}

func tool(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}

// A machine can run from a recovery point at once: its writes go to an overlay, and what it has not written
// comes from the store.
func TestInstantRestore(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-io", "nbdcopy")
	s := create(t, newBucket(t), options(newClock()))
	data := mixed(12, 20*mib)
	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	uri := exported(t, disk(t, s, "1"))
	dir := t.TempDir()
	raw, overlay, copied := filepath.Join(dir, "raw"), filepath.Join(dir, "overlay.qcow2"), filepath.Join(dir, "copied")
	if err := os.WriteFile(raw, data, 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", uri, overlay)
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, overlay)

	for _, write := range []string{"write -P 0x5a 1000k 300k", "write -P 0x11 19M 1M", "write -z 4M 100k"} {
		tool(t, "qemu-io", "-f", "qcow2", "-c", write, overlay)
		tool(t, "qemu-io", "-f", "raw", "-c", write, raw)
	}
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, overlay)
	// The point has not changed, and the rest can be pulled out of the store while the machine runs.
	tool(t, "nbdcopy", uri, copied)
	if got, err := os.ReadFile(copied); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the point's disk is another one now: %v", err)
	}
	tool(t, "qemu-img", "rebase", "-f", "qcow2", "-b", "", overlay)
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, overlay)
}
