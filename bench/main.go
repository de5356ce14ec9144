// Command bench measures the recovery store beside the tools that people would use instead of it, the server on both
// databases, NBD beside its other speakers, and backups of a machine that runs beside virtnbdbackup.
//
// Every figure is that of a whole process, as the operating system accounts for it: wall time, processor
// time and peak memory. The programs are measured side by side in one run, in turn, several rounds; the
// median counts. What is claimed are ratios, since machines differ and their speed drifts. Before each step of the store what
// is dirty is written out, the page cache is emptied and the step's input alone is read into it: with memory
// full of dirty pages the same copy takes four times as long.
//
//	go run ./bench -kluis bin/kluis                    the table, on standard output
//	go run ./bench -kluis bin/kluis -write docs/performance.md
//	go run ./bench -only server                        a part of it: store, huge, mixed, proof, server, nbd or live
//
// A part that has a section of its own in the document is written anew there, and the rest stays as it is.
//
// The peers are restic, borg, nbdcopy, qemu-nbd and virtnbdbackup as Debian has them, and cp. Emptying the cache needs root;
// without it the figures are measured all the same, and the table says so. A machine that runs needs a libvirt daemon.
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
	if played, err := play(os.Args[1:]); played {
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	var gib float64
	flag.StringVar(&o.kluis, "kluis", "bin/kluis", "the binary to measure")
	flag.StringVar(&o.dir, "dir", "", "folder to work in; needs six times the size of the image (default: a temporary one)")
	flag.StringVar(&o.write, "write", "", "file to write the report to, or with -only its section, beside standard output")
	flag.StringVar(&o.only, "only", "", "measure one part: "+names())
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
	chosen, err := choose(o.only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.dir, "kluis-bench-")
	if err != nil {
		return fmt.Errorf("make a folder for the bench: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b, err := newBench(o, dir)
	if err != nil {
		return err
	}
	for _, p := range chosen {
		if err := need(append(p.tools, b.kluis)...); err != nil {
			return err
		}
	}
	for _, p := range chosen {
		if err := p.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return b.publish(chosen)
}
