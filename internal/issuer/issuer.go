// Package issuer reads the tokens of an OpenID Connect issuer outside: a company's directory, or another Kluis.
//
// The issuer says at a fixed place, below its own URL, where its keys are (OpenID Connect Discovery 1.0), and there they
// are (JWKS, RFC 7517). Read checks that a token is signed by one of them and names the issuer. It believes nothing else:
// for whom a token is, how long it is good, and whom it stands for is decided by who asks (internal/identity).
//
// Invariants:
//
//   - Only https is spoken, and no redirect is followed. What is read is bounded in bytes and in time.
//   - Only asymmetric signatures count, with a key of the issuer that is meant for signing: a token without a signature, or
//     signed with something that others know, is none.
//   - Keys are asked for again every hour, so that one that was withdrawn is soon not believed any more, and when a token names
//     one that is not known; but never more than once in half a minute, whatever tokens somebody sends.
//   - An issuer that is away is no reason to turn people away at once: for a day the keys that are known stay good.
package issuer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	maxToken   = 16 << 10
	maxGroups  = 1000
	fetchTime  = 10 * time.Second
	freshFor   = time.Hour
	goodFor    = 24 * time.Hour
	askAgain   = 30 * time.Second
	defaultSub = "sub"
)

var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}

// Options say whose tokens are read. URL and Now are required.
type Options struct {
	URL          string // of the issuer, as its tokens name it
	SubjectClaim string // that names who the token stands for; "" is sub
	GroupsClaim  string // that names the groups it belongs to; "" is none
	CAFile       string // of who has certified the issuer; "" is the system's authorities
	Now          func() time.Time
}

// Token is what a token says.
type Token struct {
	Subject   string
	Groups    []string
	Audience  []string
	NotBefore time.Time // zero: not said
	Expiry    time.Time
}

// Issuer is one. It is safe for concurrent use.
type Issuer struct {
	o      Options
	client *http.Client

	keys   atomic.Pointer[keySet]
	mu     sync.Mutex // one asks at a time
	asked  time.Time
	failed error // what became of that
}

// New makes one. Nothing is asked yet.
func New(o Options) (*Issuer, error) {
	if err := CheckURL(o.URL); err != nil {
		return nil, err
	}
	if o.SubjectClaim == "" {
		o.SubjectClaim = defaultSub
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the authorities of the issuer: %w", err)
		}
		if config.RootCAs = x509.NewCertPool(); !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", o.CAFile)
		}
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, MaxIdleConns: 2, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10}
	return &Issuer{o: o, client: &http.Client{Transport: transport, Timeout: fetchTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// CheckURL says whether a text can be an issuer.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("issuer %q is not an https URL without query and fragment", text)
	}
	return nil
}

// Close lets go of connections.
func (i *Issuer) Close() { i.client.CloseIdleConnections() }

// URL is the issuer, as its tokens name it.
func (i *Issuer) URL() string { return i.o.URL }

// Owns reports whether a token says that it is of this issuer. Nothing is checked.
func (i *Issuer) Owns(token string) bool {
	parsed, err := parse(token)
	if err != nil {
		return false
	}
	var c jwt.Claims
	return parsed.UnsafeClaimsWithoutVerification(&c) == nil && c.Issuer == i.o.URL
}

func parse(token string) (*jwt.JSONWebToken, error) {
	if len(token) > maxToken {
		return nil, fmt.Errorf("token has more than %d bytes", maxToken)
	}
	parsed, err := jwt.ParseSigned(token, algorithms)
	if err == nil && len(parsed.Headers) != 1 {
		return nil, fmt.Errorf("token has %d signatures", len(parsed.Headers))
	}
	return parsed, err
}

// ErrAway means that the issuer could not be asked for its keys, so that nothing is known of the token.
var ErrAway = errors.New("the issuer does not answer")

// Read returns what a token says, if one of the issuer's keys has signed it.
func (i *Issuer) Read(ctx context.Context, token string) (Token, error) {
	parsed, err := parse(token)
	if err != nil {
		return Token{}, err
	}
	key, err := i.key(ctx, parsed.Headers[0])
	if err != nil {
		return Token{}, err
	}
	var c jwt.Claims
	var all map[string]json.RawMessage
	if err := parsed.Claims(key.Key, &c, &all); err != nil {
		return Token{}, err
	}
	if c.Issuer != i.o.URL {
		return Token{}, fmt.Errorf("token is of the issuer %.200q", c.Issuer)
	}
	if c.Expiry == nil {
		return Token{}, errors.New("token has no exp")
	}
	t := Token{Audience: c.Audience, Expiry: c.Expiry.Time()}
	if c.NotBefore != nil {
		t.NotBefore = c.NotBefore.Time()
	}
	if err := json.Unmarshal(all[i.o.SubjectClaim], &t.Subject); err != nil && len(all[i.o.SubjectClaim]) > 0 {
		return Token{}, fmt.Errorf("claim %s is not a text", i.o.SubjectClaim)
	}
	t.Groups, err = groups(all[i.o.GroupsClaim])
	return t, err
}

// groups reads a claim that is a list of texts, or one text.
func groups(claim json.RawMessage) (all []string, err error) {
	if len(claim) == 0 {
		return nil, nil
	}
	if strings.HasPrefix(string(claim), `"`) {
		all = make([]string, 1)
		return all, json.Unmarshal(claim, &all[0])
	}
	if err := json.Unmarshal(claim, &all); err != nil {
		return nil, errors.New("the claim of groups is not a list of texts")
	}
	if len(all) > maxGroups {
		return nil, fmt.Errorf("token names more than %d groups", maxGroups)
	}
	return all, nil
}
