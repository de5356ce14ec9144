package image

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"kluis/internal/fabric"
	"kluis/internal/tooltest"
)

// holdVariable makes the test program take a snapshot of an image and hold it until it is killed.
const holdVariable = "KLUIS_TEST_HOLD_IMAGE"

func TestMain(m *testing.M) {
	if path := os.Getenv(holdVariable); path != "" {
		hold(path)
	}
	goleak.VerifyTestMain(m)
}

func hold(path string) {
	dir, name, _ := strings.Cut(path, "|")
	f, err := New(Options{Allow: []string{dir}, SocketDir: dir + "-sockets"})
	if err != nil {
		panic(err)
	}
	s, err := f.Snapshot(context.Background(), fabric.VM{Disks: []fabric.DiskSpec{{Path: dir + "/" + name, Format: Qcow2}}}, "")
	if err != nil {
		panic(err)
	}
	d, _ := s.Disks()[0].(*exportedDisk)
	fmt.Println(d.export.child.Process.Pid)
	select {}
}

func TestKilledProcessLeavesNoChild(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-nbd")
	h := newHouse(t)
	path, _ := h.sparse("disk", 16*mib)
	h.convert(path, "qcow2")

	holder := exec.CommandContext(t.Context(), os.Args[0])
	holder.Env = append(os.Environ(), holdVariable+"="+h.allowed+"|disk.qcow2")
	holder.Stderr = os.Stderr
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	child, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child)
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // it was killed
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(child), Events: unix.POLLIN}}, 10_000)
	if n != 1 || err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		t.Errorf("qemu-nbd runs on without us: %d, %v", n, err)
	}
	if left, err := os.ReadDir(h.allowed + "-sockets"); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestImageInUse(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-nbd")
	for _, format := range []string{Raw, Qcow2} {
		t.Run(format, func(t *testing.T) {
			h := newHouse(t)
			path, _ := h.sparse("disk", 16*mib)
			if format == Qcow2 {
				path = h.convert(path, "qcow2")
			}
			stop := writer(t, path, format)
			_, err := h.snapshot(path, format, 0)
			wantKind(t, err, fabric.InUse)
			if _, err := h.Inspect(t.Context(), path); err != nil {
				t.Errorf("inspect, which only looks: %v", err)
			}
			stop()
			s, err := h.snapshot(path, format, 0)
			if err != nil {
				t.Fatalf("after the writer has gone: %v", err)
			}
			// While it is read, a VM cannot begin to write.
			out, err := exec.CommandContext(t.Context(), "qemu-io", "-f", format, "-c", "write 0 512", path).CombinedOutput()
			if err == nil || !strings.Contains(string(out), `"write" lock`) {
				t.Errorf("QEMU could write to an image that is being read: %v\n%s", err, out)
			}
			// Another reader can read.
			other, err := h.snapshot(path, format, 0)
			if err != nil {
				t.Fatalf("a second snapshot: %v", err)
			}
			for _, s := range []fabric.Snapshot{other, s} {
				if err := s.Close(context.Background()); err != nil {
					t.Error(err)
				}
			}
			run(t, "qemu-io", "-f", format, "-c", "write 0 512", path)
		})
	}
}

// writer opens an image as a running VM does, until it is stopped.
func writer(t *testing.T, path, format string) (stop func()) {
	t.Helper()
	tooltest.Need(t, "qemu-io")
	qemu := exec.CommandContext(t.Context(), "qemu-io", "-f", format, path)
	in, err := qemu.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := qemu.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	// It answers once the image is open.
	if _, err := fmt.Fprintln(in, "length"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, "MiB") {
			break
		}
	}
	return func() {
		_ = in.Close()
		_ = qemu.Wait()
	}
}

// imageBytes is a small image of a format, for the fuzzer to begin with.
func imageBytes(path, format string) ([]byte, error) {
	if err := exec.Command("qemu-img", "create", "-q", "-f", format, path, "1M").Run(); err != nil {
		return nil, err
	}
	if err := exec.Command("qemu-io", "-f", format, "-c", "write 0 64k", path).Run(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}
