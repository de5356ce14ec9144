package folder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"

	"kluis/internal/objects"
)

// List yields the objects that begin with prefix; see objects.Bucket. It reads one folder at a time, so
// objects that come or go meanwhile may be listed or not.
func (f *Folder) List(ctx context.Context, prefix string) iter.Seq2[objects.Object, error] {
	return func(yield func(objects.Object, error) bool) {
		dir := "."
		if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
			dir = path.Clean(prefix[:i])
			if objects.CheckName(prefix[:i]) != nil {
				return // no object can have such a name
			}
		}
		f.walk(ctx, dir, prefix, yield)
	}
}

// walk yields the objects in dir and below; false means that the caller wants no more.
func (f *Folder) walk(ctx context.Context, dir, prefix string, yield func(objects.Object, error) bool) bool {
	if err := ctx.Err(); err != nil {
		yield(objects.Object{}, err)
		return false
	}
	entries, err := fs.ReadDir(f.root.FS(), dir)
	if isNotExist(err) {
		return true
	} else if err != nil {
		yield(objects.Object{}, fmt.Errorf("list: %w", err))
		return false
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(sortKey(a), sortKey(b)) })
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		switch {
		case objects.CheckName(name) != nil:
		case e.IsDir():
			if strings.HasPrefix(name+"/", prefix) || strings.HasPrefix(prefix, name+"/") {
				if !f.walk(ctx, name, prefix, yield) {
					return false
				}
			}
		case e.Type().IsRegular() && strings.HasPrefix(name, prefix):
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				yield(objects.Object{}, fmt.Errorf("list: %w", err))
				return false
			}
			if !yield(objects.Object{Name: name, Size: info.Size()}, nil) {
				return false
			}
		}
	}
	return true
}

// sortKey makes a folder sort where the names of the objects in it do: "a-b" < "a/x" < "a0".
func sortKey(e fs.DirEntry) string {
	if e.IsDir() {
		return e.Name() + "/"
	}
	return e.Name()
}
