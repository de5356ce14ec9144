package identity

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/google/uuid"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/secret"
)

// People are principals that sign in at a page, with a name and a password. What they may do is decided as for
// applications. Everything that somebody has signed in to can be ended at once: tokens carry the number of the person's
// sessions, and only the present one is believed.

// NewUser says which person is to be made.
type NewUser struct {
	Name       string // empty: the sign-in name
	SignInName string
	Password   secret.Bytes // empty: one is drawn
	Role       string       // given at Scope; empty: none
	Scope      armid.ID
}

// createUser makes a person, with a role if one is asked for, or nothing. The password is returned if it was drawn.
func (s *Service) createUser(ctx context.Context, n NewUser) (Principal, secret.Bytes, error) {
	r, err := s.newUser(n)
	if err != nil {
		return Principal{}, secret.Bytes{}, err
	}
	c, password, err := s.choosePassword(ctx, n.Password)
	if err != nil {
		return Principal{}, secret.Bytes{}, err
	}
	c.principal = r.ObjectID
	err = s.db.InTx(ctx, func(tx *database.Tx) error { return s.insertWithRole(ctx, tx, r, c, n.Role, n.Scope) })
	if database.IsUnique(err) {
		return Principal{}, secret.Bytes{}, signInNameTaken(r.SignInName)
	}
	if err != nil {
		return Principal{}, secret.Bytes{}, fmt.Errorf("create user: %w", err)
	}
	return s.full(r.Principal), password, nil
}

// signInName is what people type, perhaps into a shell: ada, or ada@example.com.
var signInName = regexp.MustCompile(`^[a-z0-9][a-z0-9._+-]{0,63}(@[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?)?$`)

func foldSignInName(name string) string { return strings.ToLower(strings.TrimSpace(name)) }

func (s *Service) newUser(n NewUser) (record, error) {
	login := foldSignInName(n.SignInName)
	if !signInName.MatchString(login) {
		return record{}, badSignInName()
	}
	if strings.TrimSpace(n.Name) == "" {
		n.Name = login
	}
	r, err := s.newPrincipal(n.Name)
	if err != nil {
		return record{}, err
	}
	r.Kind, r.AppID, r.SignInName = User, "", login
	return r, nil
}

// choosePassword is what the given password is checked by, or a drawn one, which is returned with it.
func (s *Service) choosePassword(ctx context.Context, given secret.Bytes) (c credential, password secret.Bytes, err error) {
	if given.Len() > 0 {
		c, err = s.newPassword(ctx, given)
		return c, secret.Bytes{}, err
	}
	if password, err = s.drawPassword(); err != nil {
		return c, secret.Bytes{}, err
	}
	c, err = s.newPassword(ctx, password)
	return c, password, err
}

// ResetPassword gives a person another password, and ends what he had signed in to. The password is returned if
// it was drawn, because none was given.
func (s *Service) ResetPassword(ctx context.Context, id string, given secret.Bytes) (secret.Bytes, error) {
	c, password, err := s.choosePassword(ctx, given)
	if err != nil {
		return secret.Bytes{}, err
	}
	var p Principal
	err = s.db.InTx(ctx, func(tx *database.Tx) error {
		if p, err = s.person(ctx, tx, id); err != nil {
			return err
		}
		if err := deleteCredentials(ctx, tx, p.ObjectID, PasswordCredential); err != nil {
			return err
		}
		c.principal = p.ObjectID
		if err := insertCredential(ctx, tx, c); err != nil {
			return err
		}
		return endSessions(ctx, tx, p.ObjectID)
	})
	if err != nil {
		return secret.Bytes{}, err
	}
	s.guesses.forgive(p.SignInName)
	return password, nil
}

// EndSessions ends everything that a person has signed in to: he signs in anew, everywhere.
func (s *Service) EndSessions(ctx context.Context, id string) error {
	return s.db.InTx(ctx, func(tx *database.Tx) error {
		p, err := s.person(ctx, tx, id)
		if err != nil {
			return err
		}
		return endSessions(ctx, tx, p.ObjectID)
	})
}

// SignIn returns the person who has that name and password. Who fails too often is refused for a while, whatever
// password he then has: passwords can be guessed. Names that don't exist are not told from those that do. Also with a
// refusal the person is returned whose name it was, for the log.
func (s *Service) SignIn(ctx context.Context, name string, password secret.Bytes) (Principal, error) {
	name = foldSignInName(name)
	if len(name) > maxName || password.Len() > maxPassword {
		return Principal{}, wrongPassword()
	}
	if !s.guesses.try(name, s.now()) {
		return Principal{}, tooManyGuesses()
	}
	r, c, err := s.passwordOf(ctx, name)
	if err != nil {
		return Principal{}, err
	}
	proven, err := s.passwords.proven(ctx, c, password)
	switch {
	case err != nil:
		return Principal{}, fmt.Errorf("check password: %w", err)
	case !proven:
		return r.Principal, wrongPassword()
	}
	s.guesses.forgive(name)
	if r.Disabled {
		return r.Principal, disabledUser()
	}
	return s.full(r.Principal), nil
}

// ChangePassword is for a person himself: who knows the password gives himself another one, and is then signed out everywhere.
// As SignIn, it returns the person also with a refusal.
func (s *Service) ChangePassword(ctx context.Context, name string, password, chosen secret.Bytes) (Principal, error) {
	p, err := s.SignIn(ctx, name, password)
	if err != nil {
		return p, err
	}
	if chosen.Len() == 0 {
		return p, badPassword()
	}
	_, err = s.ResetPassword(ctx, p.ObjectID, chosen)
	return p, err
}

// UserNamed finds a person by his sign-in name.
func (s *Service) UserNamed(ctx context.Context, name string) (p Principal, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		r, found, err := principalBySignInName(ctx, tx, foldSignInName(name))
		if err == nil && !found {
			return principalNotFound(name)
		}
		p = s.full(r.Principal)
		return err
	})
	return p, err
}

// passwordOf finds a person with his password; the password is nil where there is none.
func (s *Service) passwordOf(ctx context.Context, name string) (r record, c *credential, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		var found bool
		if r, found, err = principalBySignInName(ctx, tx, name); err != nil || !found {
			return err
		}
		all, err := credentialsOf(ctx, tx, r.ObjectID)
		for _, one := range all {
			if one.Kind == PasswordCredential {
				c = &one
			}
		}
		return err
	})
	if err != nil {
		return record{}, nil, fmt.Errorf("find user: %w", err)
	}
	return r, c, nil
}

// person finds a principal that is one.
func (s *Service) person(ctx context.Context, tx *database.Tx, id string) (Principal, error) {
	p, err := s.changeable(ctx, tx, id)
	if err == nil && p.Kind != User {
		return Principal{}, notAPerson(p)
	}
	return p, err
}

// application finds a principal that has secrets and certificates.
func (s *Service) application(ctx context.Context, tx *database.Tx, id string) (Principal, error) {
	p, err := s.changeable(ctx, tx, id)
	if err == nil && p.Kind != Application {
		return Principal{}, notAnApplication(p)
	}
	return p, err
}

// newID draws an id in Azure's shape.
func (s *Service) newID(what string) (string, error) {
	id, err := uuid.NewRandomFromReader(s.rand)
	if err != nil {
		return "", fmt.Errorf("draw %s: %w", what, err)
	}
	return id.String(), nil
}
