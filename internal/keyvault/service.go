// Package keyvault keeps keys and secrets, and says who may use them.
//
// A key vault is an Azure resource with a name that is unique in the whole installation. It holds keys (RSA,
// elliptic or symmetric; the private part never leaves except sealed) and secrets (a value of at most 25 KiB). Each
// has a name and versions; the newest version is what is meant when none is named.
//
// There are two doors into it, and each method belongs to one of them:
//
//   - Management: make, list, delete, recover and purge key vaults and change their access policies.
//     The caller needs a role (Options.Authorizer, actions Microsoft.KeyVault/…).
//   - Data: use keys and secrets. No role for management helps here; the caller needs a permission in an
//     access policy of that very key vault ("keys get", "secrets backup"), or, where the key vault leaves access to
//     roles (Settings.RBAC), a role with the data action that stands for it, assigned at the key or secret or above it
//     (rbac.go). The service itself, as the principal Backup Management Service, walks through the same check. The
//     caller is the identity.Principal in the context.
//
// What must hold:
//
//   - Private keys and values are stored only sealed, under a context that names key vault, kind, name and
//     version: a row moved to another place doesn't open.
//   - Each use of a key or secret, allowed or refused, leaves one entry in the log (package audit) that names who, what
//     and when and never the value. If that can't be written, the use fails: nothing is handed out unrecorded.
//   - Deleting is soft. A deleted name stays taken until it is recovered or purged, and purge protection
//     leaves the purge to the passing of the retention alone.
//   - A backup of a key or a secret holds all versions with their attributes in one authenticated blob that
//     opens only in this installation and tenant. A blob needs no key vault to be read (Unwrapped): a
//     recovery point can be proved from itself.
package keyvault

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/keyvault/audit"
)

// Sealer encrypts what must not be stored in plain; context says what the bytes are and where they belong.
// Open must fail unless sealed and context are exactly those of one Seal.
type Sealer interface {
	Seal(context string, plain []byte) ([]byte, error)
	Open(context string, sealed []byte) ([]byte, error)
}

// Authorizer decides whether the principal in ctx has a role that allows the action on the scope. A refusal
// is an error for the caller to read.
type Authorizer interface {
	Authorize(ctx context.Context, action string, scope armid.ID) error
}

// Roles knows what roles allow with the content of key vaults. It is asked within the transaction of the use.
type Roles interface {
	AllowsData(ctx context.Context, tx *database.Tx, objectID, action string, scope armid.ID) (bool, error)
}

// Groups knows the resource groups.
type Groups interface {
	GroupExists(ctx context.Context, name string) error
}

// Options are what the service is built from; all but Root, Roles, Groups, Issuer, Rand and NewVersion are needed.
type Options struct {
	DB         *database.DB
	Seal       Sealer
	Root       Root // rotates what Seal seals under; nil: nobody may
	Authorizer Authorizer
	Roles      Roles  // nil: who is let in by role only, is not let in
	Groups     Groups // asked before a key vault is put into a group; nil takes any group
	DNSSuffix  string // "vault.localhost:8443": a key vault's URI is https://<name>.<suffix>/
	TenantID   string
	Issuer     string // of tokens; shown in refusals, may be empty
	Now        func() time.Time
	Rand       io.Reader     // crypto/rand when nil
	NewVersion func() string // 32 hexadecimal digits; random when nil
}

// Service is the Key Vault of one installation. It is safe for concurrent use.
type Service struct {
	o   Options
	log *audit.Log

	rotated chan struct{} // gets a value when the root key has changed
}

// New returns the service. It fails when the database holds what another root key has sealed: better at the
// start than at the first restore.
func New(o Options) (*Service, error) {
	if o.DB == nil || o.Seal == nil || o.Authorizer == nil || o.Now == nil || o.DNSSuffix == "" || o.TenantID == "" {
		return nil, errors.New("make key vault service: an option is missing")
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	s := &Service{o: o, log: audit.New(o.DB, o.Seal, o.Rand), rotated: make(chan struct{}, 1)}
	if o.NewVersion == nil {
		s.o.NewVersion = s.randomVersion
	}
	if err := s.checkSeal(context.Background()); err != nil {
		return nil, err
	}
	return s, nil
}

const sealContext = "keyvault/check"

func (s *Service) checkSeal(ctx context.Context) error {
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		sealed, err := selectSeal(ctx, tx)
		if errors.Is(err, database.ErrNoRows) {
			if sealed, err = s.o.Seal.Seal(sealContext, []byte("kluis")); err != nil {
				return err
			}
			return insertSeal(ctx, tx, sealed)
		}
		if err != nil {
			return err
		}
		if _, err := s.o.Seal.Open(sealContext, sealed); err != nil {
			return fmt.Errorf("check root key: this database was sealed under another root key; put back the root.age and identity file that belong to it: %w", err)
		}
		return nil
	})
}

func (s *Service) randomVersion() string {
	b := make([]byte, 16)
	if _, err := io.ReadFull(s.o.Rand, b); err != nil {
		// The next write that needs randomness fails with an error; an empty version is refused before that.
		return ""
	}
	return hex.EncodeToString(b)
}

// now is the time as it is stored: in microseconds, UTC.
func (s *Service) now() time.Time { return s.o.Now().UTC().Truncate(time.Microsecond) }

// TenantID is the tenant that key vaults belong to.
func (s *Service) TenantID() string { return s.o.TenantID }
