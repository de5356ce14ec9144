package objectstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"kluis/internal/objects"
)

// Memory is a Bucket in memory, for tests that open very many. It passes Run, as every Bucket.
type Memory struct {
	mu   sync.Mutex
	data map[string][]byte
}

// NewMemory makes an empty bucket.
func NewMemory() *Memory { return &Memory{data: map[string][]byte{}} }

// Clone returns a bucket with the same objects.
func (m *Memory) Clone() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Memory{data: maps.Clone(m.data)}
}

// Replace changes an object behind the back of everybody, to play decay; nil removes it.
func (m *Memory) Replace(name string, content []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if content == nil {
		delete(m.data, name)
		return
	}
	m.data[name] = content
}

// Put stores an object; see objects.Bucket.
func (m *Memory) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	if err := objects.CheckName(name); err != nil {
		return err
	}
	var content bytes.Buffer
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := io.CopyN(&content, r, 64<<10); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	if size >= 0 && int64(content.Len()) != size {
		return fmt.Errorf("put %s: got %d bytes, announced were %d", name, content.Len(), size)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.data[name]; ok {
		return fmt.Errorf("put %s: %w", name, objects.ErrExists)
	}
	m.data[name] = content.Bytes()
	return nil
}

// Get reads a range of an object; see objects.Bucket.
func (m *Memory) Get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if err := errors.Join(objects.CheckName(name), ctx.Err()); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	content, ok := m.data[name]
	size := int64(len(content))
	switch {
	case !ok:
		return nil, fmt.Errorf("get %s: %w", name, objects.ErrNotExist)
	case off < 0 || off > size || n > size-off:
		return nil, fmt.Errorf("get %s: %w", name, objects.ErrTruncated)
	case n < 0:
		n = size - off
	}
	return io.NopCloser(bytes.NewReader(content[off : off+n])), nil
}

// List yields the objects that begin with prefix; see objects.Bucket.
func (m *Memory) List(ctx context.Context, prefix string) iter.Seq2[objects.Object, error] {
	return func(yield func(objects.Object, error) bool) {
		m.mu.Lock()
		all := maps.Clone(m.data)
		m.mu.Unlock()
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if err := ctx.Err(); err != nil {
				yield(objects.Object{}, err)
				return
			}
			if strings.HasPrefix(name, prefix) && !yield(objects.Object{Name: name, Size: int64(len(all[name]))}, nil) {
				return
			}
		}
	}
}

// Delete removes an object; see objects.Bucket.
func (m *Memory) Delete(ctx context.Context, name string) error {
	if err := errors.Join(objects.CheckName(name), ctx.Err()); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.data, name)
	return nil
}

var _ objects.Bucket = (*Memory)(nil)
