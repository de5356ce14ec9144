package seal

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"

	"kluis/internal/secret"
)

// A recipient may be a key in a key service outside: an Azure key vault, or a transit engine. It wraps the server's
// identities, not the roots: so it is asked when it is added and at a start, and not for each change and each recovery
// store. Then the identity file need not lie on this machine.
//
// Each has a file of its own beside root.age, outside-{16 hex digits of SHA-256 of the recipient}.age: age version 1 with the
// identities in it, and this one stanza, in whose body is what the key service returned for the file key:
//
//	-> kluis-outside {recipient}
//
// Which recipients there are stands in root.age, with all others. Files that are not named there are not opened by what
// they say but by what they hold: an identity that opens root.age.

// Outside asks key services. It waits no longer than is bearable at a start.
type Outside interface {
	Wrap(recipient string, plain []byte) ([]byte, error)
	Unwrap(recipient string, wrapped []byte) (secret.Bytes, error)
}

// Errors of recipients outside that a caller tells apart.
var (
	// ErrOutside means that a key service did not wrap or unwrap; its own error says why.
	ErrOutside = errors.New("the key service outside did not do it")
	// ErrLastOutside means that without this recipient the server could not start any more.
	ErrLastOutside = errors.New("there is no identity file here: without this recipient the server could not start any more")
)

const outsideStanza = "kluis-outside"

// isOutside tells the recipients of key services from those of age, age1….
func isOutside(recipient string) bool { return strings.Contains(recipient, ":https://") }

const maxRecipient = 1024

// checkOutside refuses what can't stand in a stanza. What else is wrong with it, the key service tells.
func checkOutside(recipient string) error {
	for _, c := range []byte(recipient) {
		if c <= ' ' || c > '~' {
			return ErrNotRecipient
		}
	}
	if len(recipient) > maxRecipient {
		return ErrNotRecipient
	}
	return nil
}

func outsideFile(dir, recipient string) string {
	sum := sha256.Sum256([]byte(recipient))
	return filepath.Join(dir, fmt.Sprintf("outside-%x.age", sum[:8]))
}

// outsideRecipient wraps an age file key by a key service.
type outsideRecipient struct {
	outside Outside
	name    string
}

// Wrap implements age.Recipient.
func (r outsideRecipient) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	body, err := r.outside.Wrap(r.name, fileKey)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOutside, err)
	}
	return []*age.Stanza{{Type: outsideStanza, Args: []string{r.name}, Body: body}}, nil
}

// outsideIdentity unwraps it.
type outsideIdentity struct{ outside Outside }

// Unwrap implements age.Identity.
func (i outsideIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, s := range stanzas {
		if s.Type != outsideStanza || len(s.Args) != 1 {
			continue
		}
		key, err := i.outside.Unwrap(s.Args[0], s.Body)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrOutside, err)
		}
		return key.Reveal(), nil
	}
	return nil, age.ErrIncorrectIdentity
}

// wrapOutside writes the identities for a recipient outside, and makes sure that it gives them back.
func (r *Root) wrapOutside(recipient string) error {
	if r.outside == nil {
		return fmt.Errorf("%w: no key service is named to this server", ErrOutside)
	}
	var text bytes.Buffer
	defer func() { clear(text.Bytes()) }()
	for _, id := range r.identities {
		fmt.Fprintln(&text, id.(*age.X25519Identity))
	}
	var wrapped bytes.Buffer
	w, err := age.Encrypt(&wrapped, outsideRecipient{r.outside, recipient})
	if err != nil {
		return fmt.Errorf("wrap identity: %w", err)
	}
	if _, err := w.Write(text.Bytes()); err != nil {
		return fmt.Errorf("wrap identity: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("wrap identity: %w", err)
	}
	if _, err := unwrapOutside(r.outside, wrapped.Bytes()); err != nil {
		return fmt.Errorf("try to unwrap identity again: %w", err)
	}
	if err := replaceFile(outsideFile(filepath.Dir(r.path), recipient), wrapped.Bytes()); err != nil {
		return fmt.Errorf("write wrapped identity: %w", err)
	}
	return nil
}

func unwrapOutside(o Outside, wrapped []byte) ([]*age.X25519Identity, error) {
	plain, err := age.Decrypt(bytes.NewReader(wrapped), outsideIdentity{o})
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(plain, maxFile))
	defer clear(text)
	if err != nil {
		return nil, err
	}
	return parseIdentities("what the key service unwrapped", text)
}

// outsideIdentities opens the identities by the first key service that unwraps them; fs.ErrNotExist if none has any.
func (o Options) outsideIdentities(dir string) ([]*age.X25519Identity, error) {
	files, err := filepath.Glob(filepath.Join(globQuoted(dir), "outside-*.age"))
	if err != nil || len(files) == 0 {
		return nil, errors.Join(fs.ErrNotExist, err)
	}
	if o.Outside == nil {
		return nil, fmt.Errorf("%w: the identity is wrapped by one, and no key service is named to this server", ErrOutside)
	}
	var failed []error
	for _, file := range files {
		wrapped, err := readBounded(file)
		if err == nil {
			var ids []*age.X25519Identity
			if ids, err = unwrapOutside(o.Outside, wrapped); err == nil {
				return ids, nil
			}
		}
		failed = append(failed, fmt.Errorf("%s: %w", filepath.Base(file), err))
	}
	return nil, fmt.Errorf("open the identity by key services outside: %w", errors.Join(failed...))
}

// globQuoted is a folder's name as a pattern that matches it alone.
func globQuoted(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

// dropOutside removes the file of a recipient outside, unless the server starts by it alone.
func (r *Root) dropOutside(recipient string) error {
	others := slices.ContainsFunc(r.current().recipients, func(other string) bool { return isOutside(other) && other != recipient })
	if !r.fromFile && !others {
		return ErrLastOutside
	}
	if err := os.Remove(outsideFile(filepath.Dir(r.path), recipient)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove wrapped identity: %w", err)
	}
	return syncFolder(filepath.Dir(r.path))
}

// ageOnly are the recipients to whom age encrypts.
func ageOnly(recipients []string) []string {
	return slices.DeleteFunc(slices.Clone(recipients), isOutside)
}
