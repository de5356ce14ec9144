package keyvault

import (
	"context"

	"kluis/internal/database"
	"kluis/internal/secret"
)

// MaxSecretSize is the most that a secret's value may hold.
const MaxSecretSize = 25 << 10

// Secret is one version of a secret. Value is empty except in the answers of SetSecret and Secret.
type Secret struct {
	ID          SecretID
	Value       secret.Bytes
	ContentType string
	Attributes  Attributes
	Tags        map[string]string
	Deletion    Deletion // zero for a living secret
}

func (r record) secret(v Vault) Secret {
	return Secret{
		ID: SecretID{v.Name(), r.name, r.version}, ContentType: r.document.ContentType,
		Attributes: r.attributes(v), Tags: r.document.Tags, Deletion: r.deletion(),
	}
}

func secretsOf(records []record, v Vault) []Secret {
	out := make([]Secret, len(records))
	for i, r := range records {
		out[i] = r.secret(v)
	}
	return out
}

func (id SecretID) target() target { return target{Secrets, id.Vault, id.Name, id.Version} }

// SetSecret writes a new version of a secret, and makes the secret if need be.
func (s *Service) SetSecret(ctx context.Context, vault, name string, value secret.Bytes, c Change) (Secret, error) {
	var out Secret
	err := s.use(ctx, secretSet, SecretID{Vault: vault, Name: name}.target(), func(u *use) error {
		if value.Len() > MaxSecretSize {
			return badParameter("value", "the secret's value has %d bytes, and may have at most %d", value.Len(), MaxSecretSize)
		}
		var d document
		if err := d.apply(c); err != nil {
			return err
		}
		return u.change(ctx, func(tx *database.Tx, v Vault) error {
			r, err := u.addVersion(ctx, tx, d, value.Reveal())
			out = r.secret(v)
			return err
		})
	})
	if err != nil {
		return Secret{}, err
	}
	out.Value = value
	return out, nil
}

// Secret returns a secret with its value. A disabled version is refused; one outside of nbf and exp is not: like
// Azure, Kluis leaves these two to the reader, who may need an expired secret to recover something.
func (s *Service) Secret(ctx context.Context, id SecretID) (Secret, error) {
	var out Secret
	err := s.use(ctx, secretGet, id.target(), func(u *use) error {
		var r record
		err := u.read(ctx, func(tx *database.Tx, v Vault) (err error) {
			if r, err = u.version(ctx, tx); err != nil {
				return err
			}
			out = r.secret(v)
			return nil
		})
		if err != nil {
			return err
		}
		if r.document.Disabled {
			return disabled(u.operation, Secrets)
		}
		plain, err := u.open(r)
		out.Value = secret.New(plain)
		return err
	})
	if err != nil {
		return Secret{}, err
	}
	return out, nil
}

// Secrets lists the secrets of a key vault, newest versions without values, and the token of the next page.
func (s *Service) Secrets(ctx context.Context, vault string, p Page) (list []Secret, next string, err error) {
	return s.listSecrets(ctx, secretList, vault, false, p)
}

// DeletedSecrets lists the deleted secrets of a key vault.
func (s *Service) DeletedSecrets(ctx context.Context, vault string, p Page) (list []Secret, next string, err error) {
	return s.listSecrets(ctx, secretListDeleted, vault, true, p)
}

func (s *Service) listSecrets(ctx context.Context, op operation, vault string, deleted bool, p Page) (list []Secret, next string, err error) {
	err = s.use(ctx, op, target{vault: vault}, func(u *use) error {
		records, v, token, err := u.newest(ctx, deleted, p)
		list, next = secretsOf(records, v), token
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return list, next, nil
}

// SecretVersions lists the versions of a secret without their values.
func (s *Service) SecretVersions(ctx context.Context, vault, name string, p Page) (list []Secret, next string, err error) {
	err = s.use(ctx, secretListVersions, SecretID{Vault: vault, Name: name}.target(), func(u *use) error {
		records, v, token, err := u.versions(ctx, p)
		list, next = secretsOf(records, v), token
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return list, next, nil
}

// UpdateSecret changes attributes, content type and tags of a version.
func (s *Service) UpdateSecret(ctx context.Context, id SecretID, c Change) (Secret, error) {
	var out Secret
	err := s.use(ctx, secretUpdate, id.target(), func(u *use) error {
		return u.change(ctx, func(tx *database.Tx, v Vault) error {
			r, err := u.update(ctx, tx, c)
			out = r.secret(v)
			return err
		})
	})
	return out, err
}

// DeleteSecret deletes a secret softly, with all versions.
func (s *Service) DeleteSecret(ctx context.Context, vault, name string) (Secret, error) {
	return s.secretBy(ctx, secretDelete, vault, name, (*use).remove)
}

// DeletedSecret returns a deleted secret without its value.
func (s *Service) DeletedSecret(ctx context.Context, vault, name string) (Secret, error) {
	return s.secretBy(ctx, secretGetDeleted, vault, name, (*use).getRemoved)
}

// RecoverSecret brings a deleted secret back.
func (s *Service) RecoverSecret(ctx context.Context, vault, name string) (Secret, error) {
	return s.secretBy(ctx, secretRecover, vault, name, (*use).recover)
}

func (s *Service) secretBy(ctx context.Context, op operation, vault, name string, do func(*use, context.Context) (record, Vault, error)) (Secret, error) {
	var out Secret
	err := s.use(ctx, op, SecretID{Vault: vault, Name: name}.target(), func(u *use) error {
		r, v, err := do(u, ctx)
		out = r.secret(v)
		return err
	})
	if err != nil {
		return Secret{}, err
	}
	return out, nil
}

// PurgeSecret ends a deleted secret for good.
func (s *Service) PurgeSecret(ctx context.Context, vault, name string) error {
	return s.use(ctx, secretPurge, SecretID{Vault: vault, Name: name}.target(), func(u *use) error { return u.purge(ctx) })
}
