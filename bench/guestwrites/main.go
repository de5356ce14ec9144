// Command guestwrites runs inside a guest and measures how long a write takes until it is durable there. It overwrites a
// file, 4 KiB at a time, each in another 64 KiB than the one before, as that is what a hypervisor copies once before it is
// overwritten while a backup runs. When a second file appears it ends, and prints what it has measured.
//
//	guestwrites FILE STOP
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"
)

const (
	piece   = 4 << 10
	cluster = 64 << 10
)

// measured is how long writes took, in microseconds, ascending.
type measured struct {
	Took []int64
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: guestwrites FILE STOP")
		os.Exit(2)
	}
	m, err := write(os.Args[1], os.Args[2])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "guestwrites:", err)
		os.Exit(1)
	}
}

func write(path, stop string) (m measured, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return m, err
	}
	clusters := info.Size() / cluster
	if clusters == 0 {
		return m, fmt.Errorf("%s is smaller than %d bytes", path, cluster)
	}
	buf := make([]byte, piece)
	for n := int64(0); ; n++ {
		if _, err := os.Stat(stop); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return m, err
		}
		buf[0] = byte(n)
		began := time.Now()
		if _, err := f.WriteAt(buf, n%clusters*cluster+n/clusters%(cluster/piece)*piece); err != nil {
			return m, err
		}
		if err := f.Sync(); err != nil {
			return m, err
		}
		m.Took = append(m.Took, time.Since(began).Microseconds())
	}
	if len(m.Took) == 0 {
		return m, errors.New("there was no time for a write")
	}
	slices.Sort(m.Took)
	return m, nil
}
