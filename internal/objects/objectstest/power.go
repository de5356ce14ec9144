package objectstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"sync"

	"kluis/internal/objects"
)

// ErrPowerLost is the error of every operation after the power has gone.
var ErrPowerLost = errors.New("power lost")

// Power is a Bucket on a medium that loses power. It stores objects by the steps of package folder, and
// knows of each step what of it has reached the medium:
//
//	write a file without a meaning · sync the file · make the folder · sync the folder above ·
//	link the name · sync the folder
//	unlink the name · sync the folder
//
// At the FailAt-th step (counted from 1; 0 means never) everything stops. AfterCrash then says what may be
// on the medium: what was synced is there; of what was not, any part, in any order.
type Power struct {
	FailAt int64
	// Without names a step that is left out, to show what it is for: "sync file" or "sync folder".
	Without string

	mu      sync.Mutex
	steps   int64
	now     map[string]*file // what a process sees
	durable map[string]*file // what the medium has for sure
	folders map[string]bool  // folders that exist, and whether they are there for sure
}

type file struct {
	content []byte
	synced  bool
}

// NewPower makes a bucket whose medium holds what m holds.
func NewPower(m *Memory) *Power {
	p := &Power{now: map[string]*file{}, folders: map[string]bool{".": true}}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, content := range m.data {
		p.now[name] = &file{content, true}
		p.folders[path.Dir(name)] = true
	}
	p.durable = maps.Clone(p.now)
	return p
}

// Steps returns how many steps were taken.
func (p *Power) Steps() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.steps
}

// Failed tells whether the power has gone.
func (p *Power) Failed() bool { return p.FailAt > 0 && p.Steps() >= p.FailAt }

// step does f, unless the power is gone, or goes now.
func (p *Power) step(what string, f func()) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.steps++; p.FailAt > 0 && p.steps >= p.FailAt {
		return ErrPowerLost
	}
	if what != p.Without {
		f()
	}
	return nil
}

// Put stores an object; see objects.Bucket.
func (p *Power) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	if err := objects.CheckName(name); err != nil {
		return err
	}
	content, err := io.ReadAll(&untilCancelled{ctx, r})
	if err != nil {
		return err
	}
	if size >= 0 && int64(len(content)) != size {
		return fmt.Errorf("put %s: got %d bytes, announced were %d", name, len(content), size)
	}
	f, dir, taken := &file{content: content}, path.Dir(name), false
	for _, s := range []struct {
		what string
		do   func()
	}{
		{"write", func() {}},
		{"sync file", func() { f.synced = true }},
		{"make folder", func() { p.folders[dir] = p.folders[dir] || false }},
		{"sync folder", func() { p.folders[dir] = true }},
		{"link", func() {
			if _, taken = p.now[name]; !taken {
				p.now[name] = f
			}
		}},
		{"sync folder", func() { p.syncFolder(dir) }},
	} {
		if err := p.step(s.what, s.do); err != nil {
			return fmt.Errorf("put %s: %w", name, err)
		}
		if taken {
			return fmt.Errorf("put %s: %w", name, objects.ErrExists)
		}
	}
	return nil
}

// syncFolder makes durable which names are in a folder.
func (p *Power) syncFolder(dir string) {
	maps.DeleteFunc(p.durable, func(name string, _ *file) bool { return path.Dir(name) == dir && p.now[name] == nil })
	for name, f := range p.now {
		if path.Dir(name) == dir {
			p.durable[name] = f
		}
	}
}

// Delete removes an object; see objects.Bucket.
func (p *Power) Delete(ctx context.Context, name string) error {
	if err := errors.Join(objects.CheckName(name), ctx.Err()); err != nil {
		return err
	}
	err := p.step("unlink", func() { delete(p.now, name) })
	if err == nil {
		err = p.step("sync folder", func() { p.syncFolder(path.Dir(name)) })
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// Get reads a range of an object; see objects.Bucket.
func (p *Power) Get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	m, err := p.see()
	if err != nil {
		return nil, err
	}
	return m.Get(ctx, name, off, n)
}

// List yields the objects that begin with prefix; see objects.Bucket.
func (p *Power) List(ctx context.Context, prefix string) iter.Seq2[objects.Object, error] {
	return func(yield func(objects.Object, error) bool) {
		m, err := p.see()
		if err != nil {
			yield(objects.Object{}, err)
			return
		}
		m.List(ctx, prefix)(yield)
	}
}

// see returns what a process sees.
func (p *Power) see() (*Memory, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.FailAt > 0 && p.steps >= p.FailAt {
		return nil, ErrPowerLost
	}
	m := NewMemory()
	for name, f := range p.now {
		m.data[name] = f.content
	}
	return m, nil
}

// AfterCrash returns what may be on the medium when the power is back: of each change that was not synced, r
// says whether it has arrived; of a file that was not synced, it says how much.
func (p *Power) AfterCrash(r *rand.Rand) *Memory {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := NewMemory()
	lost := map[string]bool{}
	for _, dir := range slices.Sorted(maps.Keys(p.folders)) {
		lost[dir] = !p.folders[dir] && r.IntN(2) == 0
	}
	names := map[string]bool{}
	for name := range p.now {
		names[name] = true
	}
	for name := range p.durable {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		f := p.durable[name]
		if f != p.now[name] && r.IntN(2) == 0 {
			f = p.now[name]
		}
		if f == nil || lost[path.Dir(name)] {
			continue
		}
		content := f.content
		if !f.synced {
			content = bytes.Clone(content)[:r.IntN(len(content)+1)]
			if len(content) > 0 && r.IntN(2) == 0 { // blocks that were allocated, and not written
				clear(content[r.IntN(len(content)):])
			}
		}
		m.data[name] = content
	}
	return m
}

// untilCancelled reads until the context ends.
type untilCancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c *untilCancelled) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

var _ objects.Bucket = (*Power)(nil)
