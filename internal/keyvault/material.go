package keyvault

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"math/big"
	"strings"

	"kluis/internal/secret"
)

// material is a key: what is stored in plain, and the private part as PKCS #8, or for oct the bytes themselves.
type material struct {
	public  publicKey
	private secret.Bytes
}

var curves = map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}

// keyType folds the types that Azure keeps apart by where the key lies.
func keyType(typ string) (string, error) {
	switch strings.ToUpper(typ) {
	case "RSA", "RSA-HSM":
		return "RSA", nil
	case "EC", "EC-HSM":
		return "EC", nil
	case "OCT", "OCT-HSM":
		return "oct", nil
	}
	return "", badParameter("kty", "the key type %q is not supported; RSA, EC and oct are", clip(typ))
}

func generate(typ string, size int, curve string) (material, error) {
	typ, err := keyType(typ)
	if err != nil {
		return material{}, err
	}
	if typ == "EC" {
		if curve == "" {
			curve = "P-256"
		}
		c, ok := curves[curve]
		if !ok {
			return material{}, badCurve(curve)
		}
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			return material{}, fmt.Errorf("make EC key: %w", err)
		}
		return ecMaterial(key)
	}
	if typ == "oct" {
		return generateOct(size)
	}
	if size == 0 {
		size = 2048
	}
	if !validSize(size) {
		return material{}, badSize(size)
	}
	key, err := rsa.GenerateKey(rand.Reader, size)
	if err != nil {
		return material{}, fmt.Errorf("make RSA key: %w", err)
	}
	return rsaMaterial(key)
}

func generateOct(bits int) (material, error) {
	if bits == 0 {
		bits = 256
	}
	if !validOctSize(bits) {
		return material{}, badOctSize(bits)
	}
	key := make([]byte, bits/8)
	if _, err := rand.Read(key); err != nil {
		return material{}, fmt.Errorf("make oct key: %w", err)
	}
	return octMaterial(key), nil
}

// octMaterial takes ownership of key. Nothing of it is public.
func octMaterial(key []byte) material {
	return material{publicKey{Type: "oct", Size: 8 * len(key)}, secret.New(key)}
}

func validOctSize(bits int) bool { return bits == 128 || bits == 192 || bits == 256 }

func badOctSize(bits int) error {
	return badParameter("key_size", "an oct key of %d bits is not supported; 128, 192 and 256 are", bits)
}

func validSize(bits int) bool { return bits == 2048 || bits == 3072 || bits == 4096 }

func badSize(bits int) error {
	return badParameter("key_size", "an RSA key of %d bits is not supported; 2048, 3072 and 4096 are", bits)
}

func badCurve(curve string) error {
	return badParameter("crv", "the curve %q is not supported; P-256, P-384 and P-521 are", clip(curve))
}

func rsaMaterial(key *rsa.PrivateKey) (material, error) {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return material{}, fmt.Errorf("encode RSA key: %w", err)
	}
	p := publicKey{Type: "RSA", N: key.N.Bytes(), E: big.NewInt(int64(key.E)).Bytes()}
	return material{p, secret.New(private)}, nil
}

func ecMaterial(key *ecdsa.PrivateKey) (material, error) {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return material{}, fmt.Errorf("encode EC key: %w", err)
	}
	point, err := key.PublicKey.Bytes() // 4 | X | Y
	if err != nil {
		return material{}, fmt.Errorf("encode EC key: %w", err)
	}
	half := (len(point) - 1) / 2
	p := publicKey{Type: "EC", Curve: key.Curve.Params().Name, X: point[1 : 1+half], Y: point[1+half:]}
	return material{p, secret.New(private)}, nil
}

// maxComponent bounds the numbers of an imported key: those of RSA 4096.
const maxComponent = 4096/8 + 1

// material checks a key that somebody brings along, and that its parts belong together.
func (k JWK) material() (material, error) {
	typ, err := keyType(k.Type)
	if err != nil {
		return material{}, err
	}
	for _, n := range []int{len(k.N), len(k.E), len(k.X), len(k.Y), k.D.Len(), k.P.Len(), k.Q.Len(), k.K.Len()} {
		if n > maxComponent {
			return material{}, badParameter("key", "a number of the key has more than %d bytes", maxComponent)
		}
	}
	switch {
	case typ == "EC":
		return k.ec()
	case typ == "RSA":
		return k.rsa()
	case !validOctSize(8 * k.K.Len()):
		return material{}, badOctSize(8 * k.K.Len())
	}
	return octMaterial(bytes.Clone(k.K.Reveal())), nil
}

func (k JWK) rsa() (material, error) {
	e := new(big.Int).SetBytes(k.E)
	if len(k.N) == 0 || k.D.Len() == 0 || k.P.Len() == 0 || k.Q.Len() == 0 || !e.IsInt64() || e.Int64() > 1<<31-1 {
		return material{}, badParameter("key", "an RSA key needs n, e, d, p and q")
	}
	number := func(b secret.Bytes) *big.Int { return new(big.Int).SetBytes(b.Reveal()) }
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).SetBytes(k.N), E: int(e.Int64())},
		D:         number(k.D),
		Primes:    []*big.Int{number(k.P), number(k.Q)},
	}
	if bits := key.N.BitLen(); !validSize(bits) {
		return material{}, badSize(bits)
	}
	if err := key.Validate(); err != nil {
		return material{}, badParameter("key", "the numbers of the RSA key don't belong together")
	}
	key.Precompute()
	return rsaMaterial(key)
}

func (k JWK) ec() (material, error) {
	curve, ok := curves[k.Curve]
	if !ok {
		return material{}, badCurve(k.Curve)
	}
	size := (curve.Params().BitSize + 7) / 8
	d := new(big.Int).SetBytes(k.D.Reveal())
	if d.BitLen() > 8*size || len(k.X) > size || len(k.Y) > size {
		return material{}, badParameter("key", "a number of the EC key is too large for its curve")
	}
	key, err := ecdsa.ParseRawPrivateKey(curve, d.FillBytes(make([]byte, size)))
	if err != nil {
		return material{}, badParameter("key", "d is not a private key of %s", k.Curve)
	}
	m, err := ecMaterial(key)
	if err != nil {
		return material{}, err
	}
	same := func(a, b []byte) bool { return new(big.Int).SetBytes(a).Cmp(new(big.Int).SetBytes(b)) == 0 }
	if !same(k.X, m.public.X) || !same(k.Y, m.public.Y) {
		return material{}, badParameter("key", "x, y and d of the EC key don't belong together")
	}
	return m, nil
}
