// Package identity decides who calls and what they may do.
//
// A principal is an application with generated secrets or certificates, or a person with a password. An application trades
// a secret for a token (a signed JWT, one hour, one audience) and shows the token with every call; Verify turns the token
// back into the principal. A person signs in to a client, which gets such tokens in his name (session.go tells how).
//
// What a principal may do is the sum of its assignments: a built-in role at a scope, holding for everything below that
// scope. Authorize is the one place where that is decided, it is called by services and not by doors, and it denies
// whatever nothing allows. It also heeds locks, which forbid everybody to delete or change what is at their scope and
// below. What roles allow with the content of key vaults (data actions) is asked of AllowsData.
//
// Invariants:
//
//   - A client secret is stored only as a salted hash; it is returned once, when it is made. A password that a person has
//     chosen can be guessed, so its hash is a costly one, and who fails too often is refused for a while.
//   - Signing keys are stored sealed (Options.Seal) and never leave the process. One is believed until the last token
//     that it signed has expired.
//   - An assertion is accepted once for each audience, and only for this server's own token endpoint.
//   - A deleted or disabled principal's tokens stop working at once: Verify looks the principal up. So do those of a person
//     whose password was reset, or who was signed out.
//   - What stands for a sign-in until tokens are fetched (codes, device codes) and afterwards (refresh tokens) is kept as a hash,
//     good once, and bound to client, person and what was asked for.
//   - The principal Backup Management Service can't log in, and no role gives it actions. What it may
//     read is decided by the access policies of key vaults, or the data actions of its roles, like for anybody.
//   - Who gives a role needs the right to (Microsoft.Authorization/roleAssignments/write) at that scope, and somebody
//     always has it for the subscription.
//
// Directory makes and changes principals for callers, whom it authorizes. The functions of Service that do the same, and
// those of grants.go, do not authorize: whoever offers them to a caller does so first.
package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"kluis/internal/database"
)

// Sealer encrypts what is stored. The context binds a sealed value to its place: it opens only with
// the context that it was sealed with.
type Sealer interface {
	Seal(context string, plain []byte) ([]byte, error)
	Open(context string, sealed []byte) ([]byte, error)
}

// DefaultKeyLife is how long a key signs tokens, unless Options say otherwise.
const DefaultKeyLife = 30 * 24 * time.Hour

// Options is what a Service needs from outside. All but Rand and KeyLife are required.
type Options struct {
	DB             *database.DB
	TenantID       string
	SubscriptionID string
	Issuer         string // https base of the login endpoints, without a trailing slash
	Now            func() time.Time
	Rand           io.Reader // nil: crypto/rand
	Seal           Sealer
	KeyLife        time.Duration // after which a new key signs tokens; zero: DefaultKeyLife

	Outside          Outside  // an issuer that is believed beside our own; nil: none
	OutsideAudiences []string // what its tokens may be for
}

// Service is the identity of one tenant. It is safe for concurrent use.
type Service struct {
	db           *database.DB
	tenant       string
	subscription string
	issuer       string
	now          func() time.Time
	rand         io.Reader
	seal         Sealer
	keyLife      time.Duration

	outside          Outside // nil: none
	outsideAudiences []string

	keys      atomic.Pointer[[]signingKey] // newest first; never empty
	looked    atomic.Int64                 // when a key was looked for that was not there, in Unix microseconds
	attempts  attempts                     // of applications
	guesses   attempts                     // of people
	typed     attempts                     // user codes, by where they come from
	devices   attempts                     // that begin to sign in, by where they are
	passwords passwords
}

// New opens the service. At the first start it makes the signing key.
func New(ctx context.Context, o Options) (*Service, error) {
	switch {
	case o.DB == nil, o.Now == nil, o.Seal == nil:
		return nil, errors.New("identity needs a database, a clock and a sealer")
	case o.TenantID == "" || o.SubscriptionID == "" || o.Issuer == "":
		return nil, errors.New("identity needs a tenant, a subscription and an issuer")
	}
	s := &Service{
		db: o.DB, tenant: o.TenantID, subscription: o.SubscriptionID,
		issuer: strings.TrimRight(o.Issuer, "/") + "/" + o.TenantID + "/v2.0",
		now:    o.Now, rand: o.Rand, seal: o.Seal, keyLife: o.KeyLife, outside: o.Outside, outsideAudiences: o.OutsideAudiences,
		attempts: attempts{allowance: drawn}, guesses: attempts{allowance: chosen}, typed: attempts{allowance: drawn}, devices: attempts{allowance: drawn},
		passwords: newPasswords(),
	}
	if s.rand == nil {
		s.rand = rand.Reader
	}
	if s.keyLife == 0 {
		s.keyLife = DefaultKeyLife
	}
	if err := s.loadKeys(ctx); err != nil {
		return nil, fmt.Errorf("open signing keys: %w", err)
	}
	if err := s.nameGrants(ctx); err != nil {
		return nil, fmt.Errorf("name role assignments: %w", err)
	}
	return s, nil
}

// Tenant returns the tenant's id.
func (s *Service) Tenant() string { return s.tenant }

// Subscription returns the subscription's id.
func (s *Service) Subscription() string { return s.subscription }

// Issuer returns what tokens name as their issuer.
func (s *Service) Issuer() string { return s.issuer }
