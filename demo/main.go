// Command demo tells the story that Kluis exists for, with a real server and real encrypted disks.
//
// An encrypted VM is protected, backed up twice, destroyed together with its keys and its key vault, and
// brought back. Every step is a call that any client could make; nothing reaches into the server. The
// server runs on loopback in a folder of its own that is gone when the story is over, however it ends.
//
//	go build -o bin/kluis ./cmd/kluis && go run ./demo
//
// With -live the VM runs, under the libvirt daemon of this machine, and boots again in the end (live.go).
//
// DEMO_SIZE sets how much the two disks hold in all, such as 256M or 4G. The exit code is 0 if every
// step passed, else 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

const defaultSize = 1280 << 20

func main() {
	binary := flag.String("kluis", "bin/kluis", "the server's binary")
	live := flag.Bool("live", false, "tell the story of a VM that runs, under libvirt")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	tell := run
	if *live {
		tell = runLive
	}
	if err := tell(ctx, *binary); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// errStory says that a step failed; what and why has been told already.
var errStory = errors.New("the story did not come to its end")

func run(ctx context.Context, binary string) (err error) {
	size, err := parseSize(os.Getenv("DEMO_SIZE"))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kluis-demo-")
	if err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	n := newNarrator(os.Stdout)
	s := &story{narrator: n, dir: dir, size: size}
	server, err := startServer(ctx, binary, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	if s.c, err = server.client(); err != nil {
		return err
	}
	n.say("A server runs at %s.\n", s.c.Endpoint())

	s.tell(ctx)
	if n.failed > 0 {
		n.say("\nThe server's last words:\n%s", server.lastWords())
	}
	n.say("\ndemo: %d passed, %d failed\n", n.passed, n.failed)
	if n.failed > 0 {
		return errStory
	}
	return nil
}

// parseSize reads a number of bytes with an optional K, M or G; empty is the default.
func parseSize(s string) (int64, error) {
	if s == "" {
		return defaultSize, nil
	}
	digits := strings.TrimRight(strings.ToUpper(s), "IB")
	unit := int64(1)
	switch {
	case strings.HasSuffix(digits, "K"):
		unit = 1 << 10
	case strings.HasSuffix(digits, "M"):
		unit = 1 << 20
	case strings.HasSuffix(digits, "G"):
		unit = 1 << 30
	}
	n, err := strconv.ParseFloat(strings.TrimRight(digits, "KMG"), 64)
	if bytes := n * float64(unit); err != nil || !(bytes >= 64<<20 && bytes <= 1<<40) { // NaN is neither
		return 0, fmt.Errorf("DEMO_SIZE=%q is not a size from 64M to 1024G", s)
	}
	return int64(n * float64(unit)), nil
}
