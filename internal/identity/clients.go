package identity

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"kluis/internal/database"
	"kluis/internal/secret"
)

// People sign in to a client: one of Azure's own programs, which run on a person's machine and can't keep a secret, or
// an application of the directory, which proves itself when it fetches the tokens. Where a sign-in leads back to is
// decided here, since whoever gets to choose that gets the code: Azure's programs listen on the machine itself, on any port;
// an application has redirect URIs, each exact.

// Client is a program or an application that a person signs in to.
type Client struct {
	ID     string
	Name   string
	Public bool // a program on somebody's machine: PKCE proves that who asked is who fetches
}

// programs are the client ids that Azure's clients were built with.
var programs = map[string]string{
	"04b07795-8ddb-461a-bbee-02f9e1bf7b46": "Azure CLI", // azd and the SDKs send it, too
	"1950a258-227b-4e31-a9cf-717495945fc2": "Azure PowerShell",
	"579a7132-0e58-4d80-b1e1-7a1e2d337859": "AzCopy",
	"aebc6443-996d-45c2-90f0-388ff96faa56": "Visual Studio Code",
}

const (
	maxRedirectURIs = 20
	maxRedirectURI  = 1024
)

func program(clientID string) (Client, bool) {
	id := strings.ToLower(clientID)
	name, known := programs[id]
	return Client{ID: id, Name: name, Public: true}, known
}

// ClientAt returns the client that a sign-in is for, if it may lead back to that redirect URI. As long as it
// does not, nobody is sent there, not even with an error.
func (s *Service) ClientAt(ctx context.Context, clientID, redirectURI string) (Client, error) {
	if c, known := program(clientID); known {
		if !isLoopback(redirectURI) {
			return Client{}, wrongRedirectURI(redirectURI, c.ID)
		}
		return c, nil
	}
	p, _, err := s.client(ctx, clientID)
	if err != nil {
		return Client{}, err
	}
	uris, err := s.redirectURIs(ctx, p.ObjectID)
	if err != nil {
		return Client{}, err
	}
	if !slices.Contains(uris, redirectURI) {
		return Client{}, wrongRedirectURI(redirectURI, p.AppID)
	}
	return Client{ID: p.AppID, Name: p.Name}, nil
}

// isLoopback accepts http://localhost:PORT and http://127.0.0.1:PORT, where a program on the person's own machine listens.
func isLoopback(text string) bool {
	rest, isHTTP := strings.CutPrefix(text, "http://")
	if !isHTTP {
		return false
	}
	host, port, found := strings.Cut(strings.TrimSuffix(rest, "/"), ":")
	n, err := strconv.ParseUint(port, 10, 16)
	return found && (host == "localhost" || host == "127.0.0.1") && err == nil && n > 0 && strconv.FormatUint(n, 10) == port
}

// SetRedirectURIs says where sign-ins to an application may lead back to; those from before are gone.
func (s *Service) SetRedirectURIs(ctx context.Context, idOrAppID string, uris []string) error {
	if len(uris) > maxRedirectURIs {
		return badRedirectURI("there are more than " + strconv.Itoa(maxRedirectURIs))
	}
	for _, uri := range uris {
		if err := checkRedirectURI(uri); err != nil {
			return err
		}
	}
	return s.db.InTx(ctx, func(tx *database.Tx) error {
		p, err := s.application(ctx, tx, idOrAppID)
		if err != nil {
			return err
		}
		return replaceRedirectURIs(ctx, tx, p.ObjectID, slices.Compact(slices.Sorted(slices.Values(uris))))
	})
}

// checkRedirectURI wants https, or http on the machine itself.
func checkRedirectURI(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || len(text) > maxRedirectURI || strings.ContainsFunc(text, notURI):
		return badRedirectURI("one is not a URL")
	case u.Host == "" || u.User != nil || strings.Contains(text, "#"):
		return badRedirectURI(fmt.Sprintf("%.100q has no host, or a user or a fragment", text))
	case u.Scheme == "https" || u.Scheme == "http" && isOwnMachine(u.Hostname()):
		return nil
	}
	return badRedirectURI(fmt.Sprintf("%.100q is neither https nor on the machine itself", text))
}

func notURI(r rune) bool { return r <= 0x20 || r >= 0x7f || r == '\\' || r == '*' }

func isOwnMachine(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (s *Service) redirectURIs(ctx context.Context, objectID string) (uris []string, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		uris, err = redirectURIsOf(ctx, tx, objectID)
		return err
	})
	return uris, err
}

// Proof is how a client proves itself at a token endpoint. Azure's programs have none.
type Proof struct {
	Secret    secret.Bytes
	Assertion string
	Endpoints []string // that an assertion may be for
}

func (p Proof) empty() bool { return p.Secret.Len() == 0 && p.Assertion == "" }

// admit lets a client fetch what a person let it have. use says what an assertion is spent on.
func (s *Service) admit(ctx context.Context, clientID string, proof Proof, use string) (Client, error) {
	if c, known := program(clientID); known {
		if !proof.empty() {
			return Client{}, publicClient(c.ID)
		}
		return c, nil
	}
	p, err := s.prove(ctx, clientID, proof, use)
	return Client{ID: p.AppID, Name: p.Name}, err
}
