package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
)

// A lock is waited for, since a program that a killed server was starting may hold it for a moment more; a server that
// holds it for longer is another server.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	synctest.Test(t, func(t *testing.T) {
		first, err := lock(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lock(t.Context(), path); err == nil || !strings.Contains(err.Error(), "another server works in this data folder") {
			t.Errorf("a second server is told %v", err)
		}
		second := make(chan *os.File, 1)
		go func() {
			f, err := lock(t.Context(), path)
			if err != nil {
				t.Error(err)
			}
			second <- f
		}()
		synctest.Wait() // it has tried, and waits
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		if f := <-second; f != nil {
			_ = f.Close()
		}
	})
}
