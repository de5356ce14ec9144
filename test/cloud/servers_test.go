package cloud_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"kluis/internal/objects/cloud"
	"kluis/internal/tooltest"
)

// service is a storage service that runs for the tests of this package.
type service struct {
	name string
	url  func(bucket, prefix string) string
	make func(ctx context.Context, bucket string) error
	*wire
}

// services are started once; each test makes a bucket or uses a prefix of its own.
var services = []struct {
	name  string
	start func(t testing.TB) *service
}{
	{"s3", once(startS3)},
	{"azure", once(startAzure)},
}

// each runs f on every service.
func each(t *testing.T, f func(t *testing.T, s *service)) {
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) { f(t, s.start(t)) })
	}
}

// open opens an empty bucket: a prefix that nobody else has.
func (s *service) open(t testing.TB) *cloud.Bucket {
	t.Helper()
	b, err := cloud.Open(t.Context(), s.url(bucket, strings.ToLower(rand.Text())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

const bucket = "kluis-test"

// once starts a service when the first test asks for it. TestMain ends it.
func once(start func() (*service, error)) func(t testing.TB) *service {
	started := sync.OnceValues(func() (*service, error) {
		s, err := start()
		if err == nil {
			err = s.make(context.Background(), bucket)
		}
		return s, err
	})
	return func(t testing.TB) *service {
		t.Helper()
		s, err := started()
		if err != nil {
			tooltest.Missing(t, "%v", err)
		}
		s.reset()
		return s
	}
}

var endings []func()

func TestMain(m *testing.M) {
	code := m.Run()
	for _, end := range endings {
		end()
	}
	os.Exit(code)
}

// startS3 runs the Versity gateway, an S3 server on a folder, which go.mod names as a tool.
func startS3() (*service, error) {
	dir, err := os.MkdirTemp("", "kluis-s3-")
	if err != nil {
		return nil, err
	}
	endings = append(endings, func() { _ = os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "root"), 0o700); err != nil {
		return nil, err
	}
	program := filepath.Join(dir, "versitygw")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/versity/versitygw/cmd/versitygw").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build versitygw: %w\n%s", err, out)
	}
	access, secret := rand.Text(), rand.Text()
	socket := filepath.Join(dir, "socket")
	cmd := exec.Command(program, "--port", socket, "posix", filepath.Join(dir, "root"))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+access, "ROOT_SECRET_KEY="+secret)
	if err := run(cmd, "Admin/S3 service listening"); err != nil {
		return nil, fmt.Errorf("versitygw: %w", err)
	}
	w, err := newWire("http://"+"s3.invalid", func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	})
	if err != nil {
		return nil, err
	}
	setenv("AWS_ACCESS_KEY_ID", access, "AWS_SECRET_ACCESS_KEY", secret, "AWS_EC2_METADATA_DISABLED", "true")
	endpoint := "http://" + w.address
	return &service{"s3", func(bucket, prefix string) string {
		return "s3://" + bucket + "/" + prefix + "?region=us-east-1&use_path_style=true&endpoint=" + url.QueryEscape(endpoint)
	}, func(ctx context.Context, bucket string) error {
		c, err := config.LoadDefaultConfig(ctx, config.WithRegion("us-east-1"), config.WithBaseEndpoint(endpoint))
		if err != nil {
			return err
		}
		client := s3.NewFromConfig(c, func(o *s3.Options) { o.UsePathStyle = true })
		_, err = client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(bucket)})
		return err
	}, w}, nil
}

// startAzure runs Azurite, Microsoft's own emulator.
func startAzure() (*service, error) {
	program, err := exec.LookPath("azurite-blob")
	if at := os.Getenv("KLUIS_TEST_AZURITE"); at != "" {
		program, err = exec.LookPath(filepath.Join(at, "node_modules", ".bin", "azurite-blob"))
	}
	if err != nil {
		return nil, fmt.Errorf("azurite-blob: %w; make test installs it", err)
	}
	key := make([]byte, 64)
	_, _ = rand.Read(key)
	const account = "kluistest"
	secret := base64.StdEncoding.EncodeToString(key)
	cmd := exec.Command(program, "--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent")
	cmd.Env = append(os.Environ(), "AZURITE_ACCOUNTS="+account+":"+secret)
	var address string
	if err := run(cmd, "successfully listens on http://", &address); err != nil {
		return nil, fmt.Errorf("azurite: %w", err)
	}
	w, err := newWire("http://"+address, nil)
	if err != nil {
		return nil, err
	}
	setenv("AZURE_STORAGE_ACCOUNT", account, "AZURE_STORAGE_KEY", secret)
	return &service{"azure", func(bucket, prefix string) string {
		return "azblob://" + bucket + "/" + prefix + "?protocol=http&localemu=true&domain=" + w.address
	}, func(ctx context.Context, bucket string) error {
		credential, err := azblob.NewSharedKeyCredential(account, secret)
		if err != nil {
			return err
		}
		client, err := azblob.NewClientWithSharedKeyCredential("http://"+w.address+"/"+account, credential, nil)
		if err != nil {
			return err
		}
		_, err = client.CreateContainer(ctx, bucket, nil)
		return err
	}, w}, nil
}

// setenv gives credentials the way that users do: by the environment.
func setenv(pairs ...string) {
	for i := 0; i < len(pairs); i += 2 {
		_ = os.Setenv(pairs[i], pairs[i+1])
	}
}

// run starts a server and returns when it has printed the words; what follows them on the line is stored in
// rest. The server ends with the tests, also where those are killed.
func run(cmd *exec.Cmd, words string, rest ...*string) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ready, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if _, after, ok := strings.Cut(lines.Text(), words); ok {
				select {
				case ready <- strings.TrimSpace(after):
				default:
				}
			}
		}
		_ = cmd.Wait()
	}()
	endings = append(endings, func() { _ = cmd.Process.Kill(); <-ended })
	select {
	case after := <-ready:
		for _, r := range rest {
			*r = after
		}
		return nil
	case <-ended:
		return fmt.Errorf("ended before it was ready: %s", complaints.String())
	}
}

// wire stands between the client and the service, and plays what happens on networks.
type wire struct {
	address string
	proxy   *httputil.ReverseProxy

	seen atomic.Int64

	mu    sync.Mutex
	fault func(w http.ResponseWriter, r *http.Request, pass http.Handler)
}

func newWire(target string, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*wire, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true
	if dial != nil {
		transport.DialContext = dial
	}
	w := &wire{proxy: &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = to.Scheme, to.Host
		r.Out.Host = r.In.Host // it is signed
	}}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w.address = listener.Addr().String()
	server := &http.Server{Handler: w}
	go func() { _ = server.Serve(listener) }()
	endings = append(endings, func() { _ = server.Close() })
	return w, nil
}

func (w *wire) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.seen.Add(1)
	w.mu.Lock()
	fault := w.fault
	w.mu.Unlock()
	if fault == nil {
		w.proxy.ServeHTTP(rw, r)
		return
	}
	fault(rw, r, w.proxy)
}

// requests returns how many there were.
func (w *wire) requests() int64 { return w.seen.Load() }

// play sets what becomes of requests from now on, until the test ends.
func (w *wire) play(t testing.TB, fault func(rw http.ResponseWriter, r *http.Request, pass http.Handler)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = fault
	t.Cleanup(w.reset)
}

func (w *wire) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = nil
}
