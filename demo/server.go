package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"kluis/internal/client"
)

// server is a kluis that runs for the demo alone.
type server struct {
	dir  string // data folder
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // how it ended; valid after done
}

// imageFolder is where the demo's disks are, and where the server may read and write disks.
func imageFolder(dir string) string { return filepath.Join(dir, "images") }

// startServer starts the binary on a free port of loopback, with more of its flags, and returns when it serves.
func startServer(ctx context.Context, binary, dir string, more ...string) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &server{dir: filepath.Join(dir, "data"), log: filepath.Join(dir, "server.log"), done: make(chan struct{})}
	if err := os.MkdirAll(imageFolder(dir), 0o700); err != nil {
		return nil, fmt.Errorf("make a folder for the disks: %w", err)
	}
	binary, err = filepath.Abs(binary)
	if err != nil {
		return nil, fmt.Errorf("find the server's binary: %w", err)
	}
	// The context does not end the process: that is stop's task, so that it can end cleanly.
	s.cmd = exec.Command(binary, append([]string{"serve", "--data", s.dir, "--listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		"--domain", "localhost", "--allow-images", imageFolder(dir)}, more...)...)
	log, err := os.Create(s.log)
	if err != nil {
		return nil, fmt.Errorf("make the server's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	s.cmd.Stderr = log
	// Its own process group: Ctrl-C reaches the demo, and the demo ends the server. A demo that is killed
	// takes it along.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the server: %w (build it first: go build -o bin/kluis ./cmd/kluis)", err)
	}
	ready := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "ready ") {
				close(ready)
				break
			}
		}
		_, _ = io.Copy(io.Discard, stdout)
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	select {
	case <-ready:
		return s, nil
	case <-s.done:
		return nil, fmt.Errorf("the server ended before it served: %w\n%s", s.err, s.lastWords())
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), s.stop())
	case <-time.After(time.Minute):
		return nil, errors.Join(fmt.Errorf("the server did not serve within a minute\n%s", s.lastWords()), s.stop())
	}
}

// client speaks to the server with the credentials that the server wrote.
func (s *server) client() (*client.Client, error) {
	admin, err := client.ReadAdmin(filepath.Join(s.dir, "admin.json"))
	if err != nil {
		return nil, err
	}
	return client.New(admin)
}

// stop ends the process as Ctrl-C would, and with force if it does not follow.
func (s *server) stop() error {
	_ = s.cmd.Process.Signal(os.Interrupt) // it may be over already
	select {
	case <-s.done:
		if s.err != nil {
			return fmt.Errorf("the server did not end cleanly: %w", s.err)
		}
		return nil
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
		return errors.New("the server did not end within 20 seconds of Ctrl-C")
	}
}

// lastWords is the end of the server's log.
func (s *server) lastWords() string {
	data, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}
