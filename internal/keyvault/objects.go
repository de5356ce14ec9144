package keyvault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kluis/internal/database"
)

// Keys and secrets share their life: versions under a name, attributes, soft delete. What they share is here;
// what makes a key a key or a secret a secret is in keys.go and secrets.go.

// Attributes are what is known of a version beside its content.
type Attributes struct {
	Enabled            bool
	NotBefore, Expires time.Time // zero: no limit
	Created, Updated   time.Time
	RecoveryLevel      string
	RecoverableDays    int
}

// Change says what a caller sets; nil leaves what is there, or the default of something new.
type Change struct {
	Enabled            *bool
	NotBefore, Expires *time.Time
	Tags               map[string]string // replaces all tags; nil leaves them
	ContentType        *string           // secrets
	Operations         []string          // keys; nil leaves them
}

// Deletion says when something was deleted, and when it will be purged.
type Deletion struct{ At, Purge time.Time }

// Page asks for a part of a list: at most Max items after the item with the token After.
type Page struct {
	After string // empty: from the beginning
	Max   int    // 0: 25, which is also the most
}

const pageSize = 25

func (p Page) limit() int {
	if p.Max <= 0 || p.Max > pageSize {
		return pageSize
	}
	return p.Max
}

// record is one version as it is stored.
type record struct {
	target
	document         document
	sealed           []byte // private key or value
	created, changed time.Time
	deleted          *deletion // of the object, not of the version
}

// document is the part of a version that is not secret, stored as JSON, also inside backups: fields may be
// added, never renamed.
type document struct {
	Disabled    bool              `json:"disabled,omitempty"`
	NotBefore   int64             `json:"nbf,omitempty"` // Unix seconds, as on the wire
	Expires     int64             `json:"exp,omitempty"`
	ContentType string            `json:"contentType,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Key         *publicKey        `json:"key,omitempty"`
}

func (r record) attributes(v Vault) Attributes {
	return Attributes{
		Enabled: !r.document.Disabled, NotBefore: seconds(r.document.NotBefore), Expires: seconds(r.document.Expires),
		Created: r.created, Updated: r.changed, RecoveryLevel: v.RecoveryLevel(), RecoverableDays: v.SoftDeleteDays,
	}
}

func seconds(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0).UTC()
}

func (d *document) apply(c Change) error {
	if c.Enabled != nil {
		d.Disabled = !*c.Enabled
	}
	if c.NotBefore != nil {
		d.NotBefore = c.NotBefore.Unix()
	}
	if c.Expires != nil {
		d.Expires = c.Expires.Unix()
	}
	if d.NotBefore != 0 && d.Expires != 0 && d.NotBefore >= d.Expires {
		return badParameter("attributes", "exp must be later than nbf")
	}
	if c.ContentType != nil {
		if len(*c.ContentType) > maxContentType {
			return badParameter("contentType", "contentType may have at most %d characters", maxContentType)
		}
		d.ContentType = *c.ContentType
	}
	if c.Tags != nil {
		if err := checkTags(c.Tags); err != nil {
			return err
		}
		d.Tags = c.Tags
	}
	return nil
}

const maxContentType = 255

// addVersion writes a new version, which becomes the newest, and fills in u.target. plain is sealed on the way.
func (u *use) addVersion(ctx context.Context, tx *database.Tx, d document, plain []byte) (record, error) {
	name, expired, err := u.freeName(ctx, tx)
	if err != nil {
		return record{}, err
	}
	if expired {
		if err := deleteObject(ctx, tx, u.target); err != nil {
			return record{}, err
		}
	}
	now := u.s.now()
	r := record{target: u.target, document: d, created: now, changed: now}
	r.name, r.version = name, u.s.o.NewVersion()
	if !validVersion(r.version) {
		return record{}, fmt.Errorf("make version: %q has not 32 hexadecimal digits", r.version)
	}
	if r.sealed, err = u.s.o.Seal.Seal(r.context(), plain); err != nil {
		return record{}, fmt.Errorf("seal %s: %w", u.target, err)
	}
	if err := putObject(ctx, tx, r.target); err != nil {
		return record{}, err
	}
	u.target = r.target
	return r, insertVersion(ctx, tx, r)
}

// freeName returns the spelling of the name under which a new version may be written, and whether something is still
// stored under it whose retention is over. A name that is softly deleted is not free.
func (u *use) freeName(ctx context.Context, tx *database.Tx) (name string, expired bool, err error) {
	o, err := selectObject(ctx, tx, u.target)
	switch {
	case errors.Is(err, database.ErrNoRows):
		return u.target.name, false, nil
	case err != nil:
		return "", false, err
	case o.deleted.expired(u.s.now()):
		return u.target.name, true, nil
	case o.deleted != nil:
		return "", false, objectIsDeleted(u.target)
	}
	return o.name, false, nil
}

// version returns one version of a living object, the newest when none is named, and fills in u.target.
func (u *use) version(ctx context.Context, tx *database.Tx) (record, error) {
	r, err := selectVersion(ctx, tx, u.target)
	if errors.Is(err, database.ErrNoRows) || err == nil && r.deleted != nil {
		return record{}, objectNotFound(u.target)
	}
	if err == nil {
		u.target = r.target
	}
	return r, err
}

// update changes what is not the content of a version.
func (u *use) update(ctx context.Context, tx *database.Tx, c Change) (record, error) {
	r, err := u.version(ctx, tx)
	if err != nil {
		return record{}, err
	}
	if err := r.document.apply(c); err != nil {
		return record{}, err
	}
	if r.document.Key != nil && c.Operations != nil {
		if r.document.Key, err = r.document.Key.restrict(c.Operations); err != nil {
			return record{}, err
		}
	}
	r.changed = u.s.now()
	return r, updateVersion(ctx, tx, r)
}

// open returns the content of a version in plain. The caller wipes it.
func (u *use) open(r record) ([]byte, error) {
	plain, err := u.s.o.Seal.Open(r.context(), r.sealed)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", u.target, err)
	}
	return plain, nil
}

// newest lists the newest version of each object, and the token of the next page, which is empty at the end.
func (u *use) newest(ctx context.Context, deleted bool, p Page) (records []record, v Vault, next string, err error) {
	err = u.read(ctx, func(tx *database.Tx, vault Vault) (err error) {
		v = vault
		records, err = selectNewest(ctx, tx, u.target, deleted, u.s.now(), p)
		return err
	})
	if len(records) > p.limit() {
		records = records[:p.limit()]
		next = fold(records[len(records)-1].name)
	}
	return records, v, next, err
}

// versions lists the versions of one object.
func (u *use) versions(ctx context.Context, p Page) (records []record, v Vault, next string, err error) {
	err = u.read(ctx, func(tx *database.Tx, vault Vault) (err error) {
		v = vault
		if _, err := u.version(ctx, tx); err != nil {
			return err
		}
		u.target.version = ""
		records, err = selectVersions(ctx, tx, u.target, p.After, p.limit()+1)
		return err
	})
	if len(records) > p.limit() {
		records = records[:p.limit()]
		next = records[len(records)-1].version
	}
	return records, v, next, err
}

// remove deletes an object softly.
func (u *use) remove(ctx context.Context) (r record, v Vault, err error) {
	err = u.change(ctx, func(tx *database.Tx, vault Vault) (err error) {
		v = vault
		if r, err = u.version(ctx, tx); err != nil {
			return err
		}
		now := u.s.now()
		r.deleted = &deletion{now, v.purgeDate(now)}
		return setObjectDeleted(ctx, tx, r.target, r.deleted)
	})
	return r, v, err
}

// removed returns the newest version of a deleted object.
func (u *use) removed(ctx context.Context, tx *database.Tx) (record, error) {
	t := u.target
	t.version = ""
	r, err := selectVersion(ctx, tx, t)
	if errors.Is(err, database.ErrNoRows) || err == nil && (r.deleted == nil || r.deleted.expired(u.s.now())) {
		return record{}, deletedObjectNotFound(u.target)
	}
	if err == nil {
		u.target = r.target
	}
	return r, err
}

// recover takes back a soft delete.
func (u *use) recover(ctx context.Context) (r record, v Vault, err error) {
	err = u.change(ctx, func(tx *database.Tx, vault Vault) (err error) {
		v = vault
		if o, err := selectObject(ctx, tx, u.target); err == nil && o.deleted == nil {
			return objectExists(u.target)
		}
		if r, err = u.removed(ctx, tx); err != nil {
			return err
		}
		r.deleted = nil
		return setObjectDeleted(ctx, tx, r.target, nil)
	})
	return r, v, err
}

// purge ends a deleted object for good.
func (u *use) purge(ctx context.Context) error {
	return u.change(ctx, func(tx *database.Tx, v Vault) error {
		r, err := u.removed(ctx, tx)
		if err != nil {
			return err
		}
		if v.PurgeProtection {
			return objectPurgeProtected(u.target)
		}
		return deleteObject(ctx, tx, r.target)
	})
}

// getRemoved is removed in a transaction of its own.
func (u *use) getRemoved(ctx context.Context) (r record, v Vault, err error) {
	err = u.read(ctx, func(tx *database.Tx, vault Vault) (err error) {
		v = vault
		r, err = u.removed(ctx, tx)
		return err
	})
	return r, v, err
}

func (r record) deletion() Deletion {
	if r.deleted == nil {
		return Deletion{}
	}
	return Deletion{r.deleted.at, r.deleted.purge}
}
