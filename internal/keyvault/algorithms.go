package keyvault

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"slices"
	"strings"

	"kluis/internal/secret"
)

// The algorithms that wrap a BEK, by their names in JSON Web Algorithms (RFC 7518).
const (
	RSA15      = "RSA1_5"
	RSAOAEP    = "RSA-OAEP" // with SHA-1: what Azure Disk Encryption uses unless told otherwise
	RSAOAEP256 = "RSA-OAEP-256"
)

// algorithm is one row of what keys can do: for which keys, and how. It either closes and opens (scheme) or
// signs and verifies (signer).
type algorithm struct {
	name       string
	typ, curve string // of the key; the curve only for EC
	size       int    // bits of an oct key
	uses       []string
	scheme     scheme
	signer     signer
}

// scheme closes what only the same key opens. open has one error for whatever is wrong, ErrUnwrap.
type scheme interface {
	close(k privateKey, plain secret.Bytes, iv, aad []byte) (Ciphertext, error)
	open(k privateKey, c Ciphertext) (secret.Bytes, error)
}

// signer signs a digest, not the message: the client has hashed it.
type signer interface {
	sign(k privateKey, digest []byte) ([]byte, error)
	verify(k publicKey, digest, signature []byte) (bool, error)
}

// Ciphertext is what Encrypt returns and Decrypt takes. For RSA only Value is used.
type Ciphertext struct {
	Value []byte
	IV    []byte // GCM, CBC
	AAD   []byte // GCM: authenticated beside the value
	Tag   []byte // GCM
}

// privateKey is a private key ready for use; the field of its type is set.
type privateKey struct {
	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
	oct []byte
}

var (
	wraps    = []string{"wrapKey", "unwrapKey"}
	encrypts = []string{"encrypt", "decrypt"}
	signs    = []string{"sign", "verify"}
)

var algorithms = []algorithm{
	{name: RSA15, typ: "RSA", uses: slices.Concat(wraps, encrypts), scheme: rsaScheme{RSA15}},
	{name: RSAOAEP, typ: "RSA", uses: slices.Concat(wraps, encrypts), scheme: rsaScheme{RSAOAEP}},
	{name: RSAOAEP256, typ: "RSA", uses: slices.Concat(wraps, encrypts), scheme: rsaScheme{RSAOAEP256}},

	{name: "RS256", typ: "RSA", uses: signs, signer: rsaPKCS1{crypto.SHA256}},
	{name: "RS384", typ: "RSA", uses: signs, signer: rsaPKCS1{crypto.SHA384}},
	{name: "RS512", typ: "RSA", uses: signs, signer: rsaPKCS1{crypto.SHA512}},
	{name: "PS256", typ: "RSA", uses: signs, signer: rsaPSS{crypto.SHA256}},
	{name: "PS384", typ: "RSA", uses: signs, signer: rsaPSS{crypto.SHA384}},
	{name: "PS512", typ: "RSA", uses: signs, signer: rsaPSS{crypto.SHA512}},

	{name: "ES256", typ: "EC", curve: "P-256", uses: signs, signer: ecSigner{crypto.SHA256}},
	{name: "ES384", typ: "EC", curve: "P-384", uses: signs, signer: ecSigner{crypto.SHA384}},
	{name: "ES512", typ: "EC", curve: "P-521", uses: signs, signer: ecSigner{crypto.SHA512}},

	{name: "A128KW", typ: "oct", size: 128, uses: wraps, scheme: aesWrap{}},
	{name: "A192KW", typ: "oct", size: 192, uses: wraps, scheme: aesWrap{}},
	{name: "A256KW", typ: "oct", size: 256, uses: wraps, scheme: aesWrap{}},
	{name: "A128GCM", typ: "oct", size: 128, uses: encrypts, scheme: aesGCM{}},
	{name: "A192GCM", typ: "oct", size: 192, uses: encrypts, scheme: aesGCM{}},
	{name: "A256GCM", typ: "oct", size: 256, uses: encrypts, scheme: aesGCM{}},
	{name: "A128CBC", typ: "oct", size: 128, uses: encrypts, scheme: aesCBC{}},
	{name: "A192CBC", typ: "oct", size: 192, uses: encrypts, scheme: aesCBC{}},
	{name: "A256CBC", typ: "oct", size: 256, uses: encrypts, scheme: aesCBC{}},
	{name: "A128CBCPAD", typ: "oct", size: 128, uses: encrypts, scheme: aesCBC{padded: true}},
	{name: "A192CBCPAD", typ: "oct", size: 192, uses: encrypts, scheme: aesCBC{padded: true}},
	{name: "A256CBCPAD", typ: "oct", size: 256, uses: encrypts, scheme: aesCBC{padded: true}},
}

// suits reports whether the algorithm can do this with a key.
func (a algorithm) suits(k *publicKey, permission string) bool {
	return a.typ == k.Type && (a.curve == "" || a.curve == k.Curve) && a.size == k.Size && slices.Contains(a.uses, permission)
}

// algorithmFor finds an algorithm by its name, if it suits the key.
func algorithmFor(name string, k *publicKey, permission string) (algorithm, error) {
	var known []string
	for _, a := range algorithms {
		if !a.suits(k, permission) {
			continue
		}
		if a.name == name {
			return a, nil
		}
		known = append(known, a.name)
	}
	return algorithm{}, badAlgorithm(name, k, permission, known)
}

func badAlgorithm(name string, k *publicKey, permission string, known []string) error {
	return badParameter("alg", "the algorithm %q can't %s with this key of type %s; those that can: %s", clip(name), permission, k.Type, strings.Join(known, " "))
}

var errOtherKey = errors.New("the stored key is of another type")

// parsePrivate reads the private part as it is stored: PKCS #8, and the bytes themselves for oct.
func parsePrivate(typ string, plain []byte) (privateKey, error) {
	if typ == "oct" {
		return privateKey{oct: plain}, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return privateKey{}, errOtherKey // x509's error might speak of the key
	}
	switch k := parsed.(type) {
	case *rsa.PrivateKey:
		if typ == "RSA" {
			return privateKey{rsa: k}, nil
		}
	case *ecdsa.PrivateKey:
		if typ == "EC" {
			return privateKey{ec: k}, nil
		}
	}
	return privateKey{}, errOtherKey
}

// wipe zeroes what can be zeroed; the numbers of RSA and EC keys are the standard library's.
func (k privateKey) wipe() { clear(k.oct) }
