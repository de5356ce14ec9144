package keyvault

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/secret"
	"kluis/internal/tooltest"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unbase64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func named(t testing.TB, name string) algorithm {
	t.Helper()
	for _, a := range algorithms {
		if a.name == name {
			return a
		}
	}
	t.Fatalf("no algorithm %s", name)
	return algorithm{}
}

// RFC 3394 sections 4.1, 4.2 (its key is of 192 bits), 4.3 and 4.6.
func TestAESKeyWrapVectors(t *testing.T) {
	for _, v := range []struct{ alg, key, plain, wrapped string }{
		{"A128KW", "000102030405060708090A0B0C0D0E0F", "00112233445566778899AABBCCDDEEFF", "1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5"},
		{"A192KW", "000102030405060708090A0B0C0D0E0F1011121314151617", "00112233445566778899AABBCCDDEEFF", "96778B25AE6CA435F92B5B97C050AED2468AB8A17AD84E5D"},
		{"A256KW", "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F", "00112233445566778899AABBCCDDEEFF", "64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"},
		{"A256KW", "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F", "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F",
			"28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21"},
	} {
		k := privateKey{oct: unhex(t, v.key)}
		a := named(t, v.alg)
		c, err := a.scheme.close(k, secret.New(unhex(t, v.plain)), nil, nil)
		if err != nil || !bytes.Equal(c.Value, unhex(t, v.wrapped)) {
			t.Errorf("%s: wrapped to %X, %v", v.alg, c.Value, err)
		}
		if plain, err := a.scheme.open(k, Ciphertext{Value: unhex(t, v.wrapped)}); err != nil || !bytes.Equal(plain.Reveal(), unhex(t, v.plain)) {
			t.Errorf("%s: unwrapping: %v", v.alg, err)
		}
	}
}

// NIST SP 800-38A, F.2.1, F.2.3 and F.2.5.
func TestAESCBCVectors(t *testing.T) {
	const iv, plain = "000102030405060708090a0b0c0d0e0f", "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
	for _, v := range []struct{ alg, key, value string }{
		{"A128CBC", "2b7e151628aed2a6abf7158809cf4f3c", "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"},
		{"A192CBC", "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a"},
		{"A256CBC", "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"},
	} {
		k := privateKey{oct: unhex(t, v.key)}
		for _, a := range []algorithm{named(t, v.alg), named(t, v.alg+"PAD")} {
			c, err := a.scheme.close(k, secret.New(unhex(t, plain)), unhex(t, iv), nil)
			if err != nil || !bytes.HasPrefix(c.Value, unhex(t, v.value)) {
				t.Errorf("%s: encrypted to %x, %v", a.name, c.Value, err)
			}
			if got, err := a.scheme.open(k, c); err != nil || !bytes.Equal(got.Reveal(), unhex(t, plain)) {
				t.Errorf("%s: decrypting: %v", a.name, err)
			}
		}
	}
}

// Test cases 4, 10 and 16 of the GCM specification that NIST SP 800-38D adopts.
func TestAESGCMVectors(t *testing.T) {
	const (
		key   = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
		iv    = "cafebabefacedbaddecaf888"
		aad   = "feedfacedeadbeeffeedfacedeadbeefabaddad2"
		plain = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
	)
	for _, v := range []struct{ alg, value, tag string }{
		{"A128GCM", "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091", "5bc94fbc3221a5db94fae95ae7121a47"},
		{"A192GCM", "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c7d773d00c144c525ac619d18c84a3f4718e2448b2fe324d9ccda2710", "2519498e80f1478f37ba55bd6d27618c"},
		{"A256GCM", "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662", "76fc6ece0f4e1768cddf8853bb2d551b"},
	} {
		a := named(t, v.alg)
		k := privateKey{oct: unhex(t, key)[:a.size/8]}
		c := Ciphertext{unhex(t, v.value), unhex(t, iv), unhex(t, aad), unhex(t, v.tag)}
		if got, err := a.scheme.open(k, c); err != nil || !bytes.Equal(got.Reveal(), unhex(t, plain)) {
			t.Errorf("%s: %v", v.alg, err)
		}
	}
}

// RFC 7515, appendices A.2 and A.3.
func TestJWSVectors(t *testing.T) {
	const claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	sha2 := func(s string) []byte { d := sha256.Sum256([]byte(s)); return d[:] }
	for _, v := range []struct {
		alg       string
		key       publicKey
		digest    []byte
		signature string
	}{
		{"RS256", publicKey{Type: "RSA", E: []byte{1, 0, 1}, N: unbase64(t, "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ")},
			sha2("eyJhbGciOiJSUzI1NiJ9." + claims), "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"},
		{"ES256", publicKey{Type: "EC", Curve: "P-256", X: unbase64(t, "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"), Y: unbase64(t, "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0")},
			sha2("eyJhbGciOiJFUzI1NiJ9." + claims), "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"},
	} {
		a := named(t, v.alg)
		signature := unbase64(t, v.signature)
		if ok, err := a.signer.verify(v.key, v.digest, signature); !ok || err != nil {
			t.Errorf("%s: the signature is refused: %v", v.alg, err)
		}
		signature[len(signature)/2] ^= 1
		if ok, _ := a.signer.verify(v.key, v.digest, signature); ok {
			t.Errorf("%s: a changed signature is taken", v.alg)
		}
	}
}

// NIST's vectors for the verification of ECDSA signatures (FIPS 186-3), good ones and bad ones, as they come with Go.
func TestECDSAVectors(t *testing.T) {
	root, err := osexec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skip("go is not installed here")
	}
	f, err := os.Open(filepath.Join(strings.TrimSpace(string(root)), "src/crypto/ecdsa/testdata/SigVer.rsp.bz2"))
	if err != nil {
		t.Skip("the sources of Go are not installed here")
	}
	defer f.Close()
	hashes := map[string]string{"[P-256,SHA-256]": "ES256", "[P-384,SHA-384]": "ES384", "[P-521,SHA-512]": "ES512"}
	var alg string
	values := map[string][]byte{}
	checked := map[string]int{}
	for lines := bufio.NewScanner(bzip2.NewReader(f)); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		name, value, _ := strings.Cut(line, " = ")
		switch {
		case strings.HasPrefix(line, "["):
			alg = hashes[line]
		case alg == "" || value == "":
		case name == "Result":
			good := strings.HasPrefix(value, "P")
			if got := verifyVector(t, alg, values); got != good {
				t.Errorf("%s: a signature that is %s is taken: %v", alg, value, got)
			}
			checked[alg]++
		default:
			if len(value)%2 == 1 {
				value = "0" + value
			}
			values[name] = unhex(t, value)
		}
	}
	for _, a := range hashes {
		if checked[a] == 0 {
			t.Errorf("no vector for %s", a)
		}
	}
}

func verifyVector(t *testing.T, alg string, v map[string][]byte) bool {
	a := named(t, alg)
	half := (curves[a.curve].Params().BitSize + 7) / 8
	wide := func(b []byte) []byte { return new(big.Int).SetBytes(b).FillBytes(make([]byte, half)) }
	var digest []byte
	switch alg {
	case "ES256":
		d := sha256.Sum256(v["Msg"])
		digest = d[:]
	case "ES384":
		d := sha512.Sum384(v["Msg"])
		digest = d[:]
	default:
		d := sha512.Sum512(v["Msg"])
		digest = d[:]
	}
	ok, err := a.signer.verify(publicKey{Type: "EC", Curve: a.curve, X: wide(v["Qx"]), Y: wide(v["Qy"])}, digest, append(wide(v["R"]), wide(v["S"])...))
	return ok && err == nil
}

// For each RSA algorithm OpenSSL opens and verifies what we make, and the other way round.
func TestOpenSSLAgrees(t *testing.T) {
	tooltest.Need(t, "openssl")
	dir := t.TempDir()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openssl := func(args ...string) []byte {
		t.Helper()
		cmd := osexec.Command("openssl", append([]string{"pkeyutl", "-inkey", path("key")}, args...)...)
		out, err := cmd.Output()
		if exit, ok := errors.AsType[*osexec.ExitError](err); ok {
			t.Fatalf("%v: %v %s", cmd.Args, err, exit.Stderr)
		}
		return out
	}
	write("key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	m, err := rsaMaterial(private)
	if err != nil {
		t.Fatal(err)
	}
	k := privateKey{rsa: private}
	for alg, options := range map[string][]string{
		RSA15:      {"-pkeyopt", "rsa_padding_mode:pkcs1"},
		RSAOAEP:    {"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha1"},
		RSAOAEP256: {"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256"},
	} {
		plain := []byte("thirty-two bytes of key material")
		c, err := named(t, alg).scheme.close(k, secret.Copy(plain), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		write("closed", c.Value)
		if got := openssl(append([]string{"-decrypt", "-in", path("closed")}, options...)...); !bytes.Equal(got, plain) {
			t.Errorf("%s: openssl opens %q", alg, got)
		}
		write("plain", plain)
		theirs := openssl(append([]string{"-encrypt", "-in", path("plain")}, options...)...)
		if got, err := named(t, alg).scheme.open(k, Ciphertext{Value: theirs}); err != nil || !bytes.Equal(got.Reveal(), plain) {
			t.Errorf("%s: we open what openssl closed: %v", alg, err)
		}
	}
	for _, hash := range []string{"256", "384", "512"} {
		for prefix, padding := range map[string][]string{"RS": {"-pkeyopt", "rsa_padding_mode:pkcs1"}, "PS": {"-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "rsa_pss_saltlen:digest"}} {
			a := named(t, prefix+hash)
			digest := map[string]int{"256": 32, "384": 48, "512": 64}
			d := bytes.Repeat([]byte{7}, digest[hash])
			options := append([]string{"-pkeyopt", "digest:sha" + hash, "-in", path("digest")}, padding...)
			write("digest", d)
			ours, err := a.signer.sign(k, d)
			if err != nil {
				t.Fatal(err)
			}
			write("signature", ours)
			openssl(append([]string{"-verify", "-sigfile", path("signature")}, options...)...)
			theirs := openssl(append([]string{"-sign"}, options...)...)
			if ok, err := a.signer.verify(m.public, d, theirs); !ok || err != nil {
				t.Errorf("%s: openssl's signature is refused: %v", a.name, err)
			}
		}
	}
}

// Whatever is wrong with a padded value, and whatever is wrong with its padding, is one error.
func TestBadPaddingIsOneError(t *testing.T) {
	k := privateKey{oct: bytes.Repeat([]byte{1}, 16)}
	raw, padded := named(t, "A128CBC"), named(t, "A128CBCPAD")
	for _, last := range []byte{0, 2, 16, 17, 255} {
		block := bytes.Repeat([]byte{9}, 16)
		block[15] = last
		c, err := raw.scheme.close(k, secret.New(block), make([]byte, 16), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := padded.scheme.open(k, c); !errors.Is(err, ErrUnwrap) {
			t.Errorf("padding that ends in %d: %v", last, err)
		}
	}
	for n := range 33 {
		c, err := padded.scheme.close(k, secret.New(bytes.Repeat([]byte{3}, n+1)), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := padded.scheme.open(k, c); err != nil || got.Len() != n+1 {
			t.Errorf("%d bytes: %v", n+1, err)
		}
	}
}
