package seal

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"filippo.io/age"

	"kluis/internal/secret"
)

// A key file holds one key of 32 bytes as 64 hex digits and a line feed. It is for recovery stores that
// belong to no server; nothing wraps it, so it must be kept apart from the store.

// CreateKeyFile makes a key file with a new key, of mode 0600. It fails with fs.ErrExist if the name is taken.
func CreateKeyFile(path string, rand io.Reader) (secret.Bytes, error) {
	key := make([]byte, rootSize)
	if _, err := io.ReadFull(rand, key); err != nil {
		return secret.Bytes{}, fmt.Errorf("draw key: %w", err)
	}
	text := append(hex.AppendEncode(nil, key), '\n')
	defer clear(text)
	if err := createFile(path, text); err != nil {
		return secret.Bytes{}, fmt.Errorf("write key file: %w", err)
	}
	return secret.New(key), nil
}

// ReadKeyFile reads a key file. One that others can read is refused with ErrExposed.
func ReadKeyFile(path string) (secret.Bytes, error) {
	if err := checkMode(path); err != nil {
		return secret.Bytes{}, fmt.Errorf("read key file: %w", err)
	}
	text, err := readBounded(path)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("read key file: %w", err)
	}
	defer clear(text)
	key := make([]byte, hex.DecodedLen(len(bytes.TrimSpace(text))))
	if n, err := hex.Decode(key, bytes.TrimSpace(text)); err != nil || n != rootSize {
		clear(key)
		return secret.Bytes{}, fmt.Errorf("key file %s does not hold %d hex digits", path, 2*rootSize)
	}
	return secret.New(key), nil
}

// UnwrapWith returns what Wrap was given, by the identity file alone: when root key and database are gone.
func UnwrapWith(identityFile string, wrapped []byte) ([]byte, error) {
	ids, err := Options{Identity: identityFile}.identities()
	if err != nil {
		return nil, err
	}
	with := make([]age.Identity, len(ids))
	for i, id := range ids {
		with[i] = id
	}
	return unwrap(wrapped, with)
}

// checkMode refuses a file that others than its owner can read.
func checkMode(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%w: %s has mode %04o; run: chmod 600 %s", ErrExposed, path, mode, path)
	}
	return nil
}
