package seal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"
)

// A recovery kit is one text file that opens all that a server has sealed when the server is gone: its identities, and
// root.age as it was when the kit was made. The identities stand in it as in any identity file and the rest is in comments,
// so `age -d -i KIT` and everything that takes an identity file takes a kit.

const (
	kitHeader = "# Kluis recovery kit, version 1"
	kitRoot   = "# root: "
)

// Kit is what a recovery kit holds beside the keys.
type Kit struct {
	Made  time.Time
	Notes []string // whatever a person needs to know; one line each
}

// WriteKit returns the recovery kit of a seal folder. It is a secret as a whole. Before it is returned it has opened
// the root key.
func WriteKit(dir string, o Options, k Kit) ([]byte, error) {
	if o.Identity == "" {
		o.Identity = filepath.Join(dir, IdentityFile)
	}
	ids, err := o.identities()
	if errors.Is(err, fs.ErrNotExist) {
		if kept, keptErr := o.outsideIdentities(dir); !errors.Is(keptErr, fs.ErrNotExist) {
			ids, err = kept, keptErr
		}
	}
	if err != nil {
		return nil, err
	}
	wrapped, err := readBounded(filepath.Join(dir, RootFile))
	if err != nil {
		return nil, fmt.Errorf("read wrapped root key: %w", err)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s, made %s\n#\n", kitHeader, k.Made.UTC().Format(time.RFC3339))
	for _, note := range k.Notes {
		fmt.Fprintf(&out, "# %s\n", strings.NewReplacer("\n", " ", "\r", " ").Replace(note))
	}
	out.WriteString("#\n")
	for text := base64.StdEncoding.EncodeToString(wrapped); text != ""; {
		n := min(64, len(text))
		fmt.Fprintf(&out, "%s%s\n", kitRoot, text[:n])
		text = text[n:]
	}
	for _, id := range ids {
		fmt.Fprintf(&out, "# public key: %s\n%s\n", id.Recipient(), id)
	}
	if _, err := openKit(out.Bytes(), nil); err != nil {
		return nil, fmt.Errorf("try the recovery kit: %w", err)
	}
	return out.Bytes(), nil
}

// OpenKit opens the root keys that a recovery kit holds. Such a root seals and opens, and can't be rotated.
func OpenKit(path string, rand io.Reader) (*Root, error) {
	if err := checkMode(path); err != nil {
		return nil, fmt.Errorf("read recovery kit: %w", err)
	}
	text, err := readBounded(path)
	if err != nil {
		return nil, fmt.Errorf("read recovery kit: %w", err)
	}
	defer clear(text)
	return openKit(text, rand)
}

func openKit(text []byte, rand io.Reader) (*Root, error) {
	if !bytes.HasPrefix(text, []byte(kitHeader)) {
		return nil, errors.New("this is not a recovery kit")
	}
	var encoded strings.Builder
	for line := range strings.Lines(string(text)) {
		if part, ok := strings.CutPrefix(line, kitRoot); ok {
			encoded.WriteString(strings.TrimSpace(part))
		}
	}
	wrapped, err := base64.StdEncoding.DecodeString(encoded.String())
	if err != nil || len(wrapped) == 0 {
		return nil, errors.New("the recovery kit is damaged: it holds no root key")
	}
	ids, err := parseIdentities("recovery kit", text)
	if err != nil {
		return nil, err
	}
	return openRoot(wrapped, ids, rand)
}
