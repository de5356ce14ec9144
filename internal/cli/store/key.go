package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"kluis/internal/cli"
	"kluis/internal/objects"
	"kluis/internal/recovery"
	"kluis/internal/seal"
	"kluis/internal/secret"
)

const (
	keyFileVariable = "KLUIS_STORE_KEY_FILE"

	// keyDocument is where a server keeps the wrapped key of a store.
	keyDocument = "key.age"
)

// keySource says where the master key of a store comes from.
type keySource struct{ file, identity string }

// path is the key file that was named, by flag or variable.
func (k keySource) path() (string, error) {
	switch {
	case k.file != "":
		return k.file, nil
	case os.Getenv(keyFileVariable) != "":
		return os.Getenv(keyFileVariable), nil
	}
	return "", cli.UsageError(fmt.Errorf("no key: give --key-file, set %s, or give --identity for the store of a server", keyFileVariable))
}

// read returns the master key of the store in b.
func (k keySource) read(ctx context.Context, b objects.Bucket) (secret.Bytes, error) {
	if k.identity == "" {
		path, err := k.path()
		if err != nil {
			return secret.Bytes{}, err
		}
		return seal.ReadKeyFile(path)
	}
	if k.file != "" {
		return secret.Bytes{}, cli.UsageError(errors.New("give --key-file or --identity, not both"))
	}
	wrapped, err := recovery.ReadDocument(ctx, b, keyDocument)
	if errors.Is(err, objects.ErrNotExist) {
		return secret.Bytes{}, fmt.Errorf("the store holds no wrapped key: %w; it is not the store of a server, give --key-file", err)
	} else if err != nil {
		return secret.Bytes{}, err
	}
	key, err := seal.UnwrapWith(k.identity, wrapped)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("open the store's wrapped key with %s: %w", k.identity, err)
	}
	return secret.New(key), nil
}

// readOrCreate returns the key of a store that is to be made: that of the file, or a new one in a new file.
func (k keySource) readOrCreate() (key secret.Bytes, path string, created bool, err error) {
	if path, err = k.path(); err != nil {
		return secret.Bytes{}, "", false, err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		key, err = seal.CreateKeyFile(path, rand.Reader)
		return key, path, err == nil, err
	}
	key, err = seal.ReadKeyFile(path)
	return key, path, false, err
}
