package keyvault

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"hash"
	"math/big"
	"strings"

	"kluis/internal/secret"
)

// RSA, RFC 8017.

// rsaScheme is RSAES-PKCS1-v1_5 or RSAES-OAEP, by the name of the algorithm.
type rsaScheme struct{ name string }

func (r rsaScheme) close(k privateKey, plain secret.Bytes, iv, aad []byte) (Ciphertext, error) {
	if len(iv)+len(aad) > 0 {
		return Ciphertext{}, badParameter("iv", "%s takes neither iv nor aad", r.name)
	}
	value, err := rsaEncrypt(&k.rsa.PublicKey, r.name, plain)
	return Ciphertext{Value: value}, err
}

func (r rsaScheme) open(k privateKey, c Ciphertext) (secret.Bytes, error) {
	return rsaDecrypt(k.rsa, r.name, c.Value)
}

func rsaEncrypt(key *rsa.PublicKey, algorithm string, plain secret.Bytes) ([]byte, error) {
	room := key.Size() - 11
	if h := oaepHash(algorithm); h != nil {
		room = key.Size() - 2*h.Size() - 2
	}
	if plain.Len() == 0 || plain.Len() > room {
		return nil, badParameter("value", "the value has %d bytes, and with %s this key takes 1 to %d", plain.Len(), algorithm, room)
	}
	if h := oaepHash(algorithm); h != nil {
		return rsa.EncryptOAEP(h, rand.Reader, key, plain.Reveal(), nil)
	}
	return rsa.EncryptPKCS1v15(rand.Reader, key, plain.Reveal()) //nolint:staticcheck // what clients ask for by the name RSA1_5
}

// rsaDecrypt fails with one error whatever is wrong: a caller must not learn which step it was.
func rsaDecrypt(key *rsa.PrivateKey, algorithm string, value []byte) (secret.Bytes, error) {
	var plain []byte
	var err error
	if h := oaepHash(algorithm); h != nil {
		plain, err = rsa.DecryptOAEP(h, nil, key, value, nil)
	} else {
		plain, err = rsa.DecryptPKCS1v15(nil, key, value) //nolint:staticcheck // who may call this may unwrap anything anyway
	}
	if err != nil {
		return secret.Bytes{}, ErrUnwrap
	}
	return secret.New(plain), nil
}

func oaepHash(algorithm string) hash.Hash {
	switch strings.ToUpper(algorithm) {
	case RSAOAEP:
		return sha1.New()
	case RSAOAEP256:
		return sha256.New()
	}
	return nil
}

// rsaPKCS1 is RSASSA-PKCS1-v1_5.
type rsaPKCS1 struct{ hash crypto.Hash }

func (r rsaPKCS1) sign(k privateKey, digest []byte) ([]byte, error) {
	if err := checkDigest(r.hash, digest); err != nil {
		return nil, err
	}
	return rsa.SignPKCS1v15(rand.Reader, k.rsa, r.hash, digest)
}

func (r rsaPKCS1) verify(k publicKey, digest, signature []byte) (bool, error) {
	if err := checkDigest(r.hash, digest); err != nil {
		return false, err
	}
	return rsa.VerifyPKCS1v15(k.rsa(), r.hash, digest, signature) == nil, nil
}

// rsaPSS is RSASSA-PSS with a salt as long as the digest, as RFC 7518 section 3.5 wants it.
type rsaPSS struct{ hash crypto.Hash }

func (r rsaPSS) options() *rsa.PSSOptions {
	return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: r.hash}
}

func (r rsaPSS) sign(k privateKey, digest []byte) ([]byte, error) {
	if err := checkDigest(r.hash, digest); err != nil {
		return nil, err
	}
	return rsa.SignPSS(rand.Reader, k.rsa, r.hash, digest, r.options())
}

func (r rsaPSS) verify(k publicKey, digest, signature []byte) (bool, error) {
	if err := checkDigest(r.hash, digest); err != nil {
		return false, err
	}
	return rsa.VerifyPSS(k.rsa(), r.hash, digest, signature, r.options()) == nil, nil
}

func (p publicKey) rsa() *rsa.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).SetBytes(p.N), E: int(new(big.Int).SetBytes(p.E).Int64())}
}

func checkDigest(h crypto.Hash, digest []byte) error {
	if len(digest) != h.Size() {
		return badParameter("value", "the digest has %d bytes, and the algorithm takes %d", len(digest), h.Size())
	}
	return nil
}
