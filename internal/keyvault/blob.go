package keyvault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"kluis/internal/database"
)

// A backup blob is one key or one secret with all its versions, as bytes that only this installation opens:
//
//	magic "&KluisKeyVaultBackup/1\n" | sealed JSON (blobDocument), under the context "keyvault-backup/<tenant>"
//
// The sealing authenticates it, and the tenant in the context binds it: made in another tenant, it doesn't open.
// It needs the root key and nothing else, so it outlives the key vault and the database.
const blobMagic = "&KluisKeyVaultBackup/1\n"

// Bounds of a backup, as in Azure. The size is what the largest blob needs as JSON, with room to spare.
const (
	maxVersions = 500
	MaxBlobSize = 24 << 20
)

type blobDocument struct {
	Kind     Kind          `json:"kind"`
	Vault    string        `json:"vault"`
	Name     string        `json:"name"`
	Made     int64         `json:"made"` // Unix microseconds
	Versions []blobVersion `json:"versions"`
	Current  string        `json:"current"` // the newest version

	Rotation *RotationPolicy `json:"rotation,omitempty"` // of a key that has one
}

type blobVersion struct {
	Version  string   `json:"version"`
	Document document `json:"document"`
	Content  []byte   `json:"content"` // private key as PKCS #8, or the value
	Created  int64    `json:"created"`
	Changed  int64    `json:"changed"`
}

// wipe zeroes the contents.
func (b *blobDocument) wipe() {
	for _, v := range b.Versions {
		clear(v.Content)
	}
}

func (b *blobDocument) version(version string) (blobVersion, bool) {
	if version == "" {
		version = b.Current
	}
	for _, v := range b.Versions {
		if v.Version == version {
			return v, true
		}
	}
	return blobVersion{}, false
}

// BlobInfo is what a blob is a backup of.
type BlobInfo struct {
	Kind     Kind
	Vault    string // where it was; it may be gone
	Name     string
	Versions []string // the newest is Current
	Current  string
	Made     time.Time
}

// Describe says what a blob holds.
func (s *Service) Describe(blob []byte) (BlobInfo, error) {
	b, err := s.openBlob(blob)
	if err != nil {
		return BlobInfo{}, err
	}
	defer b.wipe()
	info := BlobInfo{Kind: b.Kind, Vault: b.Vault, Name: b.Name, Current: b.Current, Made: database.Time(b.Made)}
	for _, v := range b.Versions {
		info.Versions = append(info.Versions, v.Version)
	}
	return info, nil
}

// BackUpKey returns a blob with all versions of a key. The version in the id must exist, but doesn't limit what is
// backed up.
func (s *Service) BackUpKey(ctx context.Context, id KeyID) ([]byte, error) {
	return s.backUp(ctx, keyBackup, id.target())
}

// BackUpSecret returns a blob with all versions of a secret. The version in the id must exist, but doesn't limit
// what is backed up.
func (s *Service) BackUpSecret(ctx context.Context, id SecretID) ([]byte, error) {
	return s.backUp(ctx, secretBackup, id.target())
}

func (s *Service) backUp(ctx context.Context, op operation, t target) ([]byte, error) {
	var blob []byte
	err := s.use(ctx, op, t, func(u *use) error {
		var records []record
		var current string
		var policy RotationPolicy
		err := u.read(ctx, func(tx *database.Tx, _ Vault) error {
			if _, err := u.version(ctx, tx); err != nil {
				return err
			}
			o, err := selectObject(ctx, tx, u.target)
			if err != nil {
				return err
			}
			current = o.version
			if policy, err = selectRotationPolicy(ctx, tx, u.target); err != nil {
				return err
			}
			records, err = selectVersions(ctx, tx, u.target, "", maxVersions+1)
			return err
		})
		if err != nil {
			return err
		}
		if len(records) > maxVersions {
			return badParameter("name", "the %s %s has more than %d versions, and can't be backed up", t.kind.word(), t.name, maxVersions)
		}
		blob, err = u.makeBlob(records, current, policy)
		return err
	})
	if err != nil {
		return nil, err
	}
	return blob, nil
}

func (u *use) makeBlob(records []record, current string, policy RotationPolicy) ([]byte, error) {
	b := blobDocument{Kind: u.target.kind, Vault: u.target.vault, Name: u.target.name, Made: u.s.now().UnixMicro(), Current: current}
	if policy.Created != 0 {
		b.Rotation = &policy
	}
	defer func() { b.wipe() }()
	for _, r := range records {
		content, err := u.open(r)
		if err != nil {
			return nil, err
		}
		b.Versions = append(b.Versions, blobVersion{r.version, r.document, content, r.created.UnixMicro(), r.changed.UnixMicro()})
	}
	plain, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode backup of %s: %w", u.target, err)
	}
	defer clear(plain)
	sealed, err := u.s.o.Seal.Seal(u.s.blobContext(), plain)
	if err != nil {
		return nil, fmt.Errorf("seal backup of %s: %w", u.target, err)
	}
	return append([]byte(blobMagic), sealed...), nil
}

func (s *Service) blobContext() string { return "keyvault-backup/" + fold(s.o.TenantID) }

// openBlob reads a blob. What it returns has been written by this service, and is checked all the same.
func (s *Service) openBlob(blob []byte) (*blobDocument, error) {
	sealed, ok := bytes.CutPrefix(blob, []byte(blobMagic))
	if !ok || len(blob) > MaxBlobSize {
		return nil, badBlob()
	}
	plain, err := s.o.Seal.Open(s.blobContext(), sealed)
	if err != nil {
		return nil, badBlob().WithCause(err)
	}
	defer clear(plain)
	b := &blobDocument{}
	if err := json.Unmarshal(plain, b); err != nil {
		return nil, badBlob().WithCause(errors.New("the sealed document is not what this version writes"))
	}
	if _, ok := b.version(""); !ok || (b.Kind != Keys && b.Kind != Secrets) || !validObjectName(b.Name) || len(b.Versions) > maxVersions {
		b.wipe()
		return nil, badBlob()
	}
	return b, nil
}

// RestoreKey brings back a key with all its versions, as they were, under its name and in any key vault. A name that is
// taken, also by a deleted key, is a conflict. It returns the newest version.
func (s *Service) RestoreKey(ctx context.Context, vault string, blob []byte) (Key, error) {
	var out Key
	err := s.restore(ctx, keyRestore, vault, blob, func(r record, v Vault) { out = r.key(v) })
	if err != nil {
		return Key{}, err
	}
	return out, nil
}

// RestoreSecret is RestoreKey for a secret. The answer doesn't hold the value.
func (s *Service) RestoreSecret(ctx context.Context, vault string, blob []byte) (Secret, error) {
	var out Secret
	err := s.restore(ctx, secretRestore, vault, blob, func(r record, v Vault) { out = r.secret(v) })
	if err != nil {
		return Secret{}, err
	}
	return out, nil
}

func (s *Service) restore(ctx context.Context, op operation, vault string, blob []byte, newest func(record, Vault)) error {
	b, blobErr := s.openBlob(blob)
	t := target{vault: vault}
	if blobErr == nil {
		defer b.wipe()
		t.name = b.Name
	}
	return s.use(ctx, op, t, func(u *use) error {
		return u.change(ctx, func(tx *database.Tx, v Vault) error {
			switch {
			case blobErr != nil:
				return blobErr
			case b.Kind != op.kind:
				return wrongBlob(b.Kind, op.kind)
			}
			o, err := selectObject(ctx, tx, u.target)
			switch {
			case errors.Is(err, database.ErrNoRows):
			case err != nil:
				return err
			case o.deleted.expired(s.now()):
				if err := deleteObject(ctx, tx, u.target); err != nil {
					return err
				}
			case o.deleted != nil:
				return objectIsDeleted(u.target)
			default:
				return objectInTheWay(u.target)
			}
			return u.insertBlob(ctx, tx, v, b, newest)
		})
	})
}

func (u *use) insertBlob(ctx context.Context, tx *database.Tx, v Vault, b *blobDocument, newest func(record, Vault)) error {
	u.target.version = b.Current
	if err := putObject(ctx, tx, u.target); err != nil {
		return err
	}
	for _, bv := range b.Versions {
		r := record{target: u.target, document: bv.Document, created: database.Time(bv.Created), changed: database.Time(bv.Changed)}
		r.version = bv.Version
		var err error
		if r.sealed, err = u.s.o.Seal.Seal(r.context(), bv.Content); err != nil {
			return fmt.Errorf("seal %s: %w", u.target, err)
		}
		if err := insertVersion(ctx, tx, r); err != nil {
			return err
		}
		if r.version == b.Current {
			newest(r, v)
		}
	}
	if b.Rotation != nil {
		return putRotationPolicy(ctx, tx, u.target, *b.Rotation)
	}
	return nil
}
