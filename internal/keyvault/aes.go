package keyvault

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"slices"

	josecipher "github.com/go-jose/go-jose/v4/cipher"

	"kluis/internal/secret"
)

// Keys of type oct: AES.

// maxPlain is the most that a key encrypts at once; what is larger is encrypted with a key that is wrapped.
const maxPlain = 64 << 10

// aesWrap is AES Key Wrap (RFC 3394): no iv, and whatever was changed doesn't unwrap.
type aesWrap struct{}

func (aesWrap) close(k privateKey, plain secret.Bytes, iv, aad []byte) (Ciphertext, error) {
	switch {
	case len(iv)+len(aad) > 0:
		return Ciphertext{}, badParameter("iv", "AES Key Wrap takes neither iv nor aad")
	case plain.Len() < 16 || plain.Len()%8 != 0 || plain.Len() > maxPlain:
		return Ciphertext{}, badParameter("value", "the value has %d bytes, and AES Key Wrap takes 16 to %d, a multiple of 8", plain.Len(), maxPlain)
	}
	block, err := aes.NewCipher(k.oct)
	if err != nil {
		return Ciphertext{}, err
	}
	value, err := josecipher.KeyWrap(block, plain.Reveal())
	return Ciphertext{Value: value}, err
}

func (aesWrap) open(k privateKey, c Ciphertext) (secret.Bytes, error) {
	block, err := aes.NewCipher(k.oct)
	if err != nil || len(c.Value) < 24 || len(c.Value)%8 != 0 || len(c.Value) > maxPlain+8 {
		return secret.Bytes{}, ErrUnwrap
	}
	plain, err := josecipher.KeyUnwrap(block, c.Value)
	if err != nil {
		return secret.Bytes{}, ErrUnwrap
	}
	return secret.New(plain), nil
}

// aesGCM makes its iv itself: one that came twice would give the key away.
type aesGCM struct{}

func (aesGCM) close(k privateKey, plain secret.Bytes, iv, aad []byte) (Ciphertext, error) {
	switch {
	case len(iv) > 0:
		return Ciphertext{}, badParameter("iv", "with GCM the server chooses the iv")
	case plain.Len() == 0 || plain.Len() > maxPlain:
		return Ciphertext{}, badParameter("value", "the value has %d bytes, and GCM takes 1 to %d", plain.Len(), maxPlain)
	}
	aead, err := gcm(k)
	if err != nil {
		return Ciphertext{}, err
	}
	iv = make([]byte, aead.NonceSize())
	if _, err := rand.Read(iv); err != nil {
		return Ciphertext{}, err
	}
	out := aead.Seal(nil, iv, plain.Reveal(), aad)
	end := len(out) - aead.Overhead()
	return Ciphertext{Value: out[:end:end], IV: iv, AAD: aad, Tag: out[end:]}, nil
}

func (aesGCM) open(k privateKey, c Ciphertext) (secret.Bytes, error) {
	aead, err := gcm(k)
	if err != nil || len(c.IV) != aead.NonceSize() || len(c.Tag) != aead.Overhead() {
		return secret.Bytes{}, ErrUnwrap
	}
	plain, err := aead.Open(nil, c.IV, slices.Concat(c.Value, c.Tag), c.AAD)
	if err != nil {
		return secret.Bytes{}, ErrUnwrap
	}
	return secret.New(plain), nil
}

func gcm(k privateKey) (cipher.AEAD, error) {
	block, err := aes.NewCipher(k.oct)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// aesCBC authenticates nothing; it is there for clients that ask for it. Padded is with the padding of PKCS #7.
type aesCBC struct{ padded bool }

func (a aesCBC) close(k privateKey, plain secret.Bytes, iv, aad []byte) (Ciphertext, error) {
	if iv == nil {
		iv = make([]byte, aes.BlockSize)
		if _, err := rand.Read(iv); err != nil {
			return Ciphertext{}, err
		}
	}
	in := plain.Reveal()
	switch {
	case len(aad) > 0:
		return Ciphertext{}, badParameter("aad", "CBC takes no aad")
	case len(iv) != aes.BlockSize:
		return Ciphertext{}, badParameter("iv", "the iv has %d bytes, and CBC takes %d", len(iv), aes.BlockSize)
	case len(in) == 0 || len(in) > maxPlain || !a.padded && len(in)%aes.BlockSize != 0:
		return Ciphertext{}, badParameter("value", "the value has %d bytes, and CBC takes 1 to %d, a multiple of %d unless it is padded", len(in), maxPlain, aes.BlockSize)
	}
	block, err := aes.NewCipher(k.oct)
	if err != nil {
		return Ciphertext{}, err
	}
	out := bytes.Clone(in)
	if a.padded {
		n := aes.BlockSize - len(in)%aes.BlockSize
		out = append(out, bytes.Repeat([]byte{byte(n)}, n)...)
	}
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(out, out)
	return Ciphertext{Value: out, IV: iv}, nil
}

func (a aesCBC) open(k privateKey, c Ciphertext) (secret.Bytes, error) {
	block, err := aes.NewCipher(k.oct)
	if err != nil || len(c.IV) != aes.BlockSize || len(c.Value) == 0 || len(c.Value)%aes.BlockSize != 0 || len(c.Value) > maxPlain+aes.BlockSize {
		return secret.Bytes{}, ErrUnwrap
	}
	out := make([]byte, len(c.Value))
	cipher.NewCBCDecrypter(block, c.IV).CryptBlocks(out, c.Value)
	if !a.padded {
		return secret.New(out), nil
	}
	n, good := padding(out[len(out)-aes.BlockSize:])
	if good != 1 {
		clear(out)
		return secret.Bytes{}, ErrUnwrap
	}
	return secret.New(out[: len(out)-n : len(out)-n]), nil
}

// padding returns how long the padding of the last block is, and 1 if it is well-formed. It takes the same time for each
// block of bytes.
func padding(last []byte) (n, good int) {
	n = int(last[len(last)-1])
	good = subtle.ConstantTimeLessOrEq(1, n) & subtle.ConstantTimeLessOrEq(n, len(last))
	for i, b := range last {
		inside := subtle.ConstantTimeLessOrEq(len(last)-i, n)
		good &= subtle.ConstantTimeSelect(inside, subtle.ConstantTimeByteEq(b, byte(n)), 1)
	}
	return n, good
}
