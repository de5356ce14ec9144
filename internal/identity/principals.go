package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/secret"
)

const (
	secretSize = 32 // bytes; nobody guesses it, so its hash needs a salt but no work factor
	saltSize   = 16
	maxName    = 256
)

// CreatePrincipal makes an application with a new secret. The secret can't be had again later.
func (s *Service) CreatePrincipal(ctx context.Context, name string) (Principal, secret.Bytes, error) {
	r, clientSecret, err := s.newRecord(name)
	if err != nil {
		return Principal{}, secret.Bytes{}, err
	}
	err = s.db.InTx(ctx, func(tx *database.Tx) error { return insertPrincipal(ctx, tx, r) })
	if err != nil {
		return Principal{}, secret.Bytes{}, fmt.Errorf("create principal: %w", err)
	}
	return s.full(r.Principal), clientSecret, nil
}

// Bootstrap makes the first administrator: a principal of that name with the role Owner at the
// subscription. If there is one of that name, it is returned, without a secret.
func (s *Service) Bootstrap(ctx context.Context, name string) (p Principal, clientSecret secret.Bytes, created bool, err error) {
	fresh, freshSecret, err := s.newRecord(name)
	if err != nil {
		return Principal{}, secret.Bytes{}, false, err
	}
	var r record
	err = s.db.InTx(ctx, func(tx *database.Tx) error {
		var found bool
		var err error
		if r, found, err = principalByName(ctx, tx, fresh.Name); err != nil || found {
			created = false
			return err
		}
		r, created = fresh, true
		if err := insertPrincipal(ctx, tx, r); err != nil {
			return err
		}
		_, err = insertAssignment(ctx, tx, s.grant(r.ObjectID, owner, armid.Subscription(s.subscription)))
		return err
	})
	if err != nil {
		return Principal{}, secret.Bytes{}, false, fmt.Errorf("create first principal: %w", err)
	}
	if !created {
		freshSecret = secret.Bytes{}
	}
	return s.full(r.Principal), freshSecret, created, nil
}

// NewSecret replaces a principal's secret; the old one no longer works. Tokens already given out do,
// until they expire.
func (s *Service) NewSecret(ctx context.Context, idOrAppID string) (secret.Bytes, error) {
	clientSecret, salt, hash, err := s.drawSecret()
	if err != nil {
		return secret.Bytes{}, err
	}
	err = s.db.InTx(ctx, func(tx *database.Tx) error {
		p, err := s.find(ctx, tx, idOrAppID)
		if err != nil {
			return err
		}
		if p.BuiltIn {
			return builtInPrincipal(p)
		}
		return updateSecret(ctx, tx, p.ObjectID, salt, hash)
	})
	if err != nil {
		return secret.Bytes{}, err
	}
	return clientSecret, nil
}

// Principal finds a principal by its object id or its application id.
func (s *Service) Principal(ctx context.Context, idOrAppID string) (p Principal, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		p, err = s.find(ctx, tx, idOrAppID)
		return err
	})
	return p, err
}

// Principals returns all principals by name, the built-in one first.
func (s *Service) Principals(ctx context.Context) ([]Principal, error) {
	all := []Principal{s.full(BackupManagementService)}
	err := s.db.Read(ctx, func(tx *database.Tx) error {
		records, err := allPrincipals(ctx, tx)
		for _, r := range records {
			all = append(all, s.full(r.Principal))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list principals: %w", err)
	}
	return all, nil
}

// DeletePrincipal removes a principal with its assignments. Its tokens stop working at once.
func (s *Service) DeletePrincipal(ctx context.Context, idOrAppID string) error {
	return s.db.InTx(ctx, func(tx *database.Tx) error {
		p, err := s.find(ctx, tx, idOrAppID)
		if err != nil {
			return err
		}
		if p.BuiltIn {
			return builtInPrincipal(p)
		}
		return deletePrincipal(ctx, tx, p.ObjectID)
	})
}

func (s *Service) find(ctx context.Context, tx *database.Tx, idOrAppID string) (Principal, error) {
	id := strings.ToLower(idOrAppID)
	if id == BackupManagementService.ObjectID || id == BackupManagementService.AppID {
		return s.full(BackupManagementService), nil
	}
	r, found, err := principalByID(ctx, tx, id)
	if err != nil {
		return Principal{}, fmt.Errorf("find principal: %w", err)
	}
	if !found {
		return Principal{}, principalNotFound(idOrAppID)
	}
	return s.full(r.Principal), nil
}

// full adds what is not stored with each principal.
func (s *Service) full(p Principal) Principal {
	p.TenantID = s.tenant
	return p
}

func (s *Service) newRecord(name string) (record, secret.Bytes, error) {
	name = strings.TrimSpace(name)
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, isControl) {
		return record{}, secret.Bytes{}, badPrincipalName()
	}
	objectID, err := uuid.NewRandomFromReader(s.rand)
	if err != nil {
		return record{}, secret.Bytes{}, fmt.Errorf("draw object id: %w", err)
	}
	appID, err := uuid.NewRandomFromReader(s.rand)
	if err != nil {
		return record{}, secret.Bytes{}, fmt.Errorf("draw application id: %w", err)
	}
	clientSecret, salt, hash, err := s.drawSecret()
	if err != nil {
		return record{}, secret.Bytes{}, err
	}
	p := Principal{ObjectID: objectID.String(), AppID: appID.String(), Name: name}
	return record{p, salt, hash, database.Micros(s.now())}, clientSecret, nil
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// drawSecret makes a secret, as text that goes through forms and shells unchanged, and its hash.
func (s *Service) drawSecret() (clientSecret secret.Bytes, salt, hash []byte, err error) {
	b := make([]byte, secretSize+saltSize)
	if _, err := io.ReadFull(s.rand, b); err != nil {
		return secret.Bytes{}, nil, nil, fmt.Errorf("draw secret: %w", err)
	}
	text := make([]byte, base64.RawURLEncoding.EncodedLen(secretSize))
	base64.RawURLEncoding.Encode(text, b[:secretSize])
	clear(b[:secretSize])
	salt = b[secretSize:]
	return secret.New(text), salt, hashSecret(salt, text), nil
}

func hashSecret(salt, text []byte) []byte {
	h := sha256.New()
	h.Write(salt)
	h.Write(text)
	return h.Sum(nil)
}

// proves compares in constant time.
func (r record) proves(clientSecret secret.Bytes) bool {
	return subtle.ConstantTimeCompare(hashSecret(r.salt, clientSecret.Reveal()), r.hash) == 1
}
