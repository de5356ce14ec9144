// Package stage sets what clients that others wrote need to play on: a running `kluis serve`, and encrypted
// virtual machines on it. Its users are tests that look at the server from outside, through az and OpenTofu.
//
// A Server is the real binary on a free port of loopback with a data folder of its own. What the clients are to do
// by themselves is not done here: a stage is set with Kluis' own client, and only as far as no client of Azure's could
// set it, since disks come from image files.
package stage

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"kluis/internal/client"
)

// Build builds the program into a folder and returns its path.
func Build(ctx context.Context, folder string) (string, error) {
	path := filepath.Join(folder, "kluis")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "kluis/cmd/kluis").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build kluis: %w\n%s", err, out)
	}
	return path, nil
}

// Server is a running server. Its client is the first principal, who may do everything.
type Server struct {
	*client.Client
	Binary string
	Data   string // its data folder
	Images string // a folder whose images it may read

	env     []string
	process *exec.Cmd
	log     Log
	exited  chan error
}

// Start runs a server in a folder, which is empty, until it says that it is ready. What is in env is set for it
// beside what is set here.
func Start(binary, folder string, env ...string) (*Server, error) {
	s := &Server{Binary: binary, Data: filepath.Join(folder, "data"), Images: filepath.Join(folder, "images"), env: env}
	if err := os.MkdirAll(s.Images, 0o700); err != nil {
		return nil, err
	}
	if err := s.run("127.0.0.1:0"); err != nil {
		return nil, err
	}
	admin, err := client.ReadAdmin(s.Admin())
	if err == nil {
		s.Client, err = client.New(admin)
	}
	if err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// Kill ends the server as a power cut would.
func (s *Server) Kill() error {
	if err := s.process.Process.Kill(); err != nil {
		return fmt.Errorf("kill the server: %w", err)
	}
	<-s.exited
	return nil
}

// Again runs a server that was killed or stopped once more, at the same address.
func (s *Server) Again() error { return s.run(s.Authority()) }

func (s *Server) run(listen string) error {
	s.process = exec.Command(s.Binary, "serve", "--data", s.Data, "--listen", listen, "--allow-images", s.Images)
	s.process.Env = append(os.Environ(), s.env...)
	s.process.Stderr = &s.log
	out, err := s.process.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.process.Start(); err != nil {
		return err
	}
	ready, exited, process := make(chan struct{}, 1), make(chan error, 1), s.process
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "ready ") {
				ready <- struct{}{}
			}
		}
		exited <- process.Wait()
	}()
	s.exited = exited
	select {
	case <-ready:
		return nil
	case err := <-exited:
		return fmt.Errorf("the server ended before it was ready: %w\n%s", err, s.Log())
	}
}

// Admin is the file with the credentials of the first principal.
func (s *Server) Admin() string { return filepath.Join(s.Data, "admin.json") }

// Log is what the server has logged.
func (s *Server) Log() string { return s.log.String() }

// Stop is Ctrl-C. The server must end by itself, and well.
func (s *Server) Stop() error {
	if err := s.process.Process.Signal(os.Interrupt); err != nil {
		return fmt.Errorf("stop the server: %w", err)
	}
	if err := <-s.exited; err != nil {
		return fmt.Errorf("the server did not end well: %w\n%s", err, s.Log())
	}
	return nil
}

// Log is what a process says, which can be read while it goes on.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is what has been said so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
