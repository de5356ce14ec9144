package keyvault

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Kind is what a key vault holds: it is the word in URLs and the group of permissions.
type Kind string

// The two kinds.
const (
	Keys    Kind = "keys"
	Secrets Kind = "secrets"
)

// word is the kind in a sentence.
func (k Kind) word() string {
	if k == Keys {
		return "key"
	}
	return "secret"
}

// KeyID names a key, or one version of it. Version may be empty: the newest.
type KeyID struct{ Vault, Name, Version string }

// SecretID names a secret, or one version of it. Version may be empty: the newest.
type SecretID struct{ Vault, Name, Version string }

// ParseKeyID reads a key's URL, "https://{vault}.{suffix}[:port]/keys/{name}[/{version}]", of any suffix.
func ParseKeyID(s string) (KeyID, error) {
	t, err := parseURL(Keys, s)
	return KeyID{t.vault, t.name, t.version}, err
}

// ParseSecretID reads a secret's URL, "https://{vault}.{suffix}[:port]/secrets/{name}[/{version}]", of any suffix.
func ParseSecretID(s string) (SecretID, error) {
	t, err := parseURL(Secrets, s)
	return SecretID{t.vault, t.name, t.version}, err
}

// KeyURL returns the URL of a key in this installation.
func (s *Service) KeyURL(id KeyID) string { return s.url(target{Keys, id.Vault, id.Name, id.Version}) }

// SecretURL returns the URL of a secret in this installation.
func (s *Service) SecretURL(id SecretID) string {
	return s.url(target{Secrets, id.Vault, id.Name, id.Version})
}

// VaultURL returns the URI of a key vault, with the slash that Azure ends it with.
func (s *Service) VaultURL(name string) string { return "https://" + name + "." + s.o.DNSSuffix + "/" }

func (s *Service) url(t target) string {
	u := s.VaultURL(t.vault) + string(t.kind) + "/" + t.name
	if t.version != "" {
		u += "/" + t.version
	}
	return u
}

// target is a key or a secret or one version of it.
type target struct {
	kind                 Kind
	vault, name, version string
}

func (t target) String() string { return t.vault + "/" + string(t.kind) + "/" + t.name }

// context is what a version's sealed bytes are bound to. Names hold no slash, so it can't be ambiguous.
func (t target) context() string {
	return "keyvault/" + fold(t.vault) + "/" + string(t.kind) + "/" + fold(t.name) + "/" + t.version
}

const maxURL = 1024

func parseURL(kind Kind, s string) (target, error) {
	if len(s) > maxURL {
		return target{}, fmt.Errorf("%s URL is longer than %d characters", kind.word(), maxURL)
	}
	u, err := url.Parse(s)
	if err != nil {
		return target{}, fmt.Errorf("%s URL is not a URL", kind.word())
	}
	if !strings.EqualFold(u.Scheme, "https") || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return target{}, fmt.Errorf("%s URL is not of the form https://{vault}.{suffix}/%s/{name}/{version}", kind.word(), kind)
	}
	vault, suffix, _ := strings.Cut(u.Hostname(), ".")
	parts := strings.Split(strings.TrimSuffix(strings.TrimPrefix(u.Path, "/"), "/"), "/")
	if suffix == "" || len(parts) < 2 || len(parts) > 3 || !strings.EqualFold(parts[0], string(kind)) {
		return target{}, fmt.Errorf("%s URL is not of the form https://{vault}.{suffix}/%s/{name}/{version}", kind.word(), kind)
	}
	t := target{kind: kind, vault: vault, name: parts[1]}
	if len(parts) == 3 {
		t.version = fold(parts[2])
	}
	if err := t.check(); err != nil {
		return target{}, fmt.Errorf("%s URL: %w", kind.word(), err)
	}
	return t, nil
}

func (t target) check() error {
	switch {
	case !validVaultName(t.vault):
		return errors.New("the key vault's name is malformed")
	case !validObjectName(t.name):
		return fmt.Errorf("the %s's name is malformed", t.kind.word())
	case t.version != "" && !validVersion(t.version):
		return errors.New("the version is malformed")
	}
	return nil
}

// validVaultName follows Azure: 3 to 24 letters, digits and hyphens, a letter first, no hyphen last or doubled.
func validVaultName(s string) bool {
	return len(s) >= 3 && len(s) <= 24 && isLetter(s[0]) && validObjectName(s) &&
		s[len(s)-1] != '-' && !strings.Contains(s, "--")
}

// validObjectName follows Azure: 1 to 127 letters, digits and hyphens.
func validObjectName(s string) bool {
	if len(s) < 1 || len(s) > 127 {
		return false
	}
	for i := range len(s) {
		if !isLetter(s[i]) && !isDigit(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}

func validVersion(s string) bool {
	if len(s) != 32 {
		return false
	}
	for i := range len(s) {
		if !isDigit(s[i]) && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return true
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

// fold gives names that differ only in case the same form. Names are ASCII.
func fold(s string) string { return strings.ToLower(s) }
