// Package databasetest runs a test on both databases.
//
// Each starts PostgreSQL from Debian's package once for the test process, on a Unix socket in a
// temporary folder; a small shell that waits for the end of a pipe from this process stops it and
// removes the folder, however the process ends.
package databasetest

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"kluis/internal/database"
	"kluis/internal/tooltest"
)

// Each runs f on a fresh SQLite database and on a fresh PostgreSQL database.
func Each(t *testing.T, f func(t *testing.T, db *database.DB)) {
	t.Helper()
	EachURL(t, func(t *testing.T, url string) { f(t, Open(t, url)) })
}

// EachURL does the same for tests that open, close and reopen the database themselves.
func EachURL(t *testing.T, f func(t *testing.T, url string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { f(t, "sqlite:"+filepath.Join(t.TempDir(), "kluis.db")) })
	t.Run("postgres", func(t *testing.T) { f(t, Postgres(t)) })
}

// Open opens a database and closes it when the test ends.
func Open(t testing.TB, url string) *database.DB {
	t.Helper()
	db, err := database.Open(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close database: %v", err)
		}
	})
	return db
}

var (
	start    = sync.OnceValues(startPostgres)
	sequence atomic.Int64
)

// Postgres returns the URL of a fresh, empty PostgreSQL database. Without Debian's package the test is
// skipped, or fails where KLUIS_TEST_REQUIRE is set.
func Postgres(t testing.TB) string {
	t.Helper()
	dir, err := start()
	if err != nil {
		tooltest.Missing(t, "PostgreSQL for tests: %v (apt-get install postgresql)", err)
	}
	name := fmt.Sprintf("test_%d_%d", os.Getpid(), sequence.Add(1))
	admin, err := sql.Open("pgx", dsn(dir, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if _, err := admin.Exec("CREATE DATABASE " + name); err != nil {
		t.Fatalf("create database: %v", err)
	}
	return dsn(dir, name)
}

func dsn(dir, name string) string {
	q := url.Values{"host": {dir}, "user": {"postgres"}}
	return "postgres:///" + name + "?" + q.Encode()
}

// keepAlive holds the pipe's write end, which must stay open as long as this process lives: a file that
// nobody refers to would be closed.
var keepAlive atomic.Pointer[os.File]

func startPostgres() (dir string, err error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return "", fmt.Errorf("no initdb under /usr/lib/postgresql")
	}
	bin := filepath.Dir(found[len(found)-1])
	dir, err = os.MkdirTemp("", "kluis-postgres-")
	if err != nil {
		return "", err
	}
	attributes := &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		if attributes.Credential, err = credential("postgres"); err != nil {
			return "", err
		}
		if err := os.Chown(dir, int(attributes.Credential.Uid), int(attributes.Credential.Gid)); err != nil {
			return "", err
		}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(found[len(found)-1], "-D", data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8")
	initdb.SysProcAttr, initdb.Dir = attributes, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return "", fmt.Errorf("initdb: %w\n%s", err, out)
	}
	const script = `"$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c fsync=off -c max_connections=200 -c autovacuum=off >"$2/log" 2>&1 & pid=$!
cat >/dev/null; kill -QUIT $pid; wait $pid; rm -rf "$2"`
	server := exec.Command("/bin/sh", "-c", script, "sh", bin, dir)
	server.SysProcAttr, server.Dir = attributes, "/"
	stdin, keep, err := os.Pipe()
	if err != nil {
		return "", err
	}
	server.Stdin = stdin
	keepAlive.Store(keep)
	if err := server.Start(); err != nil {
		return "", err
	}
	_ = stdin.Close()
	return dir, await(dir)
}

// await returns when the server takes connections.
func await(dir string) error {
	db, err := sql.Open("pgx", dsn(dir, "postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if err = db.PingContext(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			return fmt.Errorf("server does not answer: %w\n%s", err, log)
		case <-tick.C:
		}
	}
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
