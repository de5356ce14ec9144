package main_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kluis/internal/client"
	"kluis/internal/database/databasetest"
	"kluis/test/guest"
	"kluis/test/stage"
)

// The tests of this package run the real binary and speak to it as a client does.

var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kluis-binary-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "kluis")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build kluis: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	guest.End()
	os.Exit(code)
}

// server is a running kluis with a data folder of its own.
type server struct {
	t      *testing.T
	dir    string // the data folder
	images string // the folder it may read images from
	args   []string
	user   *syscall.Credential // as whom it runs; nil: as whoever runs the test
	cmd    *exec.Cmd
	log    *stage.Log
	exited chan error
	*client.Client
}

// storeVariable names a bucket, in which each server then keeps its backups under a prefix of its own. The
// module test/cloud sets it.
const storeVariable = "KLUIS_TEST_STORE"

// newServer starts a server on a fresh data folder. The test ends it.
func newServer(t *testing.T, databaseURL string, args ...string) *server {
	t.Helper()
	return newServerAs(t, nil, databaseURL, args...)
}

// newServerAs is newServer as another user.
func newServerAs(t *testing.T, user *syscall.Credential, databaseURL string, args ...string) *server {
	t.Helper()
	s := &server{user: user, t: t, dir: filepath.Join(t.TempDir(), "data"), images: t.TempDir()}
	s.args = append([]string{"serve", "--data", s.dir, "--listen", "127.0.0.1:0", "--allow-images", s.images, "--log-level", "info"}, args...)
	if place := os.Getenv(storeVariable); place != "" {
		at, query, _ := strings.Cut(place, "?")
		s.args = append(s.args, "--store", at+"/"+hexOf(8)+"?"+query)
	}
	if databaseURL != "" {
		s.args = append(s.args, "--database", databaseURL)
	}
	if user != nil {
		s.handOver(int(user.Uid))
	}
	s.start()
	t.Cleanup(func() {
		if s.cmd != nil {
			s.stop()
		}
		if t.Failed() {
			t.Logf("log of the server:\n%s", s.log)
		}
	})
	return s
}

// handOver lets a user at what the server needs.
func (s *server) handOver(uid int) {
	s.t.Helper()
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chown(s.dir, uid, -1); err != nil {
		s.t.Fatal(err)
	}
	for _, dir := range []string{filepath.Dir(s.dir), s.images, filepath.Dir(must[string](s.t)(binary()))} {
		guest.Open(s.t, dir)
	}
}

// start runs the binary until it says that it is ready.
func (s *server) start() {
	s.t.Helper()
	path, err := binary()
	if err != nil {
		s.t.Fatal(err)
	}
	if s.log == nil {
		s.log = &stage.Log{}
	}
	s.cmd = exec.Command(path, s.args...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user}
	s.cmd.Stderr = s.log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ready := make(chan bool, 1)
	s.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan error) {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "ready https://") {
				ready <- true
			}
		}
		exited <- cmd.Wait()
	}(s.cmd, s.exited)
	select {
	case <-ready:
	case err := <-s.exited:
		s.cmd = nil
		s.t.Fatalf("the server ended before it was ready: %v\n%s", err, s.log)
	}
	admin, err := client.ReadAdmin(filepath.Join(s.dir, "admin.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	if s.Client, err = client.New(admin); err != nil {
		s.t.Fatal(err)
	}
}

// stop is Ctrl-C: the server must end by itself, and well.
func (s *server) stop() {
	s.t.Helper()
	_ = s.cmd.Process.Signal(os.Interrupt)
	if err := <-s.exited; err != nil {
		s.t.Errorf("the server did not stop well: %v\n%s", err, s.log)
	}
	s.cmd = nil
}

// kill is SIGKILL.
func (s *server) kill() {
	s.t.Helper()
	_ = s.cmd.Process.Kill()
	err := <-s.exited
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		s.t.Fatalf("the server was not killed but ended: %v", err)
	}
	s.cmd = nil
}

// eachDatabase runs f with the URL of each database; SQLite is the default and has none.
func eachDatabase(t *testing.T, f func(t *testing.T, url string)) {
	t.Run("sqlite", func(t *testing.T) { f(t, "") })
	t.Run("postgres", func(t *testing.T) { f(t, databasetest.Postgres(t)) })
}

// soon is a context for what must not take for ever.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
