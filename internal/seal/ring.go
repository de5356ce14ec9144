package seal

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"filippo.io/age"
)

// What can be done with the root keys and their recipients. Each change writes root.age anew and takes effect when that
// is durable.

// Errors of changes that a caller tells apart.
var (
	ErrNotRecipient = errors.New("not a recipient: it is written age1…, azure-key-vault:https://… or transit:https://…")
	ErrOwnRecipient = errors.New("the server's own recipient can't be removed: it could not start any more")
	ErrNoRecipient  = errors.New("nothing is wrapped to this recipient")
	ErrReadOnly     = errors.New("this root was opened without its file and can't be changed")
)

// Bounds of what root.age holds: far above what anybody needs, far below what a file may have.
const maxRoots, maxRecipients = 500, 100

// ringDocument is what root.age holds, version 2. Version 1 was the bytes of one root key.
type ringDocument struct {
	Version    int      `json:"version"`
	Roots      [][]byte `json:"roots"` // newest first
	Recipients []string `json:"recipients"`
}

// parseRing reads what was unwrapped. own are the recipients of the identities that unwrapped it: they come first,
// also when the file was written before they were there.
func parseRing(plain []byte, own []string) (ring, error) {
	d := ringDocument{Version: 2, Roots: [][]byte{slices.Clone(plain)}}
	if len(plain) != rootSize {
		d = ringDocument{}
		if err := json.Unmarshal(plain, &d); err != nil || d.Version != 2 || len(d.Roots) == 0 || len(d.Roots) > maxRoots || len(d.Recipients) > maxRecipients {
			return ring{}, errors.New("root.age holds something that this version doesn't know") // json's error might quote it
		}
	}
	out := ring{recipients: slices.Clone(own)}
	for _, key := range d.Roots {
		root, err := newRootKey(key)
		if err != nil {
			return ring{}, err
		}
		out.roots = append(out.roots, root)
	}
	for _, text := range d.Recipients {
		if err := checkRecipient(text); err != nil {
			return ring{}, err
		}
		if !slices.Contains(out.recipients, text) {
			out.recipients = append(out.recipients, text)
		}
	}
	return out, nil
}

func (g ring) wrap() ([]byte, error) {
	d := ringDocument{Version: 2, Recipients: g.recipients}
	for _, root := range g.roots {
		d.Roots = append(d.Roots, root.key.Reveal())
	}
	plain, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode root keys: %w", err)
	}
	defer clear(plain)
	wrapped, err := wrap(plain, ageOnly(g.recipients))
	if err != nil {
		return nil, fmt.Errorf("wrap root keys: %w", err)
	}
	return wrapped, nil
}

// Rotate makes a new root key, under which everything is sealed from now on. What was sealed before still opens;
// whoever keeps it seals it anew (Mark tells what is left).
func (r *Root) Rotate() error {
	return r.change(func(g *ring) error {
		if len(g.roots) == maxRoots {
			return fmt.Errorf("there are %d root keys already", maxRoots)
		}
		root, err := drawRoot(r.rand)
		if err != nil {
			return err
		}
		for slices.ContainsFunc(g.roots, func(k rootKey) bool { return k.id == root.id }) { // ids are short
			if root, err = drawRoot(r.rand); err != nil {
				return err
			}
		}
		g.roots = append([]rootKey{root}, g.roots...)
		return nil
	})
}

// Recipients are all to whom root keys and store keys are wrapped; the server's own come first.
func (r *Root) Recipients() []string { return slices.Clone(r.current().recipients) }

// AddRecipient lets one more identity open root.age, and what Wrap wraps from now on. A recipient outside is asked to
// wrap the server's identity, and to unwrap it again, before it is one.
func (r *Root) AddRecipient(text string) error {
	if err := checkRecipient(text); err != nil {
		return err
	}
	if r.path == "" {
		return ErrReadOnly
	}
	if isOutside(text) {
		if err := r.wrapOutside(text); err != nil {
			return err
		}
	}
	return r.change(func(g *ring) error {
		if len(g.recipients) == maxRecipients {
			return fmt.Errorf("there are %d recipients already", maxRecipients)
		}
		if !slices.Contains(g.recipients, text) {
			g.recipients = append(slices.Clone(g.recipients), text)
		}
		return nil
	})
}

// RemoveRecipient takes a recipient away. It still opens copies of root.age from before: rotate to lock it out of what
// is sealed from now on.
func (r *Root) RemoveRecipient(text string) error {
	if slices.Contains(r.own, text) {
		return ErrOwnRecipient
	}
	if isOutside(text) && slices.Contains(r.current().recipients, text) {
		if err := r.dropOutside(text); err != nil {
			return err
		}
	}
	return r.change(func(g *ring) error {
		at := slices.Index(g.recipients, text)
		if at < 0 {
			return ErrNoRecipient
		}
		g.recipients = slices.Delete(slices.Clone(g.recipients), at, at+1)
		return nil
	})
}

// Wrapped returns what root.age holds: with an identity of one of its recipients it is all that OpenWith needs.
func (r *Root) Wrapped() ([]byte, error) { return r.current().wrap() }

func (r *Root) change(f func(*ring) error) error {
	if r.path == "" {
		return ErrReadOnly
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	next := r.current()
	if err := f(&next); err != nil {
		return err
	}
	wrapped, err := next.wrap()
	if err != nil {
		return err
	}
	if err := replaceFile(r.path, wrapped); err != nil {
		return fmt.Errorf("write wrapped root keys: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring = next
	return nil
}

func checkRecipient(text string) error {
	if isOutside(text) {
		return checkOutside(text)
	}
	_, err := parseRecipient(text)
	return err
}

func parseRecipient(text string) (age.Recipient, error) {
	recipient, err := age.ParseX25519Recipient(text)
	if err != nil {
		return nil, ErrNotRecipient
	}
	return recipient, nil
}
