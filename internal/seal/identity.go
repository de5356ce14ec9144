package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"filippo.io/age"
	"filippo.io/age/armor"

	"kluis/internal/secret"
)

// Where the identities come from that unwrap the root at start: a credential of systemd, else the identity file, which a
// passphrase may protect (it is then what `age -p` makes of it).

// The names of systemd's credentials (LoadCredentialEncrypted=).
const (
	IdentityCredential   = "kluis-seal-identity"
	PassphraseCredential = "kluis-seal-passphrase"
)

// ErrPassphrase means that the passphrase doesn't open the identity file, or that one is needed, or not needed.
var ErrPassphrase = errors.New("passphrase of the identity file")

// identities reads the identities; fs.ErrNotExist if there are none yet.
func (o Options) identities() ([]*age.X25519Identity, error) {
	if o.Credentials != "" {
		text, err := readBounded(filepath.Join(o.Credentials, IdentityCredential))
		if err == nil { // systemd gives it to this service alone
			defer clear(text)
			return parseIdentities("credential "+IdentityCredential, text)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read credential: %w", err)
		}
	}
	if err := checkMode(o.Identity); err != nil {
		return nil, fmt.Errorf("read identity file: %w", err)
	}
	text, err := readBounded(o.Identity)
	if err != nil {
		return nil, fmt.Errorf("read identity file: %w", err)
	}
	defer func() { clear(text) }()
	passphrase, err := o.passphrase()
	if err != nil {
		return nil, err
	}
	protected := isEncrypted(text)
	switch {
	case protected && passphrase.Len() == 0:
		return nil, fmt.Errorf("%w: %s is protected by one, and none is given", ErrPassphrase, o.Identity)
	case !protected && passphrase.Len() > 0:
		return nil, fmt.Errorf("%w: one is given, but %s is not protected by it; protect the file with: age -p", ErrPassphrase, o.Identity)
	case protected:
		if text, err = decryptIdentities(text, passphrase); err != nil {
			return nil, fmt.Errorf("%w: it doesn't open %s", ErrPassphrase, o.Identity)
		}
	}
	return parseIdentities("identity file "+o.Identity, text)
}

func (o Options) passphrase() (secret.Bytes, error) {
	if o.Credentials == "" {
		return o.Passphrase, nil
	}
	text, err := readBounded(filepath.Join(o.Credentials, PassphraseCredential))
	if errors.Is(err, fs.ErrNotExist) {
		return o.Passphrase, nil
	}
	return secret.New(bytes.TrimRight(text, "\r\n")), err
}

// ReadPassphrase reads a passphrase from a file that only its owner can read. A line end is not part of it.
func ReadPassphrase(path string) (secret.Bytes, error) {
	if err := checkMode(path); err != nil {
		return secret.Bytes{}, fmt.Errorf("read passphrase: %w", err)
	}
	text, err := readBounded(path)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("read passphrase: %w", err)
	}
	p := secret.New(bytes.TrimRight(text, "\r\n"))
	if p.Len() == 0 {
		return secret.Bytes{}, fmt.Errorf("%w: the file %s is empty", ErrPassphrase, path)
	}
	return p, nil
}

func isEncrypted(text []byte) bool {
	text = bytes.TrimSpace(text)
	return bytes.HasPrefix(text, []byte("age-encryption.org/")) || bytes.HasPrefix(text, []byte(armor.Header))
}

func decryptIdentities(text []byte, passphrase secret.Bytes) ([]byte, error) {
	id, err := age.NewScryptIdentity(string(passphrase.Reveal()))
	if err != nil {
		return nil, err
	}
	var in io.Reader = bytes.NewReader(text)
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte(armor.Header)) {
		in = armor.NewReader(bytes.NewReader(text))
	}
	out, err := age.Decrypt(in, id)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(out, maxFile))
}

func parseIdentities(where string, text []byte) ([]*age.X25519Identity, error) {
	parsed, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		// age's own error may quote the line, which is the secret.
		return nil, fmt.Errorf("%s is not a list of age identities", where)
	}
	ids := make([]*age.X25519Identity, 0, len(parsed))
	for _, p := range parsed {
		id, ok := p.(*age.X25519Identity)
		if !ok {
			return nil, fmt.Errorf("%s holds an identity that is not X25519", where)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// createIdentity makes an identity and its file, protected by the passphrase if there is one.
func (o Options) createIdentity() ([]*age.X25519Identity, error) {
	passphrase, err := o.passphrase()
	if err != nil {
		return nil, fmt.Errorf("read credential: %w", err)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	text := fmt.Appendf(nil, "# Opens everything that this server seals. Keep a copy offline; show it to nobody.\n# public key: %s\n%s\n", id.Recipient(), id)
	defer func() { clear(text) }()
	if passphrase.Len() > 0 {
		if text, err = protect(text, passphrase); err != nil {
			return nil, fmt.Errorf("protect identity: %w", err)
		}
	}
	if err := createFile(o.Identity, text); err != nil {
		return nil, fmt.Errorf("write identity file: %w", err)
	}
	return []*age.X25519Identity{id}, nil
}

// workFactor is how far a passphrase is stretched, as a power of two: age's own choice, about a second.
var workFactor = 18

func protect(text []byte, passphrase secret.Bytes) ([]byte, error) {
	to, err := age.NewScryptRecipient(string(passphrase.Reveal()))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	to.SetWorkFactor(workFactor)
	armored := armor.NewWriter(&out)
	w, err := age.Encrypt(armored, to)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := errors.Join(w.Close(), armored.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
