package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// bench is one run of everything.
type bench struct {
	options
	dir   string
	cold  bool // the page cache could be emptied before every step
	table      // the first one, of the store

	notes   []string
	nbd     table
	machine *machine
	proofs  []proof

	asked  []*asked
	served []string // what is said of the server's start and memory
	rsa    float64  // private operations of RSA 3072 a second, by openssl on all processors
}

// row is a line of the table: a figure beside what it should be at least or at most.
type row struct {
	what, against string
	ratio         float64
	limit         float64
	atLeast       bool
	figures       string
}

func (r row) reached() bool {
	if r.atLeast {
		return r.ratio >= r.limit
	}
	return r.ratio <= r.limit
}

func newBench(o options, dir string) (_ *bench, err error) {
	o.kluis, err = filepath.Abs(o.kluis)
	return &bench{options: o, dir: dir, cold: true}, err
}

// need fails if a program is not there.
func need(tools ...string) error {
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w; 'make bench' installs what is needed", err)
		}
	}
	return nil
}

func (b *bench) path(name ...string) string {
	return filepath.Join(append([]string{b.dir}, name...)...)
}

// table is rows beside each other.
type table struct{ rows []row }

// atMost and atLeast add a row for a ratio.
func (t *table) atMost(what, against string, ratio, limit float64, figures string) {
	t.rows = append(t.rows, row{what, against, ratio, limit, false, figures})
}

func (t *table) atLeast(what, against string, ratio, limit float64, figures string) {
	t.rows = append(t.rows, row{what, against, ratio, limit, true, figures})
}

// ratio of two durations.
func ratio(a, b time.Duration) float64 { return a.Seconds() / b.Seconds() }

func beside(a, b time.Duration) string {
	return fmt.Sprintf("%.2f s, %.2f s", a.Seconds(), b.Seconds())
}

// say tells what is being done: a run takes some minutes.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// ciphertext measures the life of image A: ciphertext on 60 percent of it, holes elsewhere.
func (b *bench) ciphertext(ctx context.Context) error {
	say("make image A, and what becomes of it")
	a, err := b.makeA()
	if err != nil {
		return err
	}
	cp, durable, twice := &measured{}, &measured{}, &measured{}
	k, r, g := newKluis(b, "a"), newRestic(b, "a"), newBorg(b, "a")
	for round := range b.rounds {
		say("round %d of %d", round+1, b.rounds)
		out := b.path("copy.img")
		if err := b.measure(ctx, cp, []string{a.first}, nil, "cp", "--sparse=always", a.first, out); err != nil {
			return err
		}
		if err := os.Remove(out); err != nil {
			return err
		}
		if err := b.measure(ctx, durable, []string{a.first}, nil, "sh", "-c", `cp --sparse=always "$0" "$1" && sync "$1"`, a.first, out); err != nil {
			return err
		}
		if err := os.Remove(out); err != nil {
			return err
		}
		if err := b.measure(ctx, twice, []string{a.second}, nil, "sh", "-c", `cat "$0" "$0" >/dev/null`, a.second); err != nil {
			return err
		}
		for _, tool := range []interface {
			round(context.Context, imageA) error
		}{k, r, g} {
			if err := tool.round(ctx, a); err != nil {
				return err
			}
		}
	}
	b.compare(a, copies{cp.median().wall, durable.median().wall}, twice, k, r, g)
	return nil
}

// imageA is an image and what became of it.
type imageA struct {
	first         string   // as it was
	second, third string   // 1 percent later, twice, each from first on
	fifth         string   // 5 percent later
	list          string   // of what changed in second, as a dirty bitmap tells it
	changed       []extent // the same
	changed3      []extent // what changed in third
	changed5      []extent // what changed in fifth
}

func (b *bench) makeA() (a imageA, err error) {
	for _, name := range []string{"first", "second", "third", "fifth"} {
		if err := os.Mkdir(b.path(name), 0o700); err != nil {
			return a, err
		}
	}
	a = imageA{first: b.path("first", "a.img"), second: b.path("second", "a.img"), third: b.path("third", "a.img"), fifth: b.path("fifth", "a.img"), list: b.path("changed.json")}
	used, err := makeImage(a.first, b.size, 0.6, 1)
	if err != nil {
		return a, err
	}
	one := b.size / 100
	for _, next := range []struct {
		path    string
		bytes   int64
		changed *[]extent
		seed    uint64
	}{{a.second, one, &a.changed, 2}, {a.third, one, &a.changed3, 3}, {a.fifth, 5 * one, &a.changed5, 5}} {
		if out, err := exec.Command("cp", "--sparse=always", a.first, next.path).CombinedOutput(); err != nil {
			return a, fmt.Errorf("copy image: %w\n%s", err, out)
		}
		if *next.changed, err = change(next.path, used, next.bytes, next.seed); err != nil {
			return a, err
		}
	}
	return a, writeExtents(a.list, bitmap(a.changed))
}

// copies is what a copy of the image takes: until cp ends, and until the copy is on the disk.
type copies struct{ cached, durable time.Duration }

// compare fills the table with what the issue of speed and growth is about.
func (b *bench) compare(a imageA, cp copies, twice *measured, k *kluis, r *restic, g *borg) {
	wall := func(m *measured) time.Duration { return m.median().wall }
	b.atMost("first backup of A, durable", "cp --sparse=always and sync", ratio(wall(&k.first), cp.durable), 1.2, beside(wall(&k.first), cp.durable))
	b.atMost("first backup of A, durable", "cp --sparse=always, into the page cache", ratio(wall(&k.first), cp.cached), 1.2, beside(wall(&k.first), cp.cached))
	b.atLeast("first backup of A", "restic, its time over ours", ratio(wall(&r.first), wall(&k.first)), 8, beside(wall(&r.first), wall(&k.first)))
	b.atLeast("first backup of A", "borg with fixed chunks, its time over ours", ratio(wall(&g.first), wall(&k.first)), 5, beside(wall(&g.first), wall(&k.first)))
	changed := sum(a.changed)
	listed := sum(bitmap(a.changed))
	b.atMost("increment of 1%, list given: bytes read", "changed extents, as a dirty bitmap lists them", float64(k.read)/float64(listed), 1.3,
		fmt.Sprintf("%s, %s", amount(k.read), amount(listed)))
	b.atLeast("increment of 1%, list given", "restic, its time over ours", ratio(wall(&r.increment), wall(&k.increment)), 20, beside(wall(&r.increment), wall(&k.increment)))
	b.atLeast("increment of 1%, no list", "restic, its time over ours", ratio(wall(&r.increment), wall(&k.rescan)), 10, beside(wall(&r.increment), wall(&k.rescan)))
	b.atMost("increment of 1%, no list", "reading the image twice", ratio(wall(&k.rescan), wall(twice)), 1, beside(wall(&k.rescan), wall(twice)))
	b.atMost("growth by an increment of 1%", "changed bytes", float64(k.growth)/float64(changed), 2,
		fmt.Sprintf("%s of %s; restic %s, borg %s", amount(k.growth), amount(changed), amount(r.growth), amount(g.growth)))
	b.atMost("growth by an increment of 5%", "changed bytes", float64(k.growth5)/float64(sum(a.changed5)), 2, fmt.Sprintf("%s of %s", amount(k.growth5), amount(sum(a.changed5))))
	b.atLeast("restore of A", "restic, its time over ours", ratio(wall(&r.restore), wall(&k.restore)), 8, beside(wall(&r.restore), wall(&k.restore)))
	b.atMost("restore of A", "cp --sparse=always", ratio(wall(&k.restore), cp.cached), 1.8, beside(wall(&k.restore), cp.cached))
	b.atLeast("verify the content of A", "restic check --read-data, its time over ours", ratio(wall(&r.verify), wall(&k.verify)), 8, beside(wall(&r.verify), wall(&k.verify)))
	first, restored, checked := k.first.median(), k.restore.median(), k.verify.median()
	b.notes = append(b.notes,
		fmt.Sprintf("The first backup took %.2f s, of which the %d processors had work for %.2f s; the disk takes the same bytes in %.2f s (a copy that is synced). "+
			"So the disk decides, and a first backup can be %.1f times as fast as restic's here, and %.1f times as fast as borg's, and no more.",
			first.wall.Seconds(), runtime.NumCPU(), first.busy().Seconds(), cp.durable.Seconds(), ratio(wall(&r.first), cp.durable), ratio(wall(&g.first), cp.durable)),
		fmt.Sprintf("The restore took %.2f s, of which the processors had work for %.2f s: %.2f s of that in the kernel, which copies the bytes twice, as it does for cp. "+
			"cp itself is %.1f times as fast as restic's restore.",
			restored.wall.Seconds(), restored.busy().Seconds(), (restored.system/time.Duration(runtime.NumCPU())).Seconds(), ratio(wall(&r.restore), cp.cached)),
		fmt.Sprintf("The check read, opened (AES-256-GCM) and hashed (BLAKE3) %s in %.2f s, of which the processors had work for %.2f s.",
			amount(int64(0.6*float64(b.size))), checked.wall.Seconds(), checked.busy().Seconds()))
	b.memory("first backup of A", &k.first)
	b.memory("increment, list given", &k.increment)
	b.memory("increment, no list", &k.rescan)
	b.memory("restore of A", &k.restore)
	b.memory("verify the content of A", &k.verify)
}

func (b *bench) memory(what string, m *measured) {
	peak := m.median().memory
	b.atMost("peak memory: "+what, "128 MiB", float64(peak)/float64(128*mib), 1, amount(peak))
}

// huge measures an increment of 1 GiB on a disk of 4 TiB beside the same on one of 40 GiB.
func (b *bench) huge(ctx context.Context) error {
	say("increments of huge disks")
	var large, small measured
	var grownLarge, grownSmall int64
	for round := range b.rounds {
		for _, disk := range []struct {
			size  int64
			m     *measured
			grown *int64
		}{{40 << 30, &small, &grownSmall}, {4 << 40, &large, &grownLarge}} {
			var err error
			if *disk.grown, err = b.hugeIncrement(ctx, disk.m, disk.size, round); err != nil {
				return err
			}
		}
	}
	l, s := large.median(), small.median()
	b.atMost("increment of 1 GiB on 4 TiB", "the same on 40 GiB", ratio(l.wall, s.wall), 1.5, beside(l.wall, s.wall))
	b.atMost("its growth", "the same on 40 GiB", float64(grownLarge)/float64(grownSmall), 1.5, fmt.Sprintf("%s, %s", amount(grownLarge), amount(grownSmall)))
	b.memory("4 TiB disk", &large)
	return nil
}

// hugeIncrement backs up a sparse disk with 1 GiB of data spread over it, writes all of that anew, and
// measures the increment. It returns by how much the store grew.
func (b *bench) hugeIncrement(ctx context.Context, m *measured, size int64, round int) (grown int64, err error) {
	dir, err := os.MkdirTemp(b.dir, "huge-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	img, list, k := filepath.Join(dir, "disk.img"), filepath.Join(dir, "changed.json"), newKluis(b, filepath.Base(dir))
	extents := make([]extent, 0, 1024)
	for i := range int64(1024) {
		extents = append(extents, extent{i * (size / 1024) &^ (mib - 1), mib})
	}
	if err := writeExtents(list, extents); err != nil {
		return 0, err
	}
	if err := fill(img, size, extents, uint64(round)*2); err != nil {
		return 0, err
	}
	if err := k.init(ctx); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(k.store)) }()
	if err := b.measure(ctx, &k.first, nil, k.env, b.kluis, "store", "put", k.store, img, "--point", "1", "--output", "json"); err != nil {
		return 0, err
	}
	if err := fill(img, size, extents, uint64(round)*2+1); err != nil {
		return 0, err
	}
	before, err := treeSize(k.store)
	if err != nil {
		return 0, err
	}
	if err := b.measure(ctx, m, []string{img}, k.env, b.kluis, "store", "put", k.store, img, "--parent", "1", "--changed", list, "--output", "json"); err != nil {
		return 0, err
	}
	after, err := treeSize(k.store)
	return after - before, err
}

// fill writes ciphertext over extents of an image of size bytes.
func fill(path string, size int64, extents []extent, seed uint64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := f.Truncate(size); err != nil {
		return err
	}
	stream, buf := noise(seed+77), make([]byte, mib)
	for _, e := range extents {
		stream.XORKeyStream(buf, buf)
		if _, err := f.WriteAt(buf[:e.Length], e.Offset); err != nil {
			return err
		}
	}
	return f.Sync()
}

// mixed measures how small a file system full of programs and documents becomes.
func (b *bench) mixed(ctx context.Context) error {
	say("an image full of files")
	img := b.path("b.img")
	if err := makeMixed(ctx, img, b.size); err != nil {
		return err
	}
	k, r := newKluis(b, "b"), newRestic(b, "b")
	if err := errors.Join(k.init(ctx), r.init(ctx)); err != nil {
		return err
	}
	if err := b.measure(ctx, &k.first, []string{img}, k.env, b.kluis, "store", "put", k.store, img, "--output", "json"); err != nil {
		return err
	}
	if err := b.measure(ctx, &r.first, []string{img}, r.env, "restic", "backup", "-q", img); err != nil {
		return err
	}
	ours, err := treeSize(k.store)
	if err != nil {
		return err
	}
	theirs, err := treeSize(r.repo)
	if err != nil {
		return err
	}
	b.atMost("image B (ext4 with files): stored size", "restic", float64(ours)/float64(theirs), 1.1, fmt.Sprintf("%s, %s", amount(ours), amount(theirs)))
	b.atLeast("image B: first backup", "restic, its time over ours", ratio(r.first.median().wall, k.first.median().wall), 1, beside(r.first.median().wall, k.first.median().wall))
	return nil
}

func decode(output []byte, v any) error {
	if err := json.Unmarshal(output, v); err != nil {
		return fmt.Errorf("read what was printed: %w\n%s", err, output)
	}
	return nil
}
