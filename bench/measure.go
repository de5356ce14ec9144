package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// figures are what one run of a command took, or the median of several.
type figures struct {
	wall, user, system time.Duration
	memory             int64 // peak resident set, bytes
}

// busy is how long all processors together had work, if it was spread over them evenly.
func (f figures) busy() time.Duration { return (f.user + f.system) / time.Duration(runtime.NumCPU()) }

// measured is a step of one program.
type measured struct {
	runs   []figures
	output []byte // of the last run
}

func (m *measured) median() figures {
	pick := func(of func(figures) int64) int64 {
		all := make([]int64, len(m.runs))
		for i, r := range m.runs {
			all[i] = of(r)
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	return figures{
		wall:   time.Duration(pick(func(f figures) int64 { return int64(f.wall) })),
		user:   time.Duration(pick(func(f figures) int64 { return int64(f.user) })),
		system: time.Duration(pick(func(f figures) int64 { return int64(f.system) })),
		memory: pick(func(f figures) int64 { return f.memory }),
	}
}

// measure runs a command once and adds its figures. What must be in the page cache beforehand is warm.
func (b *bench) measure(ctx context.Context, m *measured, warm []string, env []string, command ...string) error {
	if err := b.settle(warm); err != nil {
		return err
	}
	return b.time(ctx, m, env, command...)
}

// time is measure, with the page cache as it is.
func (b *bench) time(ctx context.Context, m *measured, env []string, command ...string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	start := time.Now()
	err := cmd.Run()
	wall := time.Since(start)
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, errs.String())
	}
	f := figures{wall: wall, user: cmd.ProcessState.UserTime(), system: cmd.ProcessState.SystemTime()}
	if r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		f.memory = r.Maxrss << 10
	}
	m.runs, m.output = append(m.runs, f), out.Bytes()
	return nil
}

// settle writes out what is dirty, empties the page cache and reads the input into it.
func (b *bench) settle(warm []string) error {
	syscall.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		b.cold = false
	}
	for _, path := range warm {
		err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			return readThrough(p)
		})
		if err != nil {
			return fmt.Errorf("warm %s: %w", path, err)
		}
	}
	return nil
}

// readThrough reads the data of a file, not its holes.
func readThrough(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, 1<<20)
	for at := int64(0); ; {
		start, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // the rest is a hole
		} else if err != nil {
			return err
		}
		end, err := f.Seek(start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.NewSectionReader(f, start, end-start), buf); err != nil {
			return err
		}
		at = end
	}
}

// treeSize is what the files below a folder hold.
func treeSize(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}
