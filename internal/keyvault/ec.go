package keyvault

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"fmt"
	"math/big"
	"slices"
)

// ecSigner is ECDSA on one of the curves of NIST. A signature is the two numbers one after the other, each as long as
// the curve (RFC 7518 section 3.4), not ASN.1.
type ecSigner struct{ hash crypto.Hash }

func (e ecSigner) sign(k privateKey, digest []byte) ([]byte, error) {
	if err := checkDigest(e.hash, digest); err != nil {
		return nil, err
	}
	r, s, err := ecdsa.Sign(rand.Reader, k.ec, digest)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	half := (k.ec.Curve.Params().BitSize + 7) / 8
	return slices.Concat(r.FillBytes(make([]byte, half)), s.FillBytes(make([]byte, half))), nil
}

func (e ecSigner) verify(k publicKey, digest, signature []byte) (bool, error) {
	if err := checkDigest(e.hash, digest); err != nil {
		return false, err
	}
	curve := curves[k.Curve]
	half := (curve.Params().BitSize + 7) / 8
	if len(signature) != 2*half {
		return false, nil
	}
	point := slices.Concat([]byte{4}, k.X, k.Y)
	public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return false, fmt.Errorf("read public key: %w", err)
	}
	r, s := new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])
	return ecdsa.Verify(public, digest, r, s), nil
}
