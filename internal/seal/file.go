package seal

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"
)

// The names of the two files in the folder given to OpenOrCreate.
const (
	IdentityFile = "seal-identity.txt"
	RootFile     = "root.age"
)

const maxFile = 64 << 10

// Errors of OpenOrCreate that a caller tells apart.
var (
	// ErrExposed means that an identity file or a key file can be read by others than its owner.
	ErrExposed = errors.New("key material is readable by others")
	// ErrNoIdentity means that a wrapped root key is there but nothing that unwraps it.
	ErrNoIdentity = errors.New("identity file is missing")
)

// Options are what OpenOrCreate takes from outside.
type Options struct {
	Rand     io.Reader // root key and nonces; crypto/rand when nil
	Identity string    // path of the identity file; IdentityFile in the folder when empty
}

// OpenOrCreate opens the root key of a folder. The first time it makes identity and root; created
// tells so, because the person who runs the server must hear where the identity lies.
//
// It never makes a new identity beside an existing root (ErrNoIdentity), and never uses an
// identity that others can read (ErrExposed). The identity is durable before the root is written, and each file
// appears whole or not at all, so a start that was killed is simply continued by the next one.
func OpenOrCreate(dir string, o Options) (r *Root, created bool, err error) {
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Identity == "" {
		o.Identity = filepath.Join(dir, IdentityFile)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, false, fmt.Errorf("make folder for the seal: %w", err)
	}
	rootPath := filepath.Join(dir, RootFile)
	wrapped, err := readBounded(rootPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("read wrapped root key: %w", err)
	}
	hasRoot := err == nil
	ids, err := readIdentities(o.Identity)
	switch {
	case err == nil && hasRoot:
		r, err = openRoot(wrapped, ids, o.Rand)
		return r, false, err
	case errors.Is(err, fs.ErrNotExist) && hasRoot:
		return nil, false, fmt.Errorf("%w: %s holds a root key, but %s, which opens it, is not there; put it back from your copy", ErrNoIdentity, rootPath, o.Identity)
	case errors.Is(err, fs.ErrNotExist):
		if ids, err = createIdentity(o.Identity); err != nil {
			return nil, false, err
		}
	case err != nil:
		return nil, false, err
	}
	r, err = createRoot(rootPath, ids, o.Rand)
	return r, err == nil, err
}

func openRoot(wrapped []byte, ids []*age.X25519Identity, rand io.Reader) (*Root, error) {
	with := make([]age.Identity, len(ids))
	for i, id := range ids {
		with[i] = id
	}
	key, err := unwrap(wrapped, with)
	if err != nil {
		return nil, fmt.Errorf("unwrap root key: %w", err)
	}
	return newRoot(key, ids, rand)
}

func createRoot(path string, ids []*age.X25519Identity, rand io.Reader) (*Root, error) {
	key := make([]byte, rootSize)
	if _, err := io.ReadFull(rand, key); err != nil {
		return nil, fmt.Errorf("draw root key: %w", err)
	}
	r, err := newRoot(key, ids, rand)
	if err != nil {
		return nil, err
	}
	wrapped, err := r.Wrap(key)
	if err != nil {
		return nil, fmt.Errorf("wrap root key: %w", err)
	}
	if err := createFile(path, wrapped); err != nil {
		return nil, fmt.Errorf("write wrapped root key: %w", err)
	}
	return r, nil
}

func createIdentity(path string) ([]*age.X25519Identity, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	text := fmt.Sprintf("# Opens everything that this server seals. Keep a copy offline; show it to nobody.\n# public key: %s\n%s\n", id.Recipient(), id)
	if err := createFile(path, []byte(text)); err != nil {
		return nil, fmt.Errorf("write identity file: %w", err)
	}
	return []*age.X25519Identity{id}, nil
}

func readIdentities(path string) ([]*age.X25519Identity, error) {
	if err := checkMode(path); err != nil {
		return nil, fmt.Errorf("read identity file: %w", err)
	}
	text, err := readBounded(path)
	if err != nil {
		return nil, fmt.Errorf("read identity file: %w", err)
	}
	defer clear(text)
	parsed, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		// age's own error may quote the line, which is the secret.
		return nil, fmt.Errorf("identity file %s is not a list of age identities", path)
	}
	ids := make([]*age.X25519Identity, 0, len(parsed))
	for _, p := range parsed {
		id, ok := p.(*age.X25519Identity)
		if !ok {
			return nil, fmt.Errorf("identity file %s holds an identity that is not X25519", path)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return b, nil
}

// createFile makes a file that appears whole and durable, or not at all; it fails if the name is taken.
// The unfinished file has a fixed name, so that one left by a kill is replaced, not gathered.
func createFile(path string, data []byte) error {
	unfinished := path + ".new"
	if err := os.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(unfinished, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(unfinished) }() // the linked file stays
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err := os.Link(unfinished, path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}
