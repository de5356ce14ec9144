package keyvault

import (
	"context"
	"slices"
	"strings"

	"kluis/internal/database"
	"kluis/internal/secret"
)

// Key is one version of a key: its public part.
type Key struct {
	ID         KeyID
	Type       string // RSA, EC or oct
	Curve      string // P-256, P-384 or P-521
	Operations []string
	N, E       []byte // RSA
	X, Y       []byte // EC
	Attributes Attributes
	Tags       map[string]string
	Deletion   Deletion // zero for a living key
}

// publicKey is the part of a key that is stored in plain. Byte strings are as in a JSON Web Key, without its encoding.
type publicKey struct {
	Type       string   `json:"type"`
	Curve      string   `json:"curve,omitempty"`
	Size       int      `json:"size,omitempty"` // bits of an oct key
	Operations []string `json:"operations"`
	N          []byte   `json:"n,omitempty"`
	E          []byte   `json:"e,omitempty"`
	X          []byte   `json:"x,omitempty"`
	Y          []byte   `json:"y,omitempty"`
}

func (r record) key(v Vault) Key {
	k := Key{ID: KeyID{v.Name(), r.name, r.version}, Attributes: r.attributes(v), Tags: r.document.Tags, Deletion: r.deletion()}
	if p := r.document.Key; p != nil {
		k.Type, k.Curve, k.Operations, k.N, k.E, k.X, k.Y = p.Type, p.Curve, p.Operations, p.N, p.E, p.X, p.Y
	}
	return k
}

func keysOf(records []record, v Vault) []Key {
	out := make([]Key, len(records))
	for i, r := range records {
		out[i] = r.key(v)
	}
	return out
}

func (id KeyID) target() target { return target{Keys, id.Vault, id.Name, id.Version} }

// NewKey says what key to make. The types that end in "-HSM" make the same keys as those without.
type NewKey struct {
	Type  string // RSA, EC, oct
	Size  int    // RSA: 2048 (when 0), 3072, 4096; oct: 128, 192, 256 (when 0)
	Curve string // EC: P-256 (when empty), P-384, P-521
	Change
}

// CreateKey makes a new version of a key, and the key if need be.
func (s *Service) CreateKey(ctx context.Context, vault, name string, k NewKey) (Key, error) {
	return s.putKey(ctx, keyCreate, vault, name, k.Change, func() (material, error) { return generate(k.Type, k.Size, k.Curve) })
}

// JWK is a whole key that somebody brings along, in the words of a JSON Web Key.
type JWK struct {
	Type       string // RSA, EC, oct
	Curve      string
	Operations []string
	N, E       []byte
	X, Y       []byte
	D, P, Q    secret.Bytes
	K          secret.Bytes // oct
}

// Wipe zeroes the private part.
func (k JWK) Wipe() {
	for _, b := range []secret.Bytes{k.D, k.P, k.Q, k.K} {
		b.Wipe()
	}
}

// ImportKey takes in a key as a new version.
func (s *Service) ImportKey(ctx context.Context, vault, name string, k JWK, c Change) (Key, error) {
	if c.Operations == nil {
		c.Operations = k.Operations
	}
	return s.putKey(ctx, keyImport, vault, name, c, func() (material, error) { return k.material() })
}

// putKey asks first whether the caller may, makes the key outside of any transaction, because that can take
// seconds, and then writes it.
func (s *Service) putKey(ctx context.Context, op operation, vault, name string, c Change, produce func() (material, error)) (Key, error) {
	var out Key
	err := s.use(ctx, op, KeyID{Vault: vault, Name: name}.target(), func(u *use) error {
		var d document
		if err := d.apply(c); err != nil {
			return err
		}
		err := u.read(ctx, func(tx *database.Tx, _ Vault) error {
			_, _, err := u.freeName(ctx, tx)
			return err
		})
		if err != nil {
			return err
		}
		m, err := produce()
		if err != nil {
			return err
		}
		defer m.private.Wipe()
		if d.Key, err = m.public.restrict(c.Operations); err != nil {
			return err
		}
		return u.change(ctx, func(tx *database.Tx, v Vault) error {
			r, err := u.addVersion(ctx, tx, d, m.private.Reveal())
			out = r.key(v)
			return err
		})
	})
	if err != nil {
		return Key{}, err
	}
	return out, nil
}

// What a key may be used for, unless its owner says less.
var possibleOperations = map[string][]string{
	"RSA": {"encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"},
	"EC":  signs,
	"oct": {"encrypt", "decrypt", "wrapKey", "unwrapKey"},
}

// restrict returns the key with these operations, or with all that its type has when none are given.
func (p publicKey) restrict(operations []string) (*publicKey, error) {
	possible := possibleOperations[p.Type]
	p.Operations = possible
	if operations == nil {
		return &p, nil
	}
	p.Operations = []string{}
	for _, o := range operations {
		switch {
		case has(possible, o):
			p.Operations = append(p.Operations, possible[slices.IndexFunc(possible, func(w string) bool { return strings.EqualFold(w, o) })])
		case has(possibleOperations["RSA"], o), has([]string{"import", "export", "deriveKey", "deriveBits"}, o):
			return nil, badParameter("key_ops", "%s is not an operation of keys of type %s", o, p.Type)
		default:
			return nil, badParameter("key_ops", "%q is not a key operation", clip(o))
		}
	}
	return &p, nil
}

// Key returns a key's public part.
func (s *Service) Key(ctx context.Context, id KeyID) (Key, error) {
	var out Key
	err := s.use(ctx, keyGet, id.target(), func(u *use) error {
		return u.read(ctx, func(tx *database.Tx, v Vault) error {
			r, err := u.version(ctx, tx)
			out = r.key(v)
			return err
		})
	})
	if err != nil {
		return Key{}, err
	}
	return out, nil
}

// Keys lists the keys of a key vault, newest versions, and the token of the next page.
func (s *Service) Keys(ctx context.Context, vault string, p Page) (list []Key, next string, err error) {
	return s.listKeys(ctx, keyList, vault, false, p)
}

// DeletedKeys lists the deleted keys of a key vault.
func (s *Service) DeletedKeys(ctx context.Context, vault string, p Page) (list []Key, next string, err error) {
	return s.listKeys(ctx, keyListDeleted, vault, true, p)
}

func (s *Service) listKeys(ctx context.Context, op operation, vault string, deleted bool, p Page) (list []Key, next string, err error) {
	err = s.use(ctx, op, target{vault: vault}, func(u *use) error {
		records, v, token, err := u.newest(ctx, deleted, p)
		list, next = keysOf(records, v), token
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return list, next, nil
}

// KeyVersions lists the versions of a key.
func (s *Service) KeyVersions(ctx context.Context, vault, name string, p Page) (list []Key, next string, err error) {
	err = s.use(ctx, keyListVersions, KeyID{Vault: vault, Name: name}.target(), func(u *use) error {
		records, v, token, err := u.versions(ctx, p)
		list, next = keysOf(records, v), token
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return list, next, nil
}

// UpdateKey changes attributes, operations and tags of a version.
func (s *Service) UpdateKey(ctx context.Context, id KeyID, c Change) (Key, error) {
	var out Key
	err := s.use(ctx, keyUpdate, id.target(), func(u *use) error {
		return u.change(ctx, func(tx *database.Tx, v Vault) error {
			r, err := u.update(ctx, tx, c)
			out = r.key(v)
			return err
		})
	})
	if err != nil {
		return Key{}, err
	}
	return out, nil
}

// DeleteKey deletes a key softly, with all versions.
func (s *Service) DeleteKey(ctx context.Context, vault, name string) (Key, error) {
	return s.keyBy(ctx, keyDelete, vault, name, (*use).remove)
}

// DeletedKey returns a deleted key.
func (s *Service) DeletedKey(ctx context.Context, vault, name string) (Key, error) {
	return s.keyBy(ctx, keyGetDeleted, vault, name, (*use).getRemoved)
}

// RecoverKey brings a deleted key back.
func (s *Service) RecoverKey(ctx context.Context, vault, name string) (Key, error) {
	return s.keyBy(ctx, keyRecover, vault, name, (*use).recover)
}

func (s *Service) keyBy(ctx context.Context, op operation, vault, name string, do func(*use, context.Context) (record, Vault, error)) (Key, error) {
	var out Key
	err := s.use(ctx, op, KeyID{Vault: vault, Name: name}.target(), func(u *use) error {
		r, v, err := do(u, ctx)
		out = r.key(v)
		return err
	})
	if err != nil {
		return Key{}, err
	}
	return out, nil
}

// PurgeKey ends a deleted key for good.
func (s *Service) PurgeKey(ctx context.Context, vault, name string) error {
	return s.use(ctx, keyPurge, KeyID{Vault: vault, Name: name}.target(), func(u *use) error { return u.purge(ctx) })
}
