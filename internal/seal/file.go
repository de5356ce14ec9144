package seal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"

	"kluis/internal/secret"
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
	Rand        io.Reader    // root keys and nonces; crypto/rand when nil
	Identity    string       // path of the identity file; IdentityFile in the folder when empty
	Passphrase  secret.Bytes // opens an identity file that a passphrase protects, and protects a new one
	Credentials string       // folder of systemd's credentials ($CREDENTIALS_DIRECTORY), which come before the files; may be empty
	Outside     Outside      // asked for the identity where there is no file of it; nil: nobody is asked
}

// OpenOrCreate opens the root keys of a folder. The first time it makes identity and root; created
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
	ids, err := o.identities()
	fromFile := err == nil
	if errors.Is(err, fs.ErrNotExist) && hasRoot {
		ids, err = o.outsideIdentities(dir)
	}
	switch {
	case err == nil && hasRoot:
		r, err = openRoot(wrapped, ids, o.Rand)
	case errors.Is(err, fs.ErrNotExist) && hasRoot:
		return nil, false, fmt.Errorf("%w: %s holds a root key, but %s, which opens it, is not there; put it back from your copy", ErrNoIdentity, rootPath, o.Identity)
	case errors.Is(err, fs.ErrNotExist):
		if ids, err = o.createIdentity(); err == nil {
			r, err = createRoot(rootPath, ids, o.Rand)
		}
	case err == nil:
		r, err = createRoot(rootPath, ids, o.Rand)
	}
	if err != nil {
		return nil, false, err
	}
	r.path, r.outside, r.fromFile = rootPath, o.Outside, fromFile || !hasRoot
	return r, !hasRoot, nil
}

// OpenWith opens root keys by an identity file and the bytes of a root.age, wherever they come from. Such a
// root seals and opens; it can't be rotated, for there is no file to write.
func OpenWith(identityFile string, passphrase secret.Bytes, wrapped []byte, rand io.Reader) (*Root, error) {
	ids, err := Options{Identity: identityFile, Passphrase: passphrase}.identities()
	if err != nil {
		return nil, err
	}
	return openRoot(wrapped, ids, rand)
}

func openRoot(wrapped []byte, ids []*age.X25519Identity, rand io.Reader) (*Root, error) {
	r := newRoot(ids, rand)
	plain, err := unwrap(wrapped, r.identities)
	if err != nil {
		return nil, fmt.Errorf("unwrap root key: %w", err)
	}
	defer clear(plain)
	if r.ring, err = parseRing(plain, r.own); err != nil {
		return nil, fmt.Errorf("read root key: %w", err)
	}
	return r, nil
}

func newRoot(ids []*age.X25519Identity, rand io.Reader) *Root {
	r := &Root{rand: rand}
	for _, i := range ids {
		r.identities = append(r.identities, i)
		r.own = append(r.own, i.Recipient().String())
	}
	return r
}

func createRoot(path string, ids []*age.X25519Identity, rand io.Reader) (*Root, error) {
	r := newRoot(ids, rand)
	root, err := drawRoot(rand)
	if err != nil {
		return nil, err
	}
	r.ring = ring{[]rootKey{root}, r.own}
	wrapped, err := r.ring.wrap()
	if err != nil {
		return nil, err
	}
	if err := createFile(path, wrapped); err != nil {
		return nil, fmt.Errorf("write wrapped root key: %w", err)
	}
	return r, nil
}

func drawRoot(rand io.Reader) (rootKey, error) {
	key := make([]byte, rootSize)
	if _, err := io.ReadFull(rand, key); err != nil {
		return rootKey{}, fmt.Errorf("draw root key: %w", err)
	}
	return newRootKey(key)
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

// replaceFile puts a file in the place of another, whole and durable, or leaves the other.
func replaceFile(path string, data []byte) error {
	unfinished := path + ".new"
	if err := os.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(unfinished, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(unfinished) }() // gone already when all went well
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(unfinished, path); err != nil {
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
