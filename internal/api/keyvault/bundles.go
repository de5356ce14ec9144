package keyvault

import (
	"encoding/base64"
	"strings"
	"time"

	"kluis/internal/keyvault"
	"kluis/internal/problem"
	"kluis/internal/secret"
)

// The JSON of keys and secrets. Byte strings are base64url without padding, times are Unix seconds.

type attributes struct {
	Enabled         *bool  `json:"enabled,omitempty"`
	NotBefore       *int64 `json:"nbf,omitempty"`
	Expires         *int64 `json:"exp,omitempty"`
	Created         int64  `json:"created,omitempty"`
	Updated         int64  `json:"updated,omitempty"`
	RecoveryLevel   string `json:"recoveryLevel,omitempty"`
	RecoverableDays int    `json:"recoverableDays,omitempty"`
	Exportable      *bool  `json:"exportable,omitempty"`
}

func attributesOf(a keyvault.Attributes) attributes {
	return attributes{
		Enabled: &a.Enabled, NotBefore: unix(a.NotBefore), Expires: unix(a.Expires), Created: a.Created.Unix(), Updated: a.Updated.Unix(),
		RecoveryLevel: a.RecoveryLevel, RecoverableDays: a.RecoverableDays,
	}
}

func unix(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	return new(t.Unix())
}

// Times beyond year 9999 can't be written in other formats, so they are refused.
const maxSeconds = 253402300799

// change is what a client asks for, in the service's words.
func (a *attributes) change(tags map[string]string, contentType *string, operations []string) (keyvault.Change, error) {
	c := keyvault.Change{Tags: tags, ContentType: contentType, Operations: operations}
	if a == nil {
		return c, nil
	}
	c.Enabled = a.Enabled
	for _, limit := range []struct {
		name string
		sent *int64
		to   **time.Time
	}{{"nbf", a.NotBefore, &c.NotBefore}, {"exp", a.Expires, &c.Expires}} {
		if limit.sent == nil {
			continue
		}
		if *limit.sent <= 0 || *limit.sent > maxSeconds {
			return keyvault.Change{}, badParameter("attributes."+limit.name, "the time is not in Unix seconds")
		}
		*limit.to = new(time.Unix(*limit.sent, 0).UTC())
	}
	return c, nil
}

type jsonWebKey struct {
	KID        string   `json:"kid,omitempty"`
	Type       string   `json:"kty"`
	Operations []string `json:"key_ops,omitempty"`
	N          octets   `json:"n,omitempty"`
	E          octets   `json:"e,omitempty"`
	Curve      string   `json:"crv,omitempty"`
	X          octets   `json:"x,omitempty"`
	Y          octets   `json:"y,omitempty"`
	D          octets   `json:"d,omitempty"` // only ever read
	P          octets   `json:"p,omitempty"`
	Q          octets   `json:"q,omitempty"`
	K          octets   `json:"k,omitempty"`
}

func (k jsonWebKey) imported() keyvault.JWK {
	return keyvault.JWK{Type: k.Type, Curve: k.Curve, Operations: k.Operations, N: k.N, E: k.E, X: k.X, Y: k.Y,
		D: secret.New(k.D), P: secret.New(k.P), Q: secret.New(k.Q), K: secret.New(k.K)}
}

type keyBundle struct {
	deletedPart
	Key        jsonWebKey        `json:"key"`
	Attributes attributes        `json:"attributes"`
	Tags       map[string]string `json:"tags,omitempty"`
}

type keyItem struct {
	deletedPart
	KID        string            `json:"kid"`
	Attributes attributes        `json:"attributes"`
	Tags       map[string]string `json:"tags,omitempty"`
}

// deletedPart is what the answers for something deleted say more.
type deletedPart struct {
	RecoveryID         string `json:"recoveryId,omitempty"`
	DeletedDate        int64  `json:"deletedDate,omitempty"`
	ScheduledPurgeDate int64  `json:"scheduledPurgeDate,omitempty"`
}

func (d *dataPlane) deleted(t keyvault.Deletion, kind keyvault.Kind, vault, name string) deletedPart {
	if t.At.IsZero() {
		return deletedPart{}
	}
	return deletedPart{d.s.VaultURL(vault) + "deleted" + string(kind) + "/" + name, t.At.Unix(), t.Purge.Unix()}
}

func (d *dataPlane) keyBundle(k keyvault.Key) keyBundle {
	a := attributesOf(k.Attributes)
	a.Exportable = new(false)
	return keyBundle{
		deletedPart: d.deleted(k.Deletion, keyvault.Keys, k.ID.Vault, k.ID.Name),
		Key:         jsonWebKey{KID: d.s.KeyURL(k.ID), Type: k.Type, Operations: k.Operations, N: k.N, E: k.E, Curve: k.Curve, X: k.X, Y: k.Y},
		Attributes:  a, Tags: k.Tags,
	}
}

func (d *dataPlane) keyItem(k keyvault.Key, versioned bool) keyItem {
	id := k.ID
	if !versioned {
		id.Version = ""
	}
	return keyItem{d.deleted(k.Deletion, keyvault.Keys, id.Vault, id.Name), d.s.KeyURL(id), attributesOf(k.Attributes), k.Tags}
}

type secretBundle struct {
	deletedPart
	Value       *string           `json:"value,omitempty"`
	ID          string            `json:"id"`
	ContentType string            `json:"contentType,omitempty"`
	Attributes  attributes        `json:"attributes"`
	Tags        map[string]string `json:"tags,omitempty"`
}

func (d *dataPlane) secretBundle(s keyvault.Secret, versioned bool) secretBundle {
	id := s.ID
	if !versioned {
		id.Version = ""
	}
	return secretBundle{
		deletedPart: d.deleted(s.Deletion, keyvault.Secrets, id.Vault, id.Name),
		ID:          d.s.SecretURL(id), ContentType: s.ContentType, Attributes: attributesOf(s.Attributes), Tags: s.Tags,
	}
}

// secretValue is the bundle with the value in it: for the two answers that show it.
func (d *dataPlane) secretValue(s keyvault.Secret) secretBundle {
	b := d.secretBundle(s, true)
	b.Value = new(string(s.Value.Reveal()))
	return b
}

// octets are base64url in JSON; padding is accepted.
type octets []byte

func (b octets) MarshalText() ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(nil, b), nil
}

func (b *octets) UnmarshalText(text []byte) error {
	out, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(string(text), "="))
	if err != nil {
		return errNotBase64 // the decoder's error tells where, which for a key is too much
	}
	*b = out
	return nil
}

var errNotBase64 = badParameter("value", "a byte string is not base64url")

func badParameter(target, what string) *problem.Error {
	return problem.New(problem.Invalid, "BadParameter", "The request is malformed at %s: %s.", target, what).WithTarget(target).
		WithAdvice("Correct the request and send it again.")
}
