package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// server is a Kluis server that is measured from outside: what its commands set up, plain requests ask for.
type server struct {
	b        *bench
	dir, url string // data folder, and the database's URL
	cmd      *exec.Cmd
	began    time.Duration // from the start of the process to its readiness
	admin    admin
	http     *http.Client
}

type admin struct {
	Endpoint, CAFile, TenantID, SubscriptionID, ClientID, ClientSecret string
}

// startServer starts a server in dir, for the first time or again.
func (b *bench) startServer(ctx context.Context, dir, database string, flags ...string) (*server, error) {
	s := &server{b: b, dir: dir, url: database}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	s.cmd = exec.CommandContext(ctx, b.kluis, append([]string{"serve", "--data", dir, "--listen", fmt.Sprintf("127.0.0.1:%d", port),
		"--database", database, "--allow-images", b.dir, "--log-level", "error", "--requests-per-minute", "0"}, flags...)...)
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(os.Interrupt) }
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	var errs bytes.Buffer
	s.cmd.Stderr = &errs
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "ready ") {
			s.began = time.Since(start)
			return s, s.connect()
		}
	}
	return nil, fmt.Errorf("the server did not start: %w\n%s", s.cmd.Wait(), errs.String())
}

// connect reads who may call, and prepares a client that keeps as many connections as there are callers.
func (s *server) connect() error {
	text, err := os.ReadFile(filepath.Join(s.dir, "admin.json"))
	if err != nil {
		return err
	}
	if err := decode(text, &s.admin); err != nil {
		return err
	}
	ca, err := os.ReadFile(s.admin.CAFile)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	at, err := url.Parse(s.admin.Endpoint)
	if err != nil {
		return err
	}
	dialer := &net.Dialer{}
	s.http = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: callers,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, "127.0.0.1:"+at.Port())
		},
	}}
	return nil
}

func (s *server) stop() error {
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	_, err := s.cmd.Process.Wait()
	return err
}

// memory is what the process has in memory now, in bytes.
func (s *server) memory() (int64, error) {
	var kib int64
	_, err := fmt.Sscan(lineOf(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid), "VmRSS"), &kib)
	return kib << 10, err
}

// env is what tells a command of the CLI where the server is.
func (s *server) env() []string {
	return []string{"KLUIS_ADMIN=" + filepath.Join(s.dir, "admin.json"), "KLUIS_RESOURCE_GROUP=bench"}
}

// run runs a command of the CLI against the server and reads what it prints, if v is not nil.
func (s *server) run(ctx context.Context, v any, args ...string) error {
	cmd := exec.CommandContext(ctx, s.b.kluis, append(args, "--output", "json")...)
	cmd.Env = append(os.Environ(), s.env()...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("kluis %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	if v == nil {
		return nil
	}
	return decode(out, v)
}

// token asks for a token for what begins with resource.
func (s *server) token(ctx context.Context, resource string) (string, error) {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {s.admin.ClientID}, "client_secret": {s.admin.ClientSecret}, "scope": {resource + "/.default"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.admin.Endpoint+"/"+s.admin.TenantID+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := s.http.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.AccessToken == "" {
		return "", fmt.Errorf("ask for a token: %s: %w", resp.Status, err)
	}
	return answer.AccessToken, nil
}

// startPostgres starts a PostgreSQL of its own, as Debian has it and with its defaults: what is committed is on the disk. It has
// the databases that are named.
func (b *bench) startPostgres(ctx context.Context, names ...string) (address func(name string) string, stop func() error, err error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(found) == 0 {
		return nil, nil, errors.New("no PostgreSQL; 'make bench' installs what is needed")
	}
	bin, dir := found[len(found)-1], b.path("postgres")
	// PostgreSQL refuses to run as root; who is not root runs it as he is.
	as := func(command ...string) *exec.Cmd {
		if os.Getuid() == 0 {
			command = append([]string{"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"}, command...)
		}
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Dir = "/"
		return cmd
	}
	steps := []*exec.Cmd{
		exec.CommandContext(ctx, "install", "-d", "-m", "700", dir),
		as(filepath.Join(bin, "initdb"), "-D", dir, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"),
		as(filepath.Join(bin, "pg_ctl"), "-D", dir, "-w", "-s", "-l", filepath.Join(dir, "log"), "-o", "-k "+dir+" -c listen_addresses=", "start"),
	}
	if os.Getuid() == 0 {
		steps[0] = exec.CommandContext(ctx, "install", "-d", "-m", "700", "-o", "postgres", "-g", "postgres", dir)
		// The bench's folder is its user's own; PostgreSQL walks through it.
		if err := os.Chmod(b.dir, 0o711); err != nil {
			return nil, nil, err
		}
	}
	for _, name := range names {
		steps = append(steps, as(filepath.Join(bin, "createdb"), "-h", dir, "-U", "postgres", name))
	}
	for _, step := range steps {
		// The server keeps what it is given as standard output, so that is no pipe.
		step.Stdout, step.Stderr = io.Discard, os.Stderr
		if err := step.Run(); err != nil {
			return nil, nil, fmt.Errorf("start PostgreSQL: %s: %w", step.Args, err)
		}
	}
	at := "?" + url.Values{"host": {dir}, "user": {"postgres"}}.Encode()
	return func(name string) string { return "postgres:///" + name + at }, as(filepath.Join(bin, "pg_ctl"), "-D", dir, "-s", "-m", "fast", "stop").Run, nil
}

func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}
