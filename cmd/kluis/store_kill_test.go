package main_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// keptStore is a store that is worked on by processes that are killed, and what its points must hold.
type keptStore struct {
	t      *testing.T
	dir    string
	key    string
	image  string
	random *rand.Rand
	points map[string][32]byte // what is listed must be in here, with this content
	maybe  map[string][32]byte // points whose put was killed: they are there or not
	next   int
}

// TestStoreKilledAtRandom kills the real binary at random moments of put, rm and gc, with compaction. After
// each kill nothing is repaired: the next command simply works, and every point that was there is there.
// KLUIS_KILLS sets how many kills; the seed is printed.
func TestStoreKilledAtRandom(t *testing.T) {
	kills := 60
	if n, err := strconv.Atoi(os.Getenv("KLUIS_KILLS")); err == nil {
		kills = n
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	k := &keptStore{t: t, dir: filepath.Join(t.TempDir(), "store"), key: filepath.Join(t.TempDir(), "key"), image: filepath.Join(t.TempDir(), "disk.img"),
		random: rand.New(rand.NewPCG(seed, 0)), points: map[string][32]byte{}, maybe: map[string][32]byte{}}
	k.must("store", "init", k.dir)
	k.change(24 << 20)
	killed := 0
	for round := 0; killed < kills; round++ {
		var dead bool
		switch k.random.IntN(4) {
		case 0, 1:
			dead = k.put()
		case 2:
			dead = k.remove()
		case 3:
			dead = k.collect()
		}
		if dead {
			killed++
		}
		if round%10 == 9 {
			k.check()
		}
	}
	k.check()
	k.must("store", "gc", k.dir, "--grace", "0s")
	k.check()
}

// change writes noise somewhere into the image.
func (k *keptStore) change(n int) {
	k.t.Helper()
	f, err := os.OpenFile(k.image, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		k.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	noise := make([]byte, n)
	for i := 0; i < len(noise); i += 8 {
		word := k.random.Uint64()
		for j := range 8 {
			noise[i+j] = byte(word >> (8 * j))
		}
	}
	if _, err := f.WriteAt(noise, k.random.Int64N(int64(24<<20-n+1))); err != nil {
		k.t.Fatal(err)
	}
}

func (k *keptStore) put() (killed bool) {
	k.change(8 << (10 + k.random.IntN(10)))
	content, err := os.ReadFile(k.image)
	if err != nil {
		k.t.Fatal(err)
	}
	k.next++
	id := fmt.Sprint("p", k.next)
	if killed = k.run("store", "put", k.dir, k.image, "--point", id); killed {
		k.maybe[id] = sha256.Sum256(content)
	} else {
		k.points[id] = sha256.Sum256(content)
	}
	return killed
}

func (k *keptStore) remove() (killed bool) {
	for id := range k.points {
		if killed = k.run("store", "rm", k.dir, id); killed {
			k.maybe[id] = k.points[id]
		}
		delete(k.points, id)
		return killed
	}
	return false
}

func (k *keptStore) collect() (killed bool) {
	return k.run("store", "gc", k.dir, "--grace", "0s", "--min-dead", "0.1")
}

// check compares the list with what must be there, and restores every point.
func (k *keptStore) check() {
	k.t.Helper()
	var listed []struct{ ID string }
	if err := json.Unmarshal(k.must("store", "list", k.dir, "--output", "json"), &listed); err != nil {
		k.t.Fatal(err)
	}
	left := map[string]bool{}
	for id := range k.points {
		left[id] = true
	}
	for _, p := range listed {
		want, ok := k.points[p.ID]
		if !ok {
			if want, ok = k.maybe[p.ID]; !ok {
				k.t.Fatalf("point %s should not be there", p.ID)
			}
			k.points[p.ID] = want
		}
		delete(left, p.ID)
		out := filepath.Join(k.t.TempDir(), "out.img")
		k.must("store", "get", k.dir, p.ID, out)
		content, err := os.ReadFile(out)
		if err != nil {
			k.t.Fatal(err)
		}
		if sha256.Sum256(content) != want {
			k.t.Fatalf("point %s holds other bytes than were put", p.ID)
		}
		if err := os.Remove(out); err != nil {
			k.t.Fatal(err)
		}
	}
	for id := range left {
		k.t.Fatalf("point %s is lost", id)
	}
	clear(k.maybe)
	k.must("store", "check", k.dir, "--read-data")
}

// must runs a command to its end.
func (k *keptStore) must(args ...string) []byte {
	k.t.Helper()
	cmd := k.command(args)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		k.t.Fatalf("kluis %v: %v\n%s", args, err, errs.String())
	}
	return out.Bytes()
}

// run runs a command and kills it at a random moment, unless it is over by then. A command that ends by
// itself must end well.
func (k *keptStore) run(args ...string) (killed bool) {
	k.t.Helper()
	cmd := k.command(args)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	moment := time.AfterFunc(time.Duration(k.random.Int64N(int64(150*time.Millisecond))), func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	moment.Stop()
	if err == nil {
		return false
	}
	if cmd.ProcessState.Exited() {
		k.t.Fatalf("kluis %v: %v\n%s", args, err, errs.String())
	}
	return true
}

func (k *keptStore) command(args []string) *exec.Cmd {
	path, err := binary()
	if err != nil {
		k.t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "KLUIS_STORE_KEY_FILE="+k.key)
	return cmd
}
