package folder_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"kluis/internal/objects"
	"kluis/internal/objects/folder"
)

func TestLock(t *testing.T) {
	f, err := folder.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	inner, ok := objects.Prefix(f, "stores/1").(objects.Locker)
	if !ok {
		t.Fatal("a bucket within a folder has no lock")
	}
	unlock, err := inner.Lock("owner")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Lock("stores/1/owner"); !errors.Is(err, objects.ErrLocked) {
		t.Errorf("second lock: %v", err)
	}
	for _, other := range []string{"owner", "stores/2/owner"} {
		free, err := f.Lock(other)
		if err != nil {
			t.Fatal(err)
		}
		if err := free(); err != nil {
			t.Error(err)
		}
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if unlock, err = inner.Lock("owner"); err != nil {
		t.Fatal(err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
	if _, err := f.Lock("../x"); err == nil {
		t.Error("took the name ../x")
	}
	for o := range f.List(t.Context(), "") {
		t.Errorf("%s is listed", o.Name)
	}
}

// A lock ends with the process that holds it, however that ends.
func TestLockDiesWithTheProcess(t *testing.T) {
	if dir := os.Getenv("KLUIS_LOCK_DIR"); dir != "" {
		f, err := folder.Open(dir)
		if err == nil {
			_, err = f.Lock("owner")
		}
		fmt.Println(err)
		_, _ = io.ReadAll(os.Stdin) // until it is killed
		return
	}
	dir := t.TempDir()
	f, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	cmd := exec.Command(os.Args[0], "-test.run=^TestLockDiesWithTheProcess$")
	cmd.Env = append(os.Environ(), "KLUIS_LOCK_DIR="+dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stdin.Close() }()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said string
	if _, err := fmt.Fscanln(stdout, &said); err != nil || said != "<nil>" {
		t.Errorf("the other process could not lock: %q, %v", said, err)
	}
	if _, err := f.Lock("owner"); !errors.Is(err, objects.ErrLocked) {
		t.Errorf("while the other lives: %v", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	unlock, err := f.Lock("owner")
	if err != nil {
		t.Fatalf("after its death: %v", err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
}
