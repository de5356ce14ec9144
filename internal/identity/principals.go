package identity

import (
	"context"
	"fmt"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/secret"
)

const maxName = 256

// CreatePrincipal makes an application with a new secret. The secret can't be had again later.
func (s *Service) CreatePrincipal(ctx context.Context, name string) (Principal, secret.Bytes, error) {
	return s.create(ctx, NewPrincipal{Name: name})
}

// create makes an application as it is asked for, with its role, or nothing.
func (s *Service) create(ctx context.Context, n NewPrincipal) (Principal, secret.Bytes, error) {
	r, err := s.newPrincipal(n.Name)
	if err != nil {
		return Principal{}, secret.Bytes{}, err
	}
	c, clientSecret, err := s.firstCredential(n)
	if err != nil {
		return Principal{}, secret.Bytes{}, err
	}
	c.principal = r.ObjectID
	err = s.db.InTx(ctx, func(tx *database.Tx) error { return s.insertWithRole(ctx, tx, r, c, n.Role, n.Scope) })
	if err != nil {
		return Principal{}, secret.Bytes{}, fmt.Errorf("create principal: %w", err)
	}
	return s.full(r.Principal), clientSecret, nil
}

// insertWithRole stores a new principal with its first credential and, if it names one, a role.
func (s *Service) insertWithRole(ctx context.Context, tx *database.Tx, r record, c credential, role string, scope armid.ID) error {
	if err := insertWith(ctx, tx, r, c); err != nil || role == "" {
		return err
	}
	a, err := s.assignment(ctx, tx, r.ObjectID, role, scope)
	if err != nil {
		return err
	}
	if who, ok := From(ctx); ok {
		a.CreatedBy, a.UpdatedBy = who.ObjectID, who.ObjectID
	}
	_, err = insertAssignment(ctx, tx, a)
	return err
}

func (s *Service) firstCredential(n NewPrincipal) (credential, secret.Bytes, error) {
	if len(n.Certificate) == 0 {
		return s.newSecret("", n.Expires)
	}
	c, err := s.newCertificate("", n.Certificate, n.Expires)
	return c, secret.Bytes{}, err
}

// Bootstrap makes the first administrator: a principal of that name with the role Owner at the
// subscription. If there is one of that name, it is returned, without a secret.
func (s *Service) Bootstrap(ctx context.Context, name string) (p Principal, clientSecret secret.Bytes, created bool, err error) {
	fresh, c, freshSecret, err := s.newApplication(name)
	if err != nil {
		return Principal{}, secret.Bytes{}, false, err
	}
	var r record
	err = s.db.InTx(ctx, func(tx *database.Tx) error {
		var found bool
		var err error
		if r, found, err = principalByName(ctx, tx, Application, fresh.Name); err != nil || found {
			created = false
			return err
		}
		r, created = fresh, true
		if err := insertWith(ctx, tx, r, c); err != nil {
			return err
		}
		_, err = insertAssignment(ctx, tx, s.grant(r.Principal, owner, armid.Subscription(s.subscription)))
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
		p, err := s.changeable(ctx, tx, idOrAppID)
		if err != nil {
			return err
		}
		return deletePrincipal(ctx, tx, p.ObjectID)
	})
}

// SetDisabled keeps a principal from logging in, and its tokens from being accepted, or lets it again.
func (s *Service) SetDisabled(ctx context.Context, idOrAppID string, disabled bool) error {
	return s.db.InTx(ctx, func(tx *database.Tx) error {
		p, err := s.changeable(ctx, tx, idOrAppID)
		if err != nil {
			return err
		}
		if disabled {
			if err := endSessions(ctx, tx, p.ObjectID); err != nil {
				return err
			}
		}
		return updateDisabled(ctx, tx, p.ObjectID, disabled)
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

// changeable finds a principal that is not part of the product.
func (s *Service) changeable(ctx context.Context, tx *database.Tx, idOrAppID string) (Principal, error) {
	p, err := s.find(ctx, tx, idOrAppID)
	if err == nil && p.BuiltIn {
		return Principal{}, builtInPrincipal(p)
	}
	return p, err
}

// newPrincipal makes a principal that is not stored yet.
func (s *Service) newPrincipal(name string) (record, error) {
	name = strings.TrimSpace(name)
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, isControl) {
		return record{}, badPrincipalName()
	}
	objectID, err := s.newID("object id")
	if err != nil {
		return record{}, err
	}
	appID, err := s.newID("application id")
	if err != nil {
		return record{}, err
	}
	return record{Principal: Principal{ObjectID: objectID, AppID: appID, Name: name, Kind: Application}, created: database.Micros(s.now())}, nil
}

// newApplication makes one, with a secret, that is not stored yet.
func (s *Service) newApplication(name string) (record, credential, secret.Bytes, error) {
	r, err := s.newPrincipal(name)
	if err != nil {
		return record{}, credential{}, secret.Bytes{}, err
	}
	c, clientSecret, err := s.newSecret("", time.Time{})
	c.principal = r.ObjectID
	return r, c, clientSecret, err
}

func insertWith(ctx context.Context, tx *database.Tx, r record, c credential) error {
	if err := insertPrincipal(ctx, tx, r); err != nil {
		return err
	}
	return insertCredential(ctx, tx, c)
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }
