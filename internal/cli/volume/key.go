package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"kluis/internal/cli"
	"kluis/internal/secret"
	"kluis/internal/volume/bitlocker"
)

// keySource is where the key comes from; the flags exclude each other.
type keySource struct {
	file               string
	password, recovery bool
}

// maxKeyFile is cryptsetup's own limit on key files.
const maxKeyFile = 8 << 20

// maxLine bounds a password.
const maxLine = 4096

// read returns the key and whether one was given.
func (k keySource) read(stdin io.Reader) (secret.Bytes, bool, error) {
	switch {
	case k.file != "":
		f, err := os.Open(k.file)
		if err != nil {
			return secret.Bytes{}, false, fmt.Errorf("read the key: %w", err)
		}
		defer func() { _ = f.Close() }() // only read
		key, err := readSome(f, maxKeyFile)
		if err != nil {
			return secret.Bytes{}, false, fmt.Errorf("read the key file %s: %w", k.file, err)
		}
		return secret.New(key), true, nil
	case k.password || k.recovery:
		line, err := readSome(stdin, maxLine)
		if err != nil {
			return secret.Bytes{}, false, fmt.Errorf("read the password from standard input: %w", err)
		}
		line, _, _ = bytes.Cut(line, []byte("\n"))
		key := secret.New(bytes.TrimSuffix(line, []byte("\r")))
		if k.recovery {
			check, err := bitlocker.RecoveryPassword(key)
			if err != nil {
				return secret.Bytes{}, false, cli.UsageError(err)
			}
			check.Wipe()
		}
		return key, true, nil
	}
	return secret.Bytes{}, false, nil
}

func readSome(r io.Reader, most int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) == 0:
		return nil, errors.New("it is empty")
	case len(b) > most:
		return nil, fmt.Errorf("it has more than %d bytes", most)
	}
	return b, nil
}
