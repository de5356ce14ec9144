package clients_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"kluis/test/conformance"
)

// kluis is the program under test, built once.
var kluis string

// What all the servers have logged, unless a test was skipped.
var (
	logged  strings.Builder
	skipped bool
	update  = flag.Bool("update", false, "list anew what the clients call")
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "kluis-clients-")
	if err != nil {
		panic(err)
	}
	kluis = filepath.Join(dir, "kluis")
	build := exec.Command("go", "build", "-o", kluis, "./cmd/kluis")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	if code == 0 && conformance.Whole() && !skipped {
		if err := conformance.Go.Compare("../conformance/testdata", logged.String(), *update); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// server is a running `kluis serve`, and what a client needs to speak to it.
type server struct {
	data         string
	images       string // a folder whose images it may read
	log          string // file of what it logs
	process      *exec.Cmd
	killed       bool
	endpoint     string
	host         string // with the port
	suffix       string // of key vaults
	tenant       string
	subscription string
	objectID     string
	credential   azcore.TokenCredential
	options      azcore.ClientOptions
	transport    http.RoundTripper
}

// start runs the server in an empty data folder until the test ends.
func start(t *testing.T) *server {
	t.Helper()
	return startIn(t, t.TempDir())
}

// startIn runs the server in a data folder.
func startIn(t *testing.T, data string) *server {
	t.Helper()
	images := t.TempDir()
	cmd := exec.Command(kluis, "serve", "--data", data, "--listen", "127.0.0.1:0", "--allow-images", images, "--log-level", "debug")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	logs, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = logs.Close() })
	cmd.Stderr = logs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &server{data: data, images: images, process: cmd, log: logs.Name()}
	t.Cleanup(func() {
		text, err := os.ReadFile(s.log)
		if err != nil {
			t.Error(err)
		}
		logged.Write(text)
	})
	t.Cleanup(func() {
		if s.killed {
			return
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if endpoint, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
			s.endpoint = endpoint
			break
		}
	}
	if s.endpoint == "" {
		text, _ := os.ReadFile(s.log)
		t.Fatalf("the server ended before it was ready:\n%s", text)
	}
	s.connect(t, data)
	return s
}

// kill ends the server as a power cut does.
func (s *server) kill(t *testing.T) {
	t.Helper()
	if err := s.process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = s.process.Wait()
	s.killed = true
}

// run runs a command of kluis against the server and returns what it prints.
func (s *server) run(t *testing.T, args ...string) string {
	t.Helper()
	return s.pipe(t, "", args...)
}

// pipe does so with something on standard input.
func (s *server) pipe(t *testing.T, input string, args ...string) string {
	t.Helper()
	cmd := exec.Command(kluis, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), "KLUIS_DATA="+s.data)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kluis %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// connect reads what the server wrote for its clients.
func (s *server) connect(t *testing.T, data string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(data, "admin.json"))
	if err != nil {
		t.Fatal(err)
	}
	var admin struct{ CAFile, TenantID, SubscriptionID, ClientID, ClientSecret string }
	if err := json.Unmarshal(text, &admin); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(admin.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	u, err := url.Parse(s.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	// Names below localhost don't resolve everywhere, and there is one listener for all of them.
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:"+u.Port())
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	s.host, s.transport = u.Host, transport
	s.suffix, s.tenant, s.subscription = "vault."+u.Host, admin.TenantID, admin.SubscriptionID
	s.options = azcore.ClientOptions{
		Transport: &http.Client{Transport: transport},
		Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: s.endpoint, Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Endpoint: s.endpoint, Audience: s.endpoint}}},
	}
	s.credential, err = azidentity.NewClientSecretCredential(admin.TenantID, admin.ClientID, admin.ClientSecret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: s.options, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	s.objectID = s.readObjectID(t)
}
