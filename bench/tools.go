package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// kluis is the store of the binary that is measured.
type kluis struct {
	b          *bench
	store, key string
	env        []string

	first, increment, rescan, restore, verify measured
	read, growth, growth5                     int64
}

func newKluis(b *bench, name string) *kluis {
	k := &kluis{b: b, store: b.path("kluis-" + name), key: b.path("kluis-" + name + ".key")}
	k.env = []string{"KLUIS_STORE_KEY_FILE=" + k.key}
	return k
}

func (k *kluis) init(ctx context.Context) error {
	return quiet(ctx, k.env, k.b.kluis, "store", "init", k.store)
}

// put measures a put and returns by how much the store grew.
func (k *kluis) put(ctx context.Context, m *measured, image string, flags ...string) (grown int64, err error) {
	before, err := treeSize(k.store)
	if err != nil {
		return 0, err
	}
	command := append([]string{k.b.kluis, "store", "put", k.store, image, "--output", "json"}, flags...)
	if err := k.b.measure(ctx, m, []string{image}, k.env, command...); err != nil {
		return 0, err
	}
	after, err := treeSize(k.store)
	return after - before, err
}

func (k *kluis) round(ctx context.Context, a imageA) (err error) {
	if err := k.init(ctx); err != nil {
		return err
	}
	if _, err := k.put(ctx, &k.first, a.first, "--point", "1"); err != nil {
		return err
	}
	if k.growth, err = k.put(ctx, &k.increment, a.second, "--parent", "1", "--changed", a.list); err != nil {
		return err
	}
	var counted struct{ Read int64 }
	if err := decode(k.increment.output, &counted); err != nil {
		return err
	}
	k.read = counted.Read
	if _, err := k.put(ctx, &k.rescan, a.third, "--parent", "1"); err != nil {
		return err
	}
	out := k.b.path("kluis.img")
	if err := k.b.measure(ctx, &k.restore, []string{k.store}, k.env, k.b.kluis, "store", "get", k.store, "1", out, "--output", "json"); err != nil {
		return err
	}
	if err := quiet(ctx, nil, "cmp", a.first, out); err != nil {
		return fmt.Errorf("what was restored differs: %w", err)
	}
	if err := os.Remove(out); err != nil {
		return err
	}
	// What restic is asked to verify is two points; so is this.
	if err := k.b.measure(ctx, &k.verify, []string{k.store}, k.env, k.b.kluis, "store", "check", k.store, "--read-data", "--output", "json"); err != nil {
		return err
	}
	var m measured
	if k.growth5, err = k.put(ctx, &m, a.fifth, "--parent", "1"); err != nil {
		return err
	}
	return os.RemoveAll(k.store)
}

// restic with a repository of its own.
type restic struct {
	b    *bench
	repo string
	env  []string

	first, increment, restore, verify measured
	growth                            int64
}

func newRestic(b *bench, name string) *restic {
	r := &restic{b: b, repo: b.path("restic-" + name)}
	r.env = []string{"RESTIC_REPOSITORY=" + r.repo, "RESTIC_PASSWORD=bench", "RESTIC_CACHE_DIR=" + b.path("restic-cache-"+name)}
	return r
}

func (r *restic) init(ctx context.Context) error { return quiet(ctx, r.env, "restic", "init") }

func (r *restic) round(ctx context.Context, a imageA) error {
	if err := r.init(ctx); err != nil {
		return err
	}
	if err := r.b.measure(ctx, &r.first, []string{a.first}, r.env, "restic", "backup", "-q", "--tag", "first", a.first); err != nil {
		return err
	}
	before, err := treeSize(r.repo)
	if err != nil {
		return err
	}
	if err := r.b.measure(ctx, &r.increment, []string{a.second}, r.env, "restic", "backup", "-q", a.second); err != nil {
		return err
	}
	after, err := treeSize(r.repo)
	if err != nil {
		return err
	}
	r.growth = after - before
	out := r.b.path("restic-out")
	if err := r.b.measure(ctx, &r.restore, []string{r.repo}, r.env, "restic", "restore", "-q", "latest", "--tag", "first", "--target", out); err != nil {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	if err := r.b.measure(ctx, &r.verify, []string{r.repo}, r.env, "restic", "check", "-q", "--read-data"); err != nil {
		return err
	}
	return os.RemoveAll(r.repo)
}

// borg with a repository of its own and fixed chunks, as its documentation advises for disk images.
type borg struct {
	b    *bench
	repo string
	env  []string

	first, increment measured
	growth           int64
}

func newBorg(b *bench, name string) *borg {
	g := &borg{b: b, repo: b.path("borg-" + name)}
	g.env = []string{"BORG_REPO=" + g.repo, "BORG_PASSPHRASE=bench", "BORG_BASE_DIR=" + b.path("borg-base-"+name)}
	return g
}

func (g *borg) round(ctx context.Context, a imageA) error {
	if err := quiet(ctx, g.env, "borg", "init", "--encryption", "repokey-blake2"); err != nil {
		return err
	}
	if err := g.create(ctx, &g.first, "first", a.first); err != nil {
		return err
	}
	before, err := treeSize(g.repo)
	if err != nil {
		return err
	}
	if err := g.create(ctx, &g.increment, "second", a.second); err != nil {
		return err
	}
	after, err := treeSize(g.repo)
	if err != nil {
		return err
	}
	g.growth = after - before
	return os.RemoveAll(g.repo)
}

func (g *borg) create(ctx context.Context, m *measured, archive, image string) error {
	return g.b.measure(ctx, m, []string{image}, g.env, "borg", "create", "--sparse", "--chunker-params", "fixed,4194304", "::"+archive, image)
}

// quiet runs a command that is not measured.
func quiet(ctx context.Context, env []string, command ...string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", command[0], err, out)
	}
	return nil
}
