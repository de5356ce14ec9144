package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha1" // the name of a certificate, by RFC 7515, not a proof of anything
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"strings"
	"time"

	"kluis/internal/database"
	"kluis/internal/secret"
)

const (
	secretSize     = 32 // bytes; nobody guesses it, so its hash needs a salt but no work factor
	saltSize       = 16
	maxCredentials = 20
	maxCertificate = 16 << 10
	minRSABits     = 2048
)

var noEnd time.Time

// CredentialKind says how a credential proves its principal.
type CredentialKind string

// The kinds of credentials.
const (
	SecretCredential      CredentialKind = "secret"
	CertificateCredential CredentialKind = "certificate"
	PasswordCredential    CredentialKind = "password"
)

// Credential is one of the things by which a principal proves itself, without the proof.
type Credential struct {
	ID         string
	Kind       CredentialKind
	Name       string
	Thumbprint string // of a certificate: SHA-1, as Azure's clients name it
	Issuer     string // of a subject or group outside, which is the name
	Created    time.Time
	Expires    time.Time // zero: never
}

// credential is a Credential with what it is checked by.
type credential struct {
	Credential
	principal string
	salt      []byte
	proof     []byte // hash of a secret; a certificate, DER; of a password, the number of its recipe and the hash; an issuer outside
}

func (c credential) expired(now time.Time) bool { return !c.Expires.IsZero() && !now.Before(c.Expires) }

// Credentials returns the credentials of a principal, oldest first.
func (s *Service) Credentials(ctx context.Context, idOrAppID string) (all []Credential, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		p, err := s.find(ctx, tx, idOrAppID)
		if err != nil {
			return err
		}
		stored, err := credentialsOf(ctx, tx, p.ObjectID)
		for _, c := range stored {
			all = append(all, c.Credential)
		}
		return err
	})
	return all, err
}

// AddSecret gives a principal one more secret. It can't be had again later. expires may be zero.
func (s *Service) AddSecret(ctx context.Context, idOrAppID, name string, expires time.Time) (Credential, secret.Bytes, error) {
	c, clientSecret, err := s.newSecret(name, expires)
	if err != nil {
		return Credential{}, secret.Bytes{}, err
	}
	if err := s.addCredential(ctx, idOrAppID, c); err != nil {
		return Credential{}, secret.Bytes{}, err
	}
	return c.Credential, clientSecret, nil
}

// AddCertificate lets a principal prove itself by assertions that the certificate's key has signed. The
// certificate is PEM or DER; it needs no issuer that anybody trusts. It ends when it says so, or at expires.
func (s *Service) AddCertificate(ctx context.Context, idOrAppID, name string, certificate []byte, expires time.Time) (Credential, error) {
	c, err := s.newCertificate(name, certificate, expires)
	if err != nil {
		return Credential{}, err
	}
	return c.Credential, s.addCredential(ctx, idOrAppID, c)
}

func (s *Service) addCredential(ctx context.Context, idOrAppID string, c credential) error {
	return s.db.InTx(ctx, func(tx *database.Tx) error {
		p, err := s.application(ctx, tx, idOrAppID)
		if err != nil {
			return err
		}
		c.principal = p.ObjectID
		there, err := credentialsOf(ctx, tx, p.ObjectID)
		if err != nil {
			return err
		}
		for _, old := range there {
			if c.Kind == CertificateCredential && bytes.Equal(old.proof, c.proof) {
				return certificateExists(old.Credential)
			}
		}
		if len(there) >= maxCredentials {
			return tooManyCredentials(p)
		}
		return insertCredential(ctx, tx, c)
	})
}

// RemoveCredential takes one away. Tokens that were got with it work until they expire. A password is only replaced.
func (s *Service) RemoveCredential(ctx context.Context, idOrAppID, credentialID string) error {
	return s.db.InTx(ctx, func(tx *database.Tx) error {
		p, err := s.changeable(ctx, tx, idOrAppID)
		if err != nil {
			return err
		}
		removed, err := deleteCredential(ctx, tx, p.ObjectID, strings.ToLower(credentialID))
		if err == nil && !removed {
			return credentialNotFound(credentialID)
		}
		return err
	})
}

// NewSecret replaces all secrets of a principal by one; the old ones no longer work. Tokens already given out do,
// until they expire.
func (s *Service) NewSecret(ctx context.Context, idOrAppID string) (secret.Bytes, error) {
	c, clientSecret, err := s.newSecret("", time.Time{})
	if err != nil {
		return secret.Bytes{}, err
	}
	err = s.db.InTx(ctx, func(tx *database.Tx) error {
		p, err := s.application(ctx, tx, idOrAppID)
		if err != nil {
			return err
		}
		if err := deleteCredentials(ctx, tx, p.ObjectID, SecretCredential); err != nil {
			return err
		}
		c.principal = p.ObjectID
		return insertCredential(ctx, tx, c)
	})
	if err != nil {
		return secret.Bytes{}, err
	}
	return clientSecret, nil
}

func (s *Service) newCredential(kind CredentialKind, name string, expires time.Time) (credential, error) {
	name = strings.TrimSpace(name)
	if len(name) > maxName || strings.ContainsFunc(name, isControl) {
		return credential{}, badCredential("its name has at most 256 bytes and no control characters")
	}
	now := s.now()
	if !expires.IsZero() && !now.Before(expires) {
		return credential{}, badCredential("it has expired already")
	}
	id, err := s.newID("id of credential")
	if err != nil {
		return credential{}, err
	}
	return credential{Credential: Credential{ID: id, Kind: kind, Name: name, Created: now, Expires: expires}}, nil
}

func (s *Service) newCertificate(name string, certificate []byte, expires time.Time) (credential, error) {
	parsed, err := parseCertificate(certificate)
	if err != nil {
		return credential{}, badCertificate(err)
	}
	if expires.IsZero() || parsed.NotAfter.Before(expires) {
		expires = parsed.NotAfter
	}
	c, err := s.newCredential(CertificateCredential, name, expires)
	c.proof, c.salt, c.Thumbprint = parsed.Raw, []byte{}, thumbprint(parsed.Raw)
	return c, err
}

// newSecret makes a secret, as text that goes through forms and shells unchanged, and what it is checked by.
func (s *Service) newSecret(name string, expires time.Time) (credential, secret.Bytes, error) {
	c, err := s.newCredential(SecretCredential, name, expires)
	if err != nil {
		return credential{}, secret.Bytes{}, err
	}
	b := make([]byte, secretSize+saltSize)
	if _, err := io.ReadFull(s.rand, b); err != nil {
		return credential{}, secret.Bytes{}, fmt.Errorf("draw secret: %w", err)
	}
	text := make([]byte, base64.RawURLEncoding.EncodedLen(secretSize))
	base64.RawURLEncoding.Encode(text, b[:secretSize])
	clear(b[:secretSize])
	c.salt = b[secretSize:]
	c.proof = hashSecret(c.salt, text)
	return c, secret.New(text), nil
}

func hashSecret(salt, text []byte) []byte {
	h := sha256.New()
	h.Write(salt)
	h.Write(text)
	return h.Sum(nil)
}

// provenBy compares in constant time.
func (c credential) provenBy(clientSecret secret.Bytes) bool {
	return c.Kind == SecretCredential && subtle.ConstantTimeCompare(hashSecret(c.salt, clientSecret.Reveal()), c.proof) == 1
}

// parseCertificate reads a certificate whose key is of a kind that assertions are signed with.
func parseCertificate(b []byte) (*x509.Certificate, error) {
	if len(b) > maxCertificate {
		return nil, fmt.Errorf("it has more than %d bytes", maxCertificate)
	}
	if block, _ := pem.Decode(b); block != nil {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("it is a %q", clip(block.Type))
		}
		b = block.Bytes
	}
	c, err := x509.ParseCertificate(b)
	if err != nil {
		return nil, err
	}
	return c, checkKey(c.PublicKey)
}

func checkKey(key crypto.PublicKey) error {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < minRSABits {
			return fmt.Errorf("its RSA key has %d bits, fewer than %d", key.N.BitLen(), minRSABits)
		}
		return nil
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return fmt.Errorf("its EC key is on %s, not on P-256", key.Curve.Params().Name)
		}
		return nil
	}
	return fmt.Errorf("its key is a %T, neither RSA nor EC", key)
}

func thumbprint(der []byte) string {
	sum := sha1.Sum(der)
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}
