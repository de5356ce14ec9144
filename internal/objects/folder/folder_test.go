package folder_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/objects"
	"kluis/internal/objects/folder"
	"kluis/internal/objects/objectstest"
)

func TestBucket(t *testing.T) {
	objectstest.Run(t, func(t *testing.T) objects.Bucket { return open(t, t.TempDir()) })
}

func TestFaultyIsABucketUntilItFails(t *testing.T) {
	objectstest.Run(t, func(t *testing.T) objects.Bucket {
		return &objectstest.Faulty{Bucket: open(t, t.TempDir())}
	})
}

func TestKeepsAfterReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on", "open")
	f := open(t, dir)
	if err := f.Put(t.Context(), "a/b", 2, strings.NewReader("xy")); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, "a", "b"))
	if err != nil || string(content) != "xy" {
		t.Errorf("the file holds %q, %v", content, err)
	}
	info, err := os.Stat(filepath.Join(dir, "a", "b"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestRemovesWhatDeadWritersLeft(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)

	// A live writer is held in the middle of a Put while the folder is opened again.
	stale := filepath.Join(dir, ".tmp", "STALE")
	if err := os.Mkdir(filepath.Dir(stale), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stale, []byte("half a pack"), 0o600); err != nil {
		t.Fatal(err)
	}
	reached, goOn := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		done <- first.Put(t.Context(), "x", -1, &gate{strings.NewReader("whole"), reached, goOn})
	}()
	<-reached
	open(t, dir)
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("the stale file is still there: %v", err)
	}
	close(goOn)
	if err := <-done; err != nil {
		t.Errorf("the live writer was disturbed: %v", err)
	}
}

// gate stops at the first Read until it may go on.
type gate struct {
	*strings.Reader
	reached, goOn chan struct{}
}

func (g *gate) Read(p []byte) (int, error) {
	if g.reached != nil {
		close(g.reached)
		g.reached = nil
		<-g.goOn
	}
	return g.Reader.Read(p)
}

func TestStaysInside(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	f := open(t, dir)
	if err := os.WriteFile(filepath.Join(outside, "x"), []byte("outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if r, err := f.Get(t.Context(), "link/x", 0, -1); err == nil {
		_ = r.Close()
		t.Error("Get followed a symbolic link out of the folder")
	}
	if err := f.Put(t.Context(), "link/y", 1, strings.NewReader("y")); err == nil {
		t.Error("Put followed a symbolic link out of the folder")
	}
	if err := f.Delete(t.Context(), "link/x"); err == nil {
		t.Error("Delete followed a symbolic link out of the folder")
	}
	if _, err := os.Stat(filepath.Join(outside, "x")); err != nil {
		t.Error(err)
	}
}

func open(t *testing.T, dir string) *folder.Folder {
	t.Helper()
	f, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}
