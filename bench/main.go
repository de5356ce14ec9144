// Command bench measures the recovery store beside the tools that people would use instead of it, and the server on both
// databases.
//
// Every figure is that of a whole process, as the operating system accounts for it: wall time, processor
// time and peak memory. The programs are measured side by side in one run, in turn, several rounds; the
// median counts. What is claimed are ratios, since machines differ and their speed drifts. Before each step what
// is dirty is written out, the page cache is emptied and the step's input alone is read into it: with memory
// full of dirty pages the same copy takes four times as long.
//
//	go run ./bench -kluis bin/kluis                    the table, on standard output
//	go run ./bench -kluis bin/kluis -write docs/performance.md
//	go run ./bench -only server                        a part of it: store, huge, mixed, proof or server
//
// The peers are restic and borg as Debian has them, and cp. Emptying the cache needs root; without it the
// figures are measured all the same, and the table says so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

type options struct {
	kluis  string
	dir    string
	write  string
	rounds int
	size   int64
	only   string
}

func main() {
	var o options
	var gib float64
	flag.StringVar(&o.kluis, "kluis", "bin/kluis", "the binary to measure")
	flag.StringVar(&o.dir, "dir", "", "folder to work in; needs six times the size of the image (default: a temporary one)")
	flag.StringVar(&o.write, "write", "", "file to write the table to, beside standard output")
	flag.StringVar(&o.only, "only", "", "measure one part: store, huge, mixed, proof, server")
	flag.IntVar(&o.rounds, "rounds", 3, "how often each step is measured")
	flag.Float64Var(&gib, "gib", 4, "size of the images in GiB")
	flag.Parse()
	o.size = int64(gib*1024) << 20
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp(o.dir, "kluis-bench-")
	if err != nil {
		return fmt.Errorf("make a folder for the bench: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b, err := newBench(o, dir)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{{"store", b.ciphertext}, {"huge", b.huge}, {"mixed", b.mixed}, {"proof", b.prove}, {"server", b.service}} {
		if o.only != "" && o.only != part.name {
			continue
		}
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	text := b.report()
	fmt.Print(text)
	if o.write != "" {
		return os.WriteFile(o.write, []byte(text), 0o644)
	}
	return nil
}
