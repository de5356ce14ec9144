package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"kluis/internal/fabric"
	"kluis/internal/nbd"
)

// export is a qemu-nbd child with one image and one client, us.
type export struct {
	*nbd.Client
	child  *exec.Cmd
	stderr *tail
	exited chan struct{} // closed when the child was waited for
}

// patience is how long a child may take to leave once its client has gone; then it is killed.
const patience = 2 * time.Second

// export starts a child on an open image. The child gets the image as a descriptor, so it opens the very
// file that was checked, and a socket that already has our connection waiting in it (systemd's protocol
// for socket activation): if we die before it looks, it finds a client that has left, and exits.
func (q qemu) export(ctx context.Context, image *os.File, h header, writable bool) (*export, error) {
	conn, socket, err := q.connect()
	if err != nil {
		return nil, fmt.Errorf("make a socket for qemu-nbd: %w", err)
	}
	defer func() { _ = socket.Close() }()

	options := h.driver() + ",file.driver=" + driverOf(image) + ",file.filename=/proc/self/fd/4,file.locking=auto"
	args := []string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, q.qemuNBD, "--shared=1", "--export-name=disk", "--image-opts", options}
	if !writable {
		args = append(args, "--read-only")
	}
	e := &export{stderr: &tail{}, exited: make(chan struct{})}
	// LISTEN_PID must be the child's own number, which nobody knows before it runs: the shell becomes the child.
	e.child = exec.Command("/bin/sh", args...)
	e.child.Env = []string{"LISTEN_FDS=1", "LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	e.child.ExtraFiles = []*os.File{socket, image}
	e.child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	e.child.Stderr = e.stderr
	e.child.WaitDelay = patience
	if err := e.child.Start(); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("start qemu-nbd: %w", err)
	}
	go func() {
		defer close(e.exited)
		_ = e.child.Wait() // its status says nothing that the connection doesn't
	}()
	_ = socket.Close() // the child's copy is the only one now: if it ends, so does the connection

	e.Client, err = nbd.New(ctx, conn, "disk", nbd.ContextAllocation)
	if err != nil {
		e.end(context.WithoutCancel(ctx))
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, e.explain(err)
	}
	if e.Size() != h.size || !e.Has(nbd.ContextAllocation) {
		_ = e.close(context.WithoutCancel(ctx))
		return nil, faultf(fabric.Unreadable, "its header says %d bytes and qemu-nbd offers %d", h.size, e.Size())
	}
	return e, nil
}

// driverOf returns QEMU's driver for what an image is stored in.
func driverOf(image *os.File) string {
	if info, err := image.Stat(); err == nil && info.Mode()&fs.ModeDevice != 0 {
		return "host_device"
	}
	return "file"
}

// connect returns both ends of a connection: ours, and the listening socket in which it waits. The
// socket has a name only between these lines. It is reached through the folder's descriptor, because
// names of sockets are limited to some hundred bytes and names of folders are not.
func (q qemu) connect() (net.Conn, *os.File, error) {
	dir, err := os.MkdirTemp(q.socketDir, "kluis-nbd-")
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	folder, err := os.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = folder.Close() }()
	name := &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/s", folder.Fd())}
	listener, err := net.ListenUnix("unix", name)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = listener.Close() }()
	listener.SetUnlinkOnClose(false)
	conn, err := net.DialUnix("unix", nil, name)
	if err != nil {
		return nil, nil, err
	}
	socket, err := listener.File()
	if err == nil {
		err = os.Remove(filepath.Join(dir, "s"))
	}
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return conn, socket, nil
}

// explain adds what the child said to an error of the connection.
func (e *export) explain(err error) error {
	words := e.stderr.String()
	switch {
	case words == "":
		return fmt.Errorf("through qemu-nbd: %w", err)
	case strings.Contains(words, `Failed to get "write" lock`), strings.Contains(words, `Failed to get shared "write" lock`):
		return faultf(fabric.InUse, "qemu-nbd says: %s", words)
	case strings.Contains(words, "backing file"), strings.Contains(words, "parent"):
		return faultf(fabric.HasBackingFile, "qemu-nbd says: %s", words)
	}
	return fmt.Errorf("through qemu-nbd, which says: %s: %w", words, err)
}

func (e *export) close(ctx context.Context) error {
	err := e.Close()
	e.end(ctx)
	return err
}

// end waits for the child, which leaves when its only client has; one that doesn't is killed, with all it started.
func (e *export) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-e.exited:
		return
	case <-ctx.Done():
	}
	_ = syscall.Kill(-e.child.Process.Pid, syscall.SIGKILL)
	<-e.exited
}

// exportedDisk is an image that QEMU reads for us.
type exportedDisk struct {
	file   *file
	header header
	export *export
	id     string
}

func (d *exportedDisk) ID() string                       { return d.id }
func (d *exportedDisk) Size() int64                      { return d.export.Size() }
func (*exportedDisk) Changed() bool                      { return false }
func (d *exportedDisk) Whole() (fabric.Disk, string)     { return d, "" }
func (d *exportedDisk) Verify(ctx context.Context) error { return d.file.verify(ctx) }
func (d *exportedDisk) Modified() time.Time              { return d.file.modified }

func (d *exportedDisk) close(ctx context.Context) error {
	return errors.Join(d.export.close(ctx), d.file.Close())
}

func (d *exportedDisk) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.export.ReadAt(p, off)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	return n, named(d.file.path, d.export.explain(err))
}

// Extents yields what does not read as zeros.
func (d *exportedDisk) Extents(ctx context.Context) iter.Seq2[fabric.Extent, error] {
	return func(yield func(fabric.Extent, error) bool) {
		allocated := d.allocated(ctx)
		if d.header.extents != nil {
			allocated = d.header.extents(ctx, d.file, d.file.size)
		}
		var last fabric.Extent // not yielded yet, because the next may be its neighbour
		for e, err := range allocated {
			switch {
			case err != nil:
				yield(fabric.Extent{}, named(d.file.path, err))
				return
			case last.Offset+last.Length == e.Offset:
				last.Length += e.Length
				continue
			}
			if last.Length > 0 && !yield(last, nil) {
				return
			}
			last = e
		}
		if last.Length > 0 {
			yield(last, nil)
		}
	}
}

// allocated yields what QEMU does not know to be zeros.
func (d *exportedDisk) allocated(ctx context.Context) iter.Seq2[fabric.Extent, error] {
	return func(yield func(fabric.Extent, error) bool) {
		for e, err := range d.export.BlockStatus(ctx, nbd.ContextAllocation, 0, d.Size()) {
			if err != nil {
				yield(fabric.Extent{}, d.export.explain(err))
				return
			}
			if e.Flags&nbd.StateZero == 0 && !yield(fabric.Extent{Offset: e.Offset, Length: e.Length}, nil) {
				return
			}
		}
	}
}

// tail keeps the last of what a child wrote, on one line.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const maxTail = 512

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p[max(0, len(p)-maxTail):]...)
	t.b = t.b[max(0, len(t.b)-maxTail):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(t.b), "")), " ")
}
