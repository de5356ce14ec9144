package keyvault_test

import (
	"bytes"
	"slices"
	"testing"

	"kluis/internal/database/databasetest"
	"kluis/internal/keyvault"
	"kluis/internal/secret"
)

// sorts are keys of each sort, and what can be done with each.
var sorts = []struct {
	name                  string
	new                   keyvault.NewKey
	wraps, encrypts, sign []string
}{
	{"rsa", keyvault.NewKey{Type: "RSA"}, rsaClosing, rsaClosing, rsaSigning},
	{"rsa-hsm", keyvault.NewKey{Type: "RSA-HSM", Size: 3072}, rsaClosing, rsaClosing, rsaSigning},
	{"p256", keyvault.NewKey{Type: "EC"}, nil, nil, []string{"ES256"}},
	{"p384", keyvault.NewKey{Type: "EC-HSM", Curve: "P-384"}, nil, nil, []string{"ES384"}},
	{"p521", keyvault.NewKey{Type: "EC", Curve: "P-521"}, nil, nil, []string{"ES512"}},
	{"oct128", keyvault.NewKey{Type: "oct", Size: 128}, []string{"A128KW"}, []string{"A128GCM", "A128CBC", "A128CBCPAD"}, nil},
	{"oct192", keyvault.NewKey{Type: "oct-HSM", Size: 192}, []string{"A192KW"}, []string{"A192GCM", "A192CBC", "A192CBCPAD"}, nil},
	{"oct256", keyvault.NewKey{Type: "oct"}, []string{"A256KW"}, []string{"A256GCM", "A256CBC", "A256CBCPAD"}, nil},
}

var (
	rsaClosing = []string{keyvault.RSA15, keyvault.RSAOAEP, keyvault.RSAOAEP256}
	rsaSigning = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
)

var everyAlgorithm = slices.Concat(rsaClosing, rsaSigning, []string{"ES256", "ES384", "ES512", "A128KW", "A192KW", "A256KW",
	"A128GCM", "A192GCM", "A256GCM", "A128CBC", "A192CBC", "A256CBC", "A128CBCPAD", "A192CBCPAD", "A256CBCPAD"})

var digestSizes = map[byte]int{'2': 32, '3': 48, '5': 64}

// Each sort of key does what its algorithms say, and for all others it is told so.
func TestEachKeyDoesWhatItsSortCan(t *testing.T) {
	r := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), t.TempDir())
	r.putVault("kv-one")
	for _, sort := range sorts {
		k, err := r.CreateKey(r.alice, "kv-one", sort.name, sort.new)
		if err != nil {
			t.Fatal(err)
		}
		plain := randomBytes(t, 32)
		for _, alg := range everyAlgorithm {
			used, wrapped, err := r.WrapKey(r.alice, k.ID, alg, secret.Copy(plain))
			if !slices.Contains(sort.wraps, alg) {
				refused(t, err)
			} else if err != nil || used != k.ID {
				t.Errorf("%s wraps with %s: %v", sort.name, alg, err)
			} else if _, got, err := r.UnwrapKey(r.alice, k.ID, alg, wrapped); err != nil || !bytes.Equal(got.Reveal(), plain) {
				t.Errorf("%s unwraps with %s: %v", sort.name, alg, err)
			}

			_, c, err := r.Encrypt(r.alice, k.ID, alg, secret.Copy(plain), nil, nil)
			if !slices.Contains(sort.encrypts, alg) {
				refused(t, err)
			} else if err != nil {
				t.Errorf("%s encrypts with %s: %v", sort.name, alg, err)
			} else if _, got, err := r.Decrypt(r.alice, k.ID, alg, c); err != nil || !bytes.Equal(got.Reveal(), plain) {
				t.Errorf("%s decrypts with %s: %v", sort.name, alg, err)
			}

			digest := randomBytes(t, digestSizes[alg[min(2, len(alg)-1)]])
			_, signature, err := r.Sign(r.alice, k.ID, alg, digest)
			if !slices.Contains(sort.sign, alg) {
				refused(t, err)
				continue
			}
			if err != nil {
				t.Errorf("%s signs with %s: %v", sort.name, alg, err)
			}
			if valid, err := r.Verify(r.alice, k.ID, alg, digest, signature); !valid || err != nil {
				t.Errorf("%s verifies with %s: %v, %v", sort.name, alg, valid, err)
			}
			digest[0] ^= 1
			if valid, err := r.Verify(r.alice, k.ID, alg, digest, signature); valid || err != nil {
				t.Errorf("%s verifies another digest with %s: %v, %v", sort.name, alg, valid, err)
			}
			_, _, err = r.Sign(r.alice, k.ID, alg, digest[1:])
			wantCode(t, err, "BadParameter")
		}
	}
}

// refused wants a key that can't do something to say so: by its operations, or by the algorithm.
func refused(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Error("done with an algorithm of other keys")
		return
	}
	wantCodeOnly(t, err, map[bool]string{true: "Forbidden", false: "BadParameter"}[isForbidden(err)])
}

// What GCM authenticates can't be changed, and nobody chooses its iv.
func TestGCMAuthenticates(t *testing.T) {
	r := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), t.TempDir())
	r.putVault("kv-one")
	k, err := r.CreateKey(r.alice, "kv-one", "k", keyvault.NewKey{Type: "oct"})
	if err != nil {
		t.Fatal(err)
	}
	_, c, err := r.Encrypt(r.alice, k.ID, "A256GCM", secret.New([]byte("plain")), nil, []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	_, again, err := r.Encrypt(r.alice, k.ID, "A256GCM", secret.New([]byte("plain")), nil, []byte("aad"))
	if err != nil || bytes.Equal(c.IV, again.IV) {
		t.Errorf("the iv came twice: %v", err)
	}
	for what, change := range map[string]func(*keyvault.Ciphertext){
		"value": func(c *keyvault.Ciphertext) { c.Value[0] ^= 1 }, "iv": func(c *keyvault.Ciphertext) { c.IV[0] ^= 1 },
		"aad": func(c *keyvault.Ciphertext) { c.AAD = nil }, "tag": func(c *keyvault.Ciphertext) { c.Tag = c.Tag[:8] },
	} {
		changed := keyvault.Ciphertext{Value: bytes.Clone(c.Value), IV: bytes.Clone(c.IV), AAD: bytes.Clone(c.AAD), Tag: bytes.Clone(c.Tag)}
		change(&changed)
		if _, _, err := r.Decrypt(r.alice, k.ID, "A256GCM", changed); err == nil {
			t.Errorf("opens with another %s", what)
		}
	}
	_, _, err = r.Encrypt(r.alice, k.ID, "A256GCM", secret.New([]byte("plain")), make([]byte, 12), nil)
	wantCode(t, err, "BadParameter")
}

func TestImportedOctKeyIsTheKeyItself(t *testing.T) {
	r := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), t.TempDir())
	r.putVault("kv-one")
	bytesOf := func(n int) secret.Bytes { return secret.New(bytes.Repeat([]byte{7}, n)) }
	a, err := r.ImportKey(r.alice, "kv-one", "a", keyvault.JWK{Type: "oct", K: bytesOf(16)}, keyvault.Change{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.ImportKey(r.alice, "kv-one", "b", keyvault.JWK{Type: "oct-HSM", K: bytesOf(16)}, keyvault.Change{})
	if err != nil {
		t.Fatal(err)
	}
	_, wrapped, err := r.WrapKey(r.alice, a.ID, "A128KW", bytesOf(32))
	if err != nil {
		t.Fatal(err)
	}
	if _, got, err := r.UnwrapKey(r.alice, b.ID, "A128KW", wrapped); err != nil || !bytes.Equal(got.Reveal(), bytesOf(32).Reveal()) {
		t.Errorf("the same key under another name unwraps something else: %v", err)
	}
	for _, n := range []int{0, 15, 33} {
		_, err := r.ImportKey(r.alice, "kv-one", "c", keyvault.JWK{Type: "oct", K: bytesOf(n)}, keyvault.Change{})
		wantCode(t, err, "BadParameter")
	}
}

func TestReleaseIsRefusedAndRandomBytesAreBounded(t *testing.T) {
	r := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), t.TempDir())
	r.putVault("kv-one")
	wantCode(t, r.ReleaseKey(r.alice, keyvault.KeyID{Vault: "kv-one", Name: "k"}), "NotSupported")
	for _, n := range []int{-1, 0, 129} {
		_, err := r.RandomBytes(r.alice, "kv-one", n)
		wantCode(t, err, "BadParameter")
	}
	if b, err := r.RandomBytes(r.alice, "kv-one", 128); err != nil || b.Len() != 128 || bytes.Equal(b.Reveal(), make([]byte, 128)) {
		t.Errorf("random bytes: %d, %v", b.Len(), err)
	}
}
