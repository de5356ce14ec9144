package keyservice

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"go.yaml.in/yaml/v3"
)

// file is the file that names the key services. Secrets are not in it but in files of their own, which only their owner
// may read; their paths are relative to the file's folder.
type file struct {
	Vaults  []vaultsEntry  `yaml:"vaults"`
	Transit []transitEntry `yaml:"transit"`
}

type vaultsEntry struct {
	Hosts       string `yaml:"hosts"`            // kv1.vault.azure.net or *.vault.azure.net; with a port unless it is 443
	Authority   string `yaml:"authority"`        // issues the tokens; Azure's public one when empty
	Tenant      string `yaml:"tenant"`           // of the service principal
	ClientID    string `yaml:"client-id"`        // of the service principal
	Secret      string `yaml:"secret-file"`      // its secret, or
	Certificate string `yaml:"certificate-file"` // its certificate with the private key (PEM)
	CA          string `yaml:"ca-file"`          // whom to trust for these hosts and the authority, instead of the system's
	Address     string `yaml:"address"`          // host:port to connect to, whatever the names resolve to
}

type transitEntry struct {
	Address   string `yaml:"address"`    // https://bao.example.com:8200
	Token     string `yaml:"token-file"` // read for each call, so an agent may renew it
	Namespace string `yaml:"namespace"`
	CA        string `yaml:"ca-file"`
}

const maxFile = 1 << 20

// ErrExposed means that a file with a secret can be read by others than its owner.
var ErrExposed = errors.New("a secret is readable by others")

// Open reads the file of key services, and the credentials that it names. It asks nobody yet. An empty path is no file.
func Open(path string, o Options) (*Services, error) {
	if path == "" {
		return &Services{}, nil
	}
	text, err := readBounded(path)
	if err != nil {
		return nil, fmt.Errorf("read key services: %w", err)
	}
	s, err := parse(text, filepath.Dir(path), o)
	if err != nil {
		return nil, fmt.Errorf("key services %s: %w", path, err)
	}
	return s, nil
}

func parse(text []byte, dir string, o Options) (*Services, error) {
	if o.RetryDelay == 0 {
		o.RetryDelay = firstDelay
	}
	var f file
	strict := yaml.NewDecoder(bytes.NewReader(text))
	strict.KnownFields(true)
	if err := strict.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	s := &Services{}
	for i, e := range f.Vaults {
		v, err := e.open(dir, o)
		if err != nil {
			return nil, fmt.Errorf("vaults, entry %d: %w", i+1, err)
		}
		s.vaults = append(s.vaults, v)
	}
	for i, e := range f.Transit {
		t, err := e.open(dir, o)
		if err != nil {
			return nil, fmt.Errorf("transit, entry %d: %w", i+1, err)
		}
		s.transits = append(s.transits, t)
	}
	return s, nil
}

func (e vaultsEntry) open(dir string, o Options) (*vaults, error) {
	hosts, err := parsePattern(e.Hosts)
	if err != nil {
		return nil, err
	}
	if e.Authority == "" {
		e.Authority = cloud.AzurePublic.ActiveDirectoryAuthorityHost
	}
	authority, err := parseAddress("authority", e.Authority)
	if err != nil {
		return nil, err
	}
	if e.Tenant == "" || e.ClientID == "" || (e.Secret == "") == (e.Certificate == "") {
		return nil, errors.New("tenant, client-id and either secret-file or certificate-file are needed")
	}
	if _, _, err := net.SplitHostPort(e.Address); e.Address != "" && err != nil {
		return nil, fmt.Errorf("address %q is not a host with a port", e.Address)
	}
	roots, err := readRoots(dir, e.CA)
	if err != nil {
		return nil, err
	}
	v := &vaults{hosts: hosts, scopes: map[string]string{}}
	issuer := hostOf(authority)
	t := newTransport(roots, func(host string) bool { return host == issuer || hosts.match(host) }, func(host string) string {
		if host == issuer {
			return ""
		}
		return e.Address
	})
	v.options = clientOptions(t, o)
	v.options.Cloud = cloud.Configuration{ActiveDirectoryAuthorityHost: e.Authority}
	if v.credential, err = e.credential(dir, v.options); err != nil {
		return nil, err
	}
	return v, nil
}

func (e vaultsEntry) credential(dir string, o policy.ClientOptions) (azcore.TokenCredential, error) {
	if e.Secret != "" {
		text, err := readSecret(in(dir, e.Secret))
		if err != nil {
			return nil, fmt.Errorf("secret-file: %w", err)
		}
		defer clear(text)
		return azidentity.NewClientSecretCredential(e.Tenant, e.ClientID, string(bytes.TrimRight(text, "\r\n")),
			&azidentity.ClientSecretCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: true})
	}
	text, err := readSecret(in(dir, e.Certificate))
	if err != nil {
		return nil, fmt.Errorf("certificate-file: %w", err)
	}
	defer clear(text)
	var certificates []*x509.Certificate
	var key crypto.PrivateKey
	if certificates, key, err = azidentity.ParseCertificates(text, nil); err != nil {
		return nil, errors.New("certificate-file holds no certificate with its private key") // the parser's error may quote it
	}
	return azidentity.NewClientCertificateCredential(e.Tenant, e.ClientID, certificates, key,
		&azidentity.ClientCertificateCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: true})
}

func (e transitEntry) open(dir string, o Options) (*transit, error) {
	address, err := parseAddress("address", e.Address)
	if err != nil {
		return nil, err
	}
	if e.Token == "" {
		return nil, errors.New("token-file is needed")
	}
	t := &transit{host: hostOf(address), token: in(dir, e.Token), namespace: e.Namespace}
	if _, err := t.readToken(); err != nil {
		return nil, err
	}
	roots, err := readRoots(dir, e.CA)
	if err != nil {
		return nil, err
	}
	carried := newTransport(roots, func(host string) bool { return host == t.host }, func(string) string { return "" })
	t.pipeline = openPipeline(clientOptions(carried, o))
	return t, nil
}

// pattern says which hosts are meant: one, or each that has one name more than the rest of it.
type pattern struct {
	rest string // with its port
	any  bool   // of the names before rest
}

// hostName is a name of at least two parts: a pattern such as *.com is no pattern but a mistake.
var hostName = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(:[0-9]{1,5})?$`)

func parsePattern(text string) (pattern, error) {
	rest, wild := strings.CutPrefix(strings.ToLower(text), "*.")
	if !hostName.MatchString(rest) {
		return pattern{}, fmt.Errorf("hosts %q is not a host such as kv1.vault.azure.net, nor a pattern such as *.vault.azure.net", text)
	}
	return pattern{hostOf(&url.URL{Host: rest}), wild}, nil
}

func (p pattern) match(host string) bool {
	if !p.any {
		return host == p.rest
	}
	first, rest, ok := strings.Cut(host, ".")
	return ok && first != "" && rest == p.rest
}

func parseAddress(what, text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("%s %q is not an https address without a path", what, text)
	}
	return u, nil
}

func in(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// readRoots reads whom to trust; nil is the system's list.
func readRoots(dir, path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	text, err := readBounded(in(dir, path))
	if err != nil {
		return nil, fmt.Errorf("ca-file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("ca-file %s holds no certificate", path)
	}
	return roots, nil
}

func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %04o; run: chmod 600 %s", ErrExposed, path, mode, path)
	}
	text, err := readBounded(path)
	if err == nil && len(bytes.TrimSpace(text)) == 0 {
		return nil, fmt.Errorf("%s is empty", path)
	}
	return text, err
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("it is larger than %d bytes", maxFile)}
	}
	return text, err
}
