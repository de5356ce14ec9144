package keyvault_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"math/big"
	"testing"

	"kluis/internal/database/databasetest"
	"kluis/internal/keyvault"
	"kluis/internal/problem"
	"kluis/internal/secret"
)

func plantedKey(t testing.TB) keyvault.JWK {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return keyvault.JWK{Type: "RSA", N: key.N.Bytes(), E: big.NewInt(int64(key.E)).Bytes(),
		D: secret.New(key.D.Bytes()), P: secret.New(key.Primes[0].Bytes()), Q: secret.New(key.Primes[1].Bytes())}
}

func TestParseKeyID(t *testing.T) {
	v := version(7)
	good := map[string]keyvault.KeyID{
		"https://kv1.vault.azure.net/keys/Kek/" + v:               {Vault: "kv1", Name: "Kek", Version: v},
		"https://kv1.vault.azure.net:443/keys/Kek/" + v:           {Vault: "kv1", Name: "Kek", Version: v},
		"HTTPS://Kv1.vault.localhost:8443/Keys/Kek/" + v:          {Vault: "Kv1", Name: "Kek", Version: v},
		"https://kv1.x/keys/Kek":                                  {Vault: "kv1", Name: "Kek"},
		"https://kv1.x/keys/Kek/":                                 {Vault: "kv1", Name: "Kek"},
		"https://kv1.x/keys/Kek/ABCDEF00000000000000000000000000": {Vault: "kv1", Name: "Kek", Version: "abcdef00000000000000000000000000"},
	}
	for url, want := range good {
		if got, err := keyvault.ParseKeyID(url); err != nil || got != want {
			t.Errorf("ParseKeyID(%s) = %+v, %v", url, got, err)
		}
	}
	for _, url := range []string{
		"", "kv1", "http://kv1.x/keys/k", "https://kv1/keys/k", "https://kv1.x/secrets/k", "https://kv1.x/keys", "https://kv1.x/keys/", "https://kv1.x/keys/k/short",
		"https://kv1.x/keys/k/" + v + "/more", "https://u:p@kv1.x/keys/k", "https://kv1.x/keys/k?x=y", "https://kv1.x/keys/k#f", "https://kv1.x/keys/a%2fb", "https://kv1.x//keys/k",
		"https://k.x/keys/k", "https://[::1]/keys/k", "https://127.0.0.1/keys/k", "https://kv1.x/keys/" + string(bytes.Repeat([]byte("a"), 128)), "https://kv1.x/keys/" + string(bytes.Repeat([]byte("a"), 9000)),
	} {
		if got, err := keyvault.ParseKeyID(url); err == nil {
			t.Errorf("ParseKeyID(%.60s) = %+v, want an error", url, got)
		}
	}
}

func FuzzParseKeyID(f *testing.F) {
	r := open(f, databasetest.Open(f, "sqlite:"+f.TempDir()+"/db"), f.TempDir())
	f.Add("https://kv1.vault.azure.net:443/keys/Kek/" + version(7))
	f.Add("https://kv1.x/secrets/s/")
	f.Add("https://[::1%25]/keys/k")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := keyvault.ParseKeyID(s); err == nil {
			if again, err := keyvault.ParseKeyID(r.KeyURL(id)); err != nil || again != id {
				t.Fatalf("%q is %+v, whose own URL is %+v, %v", s, id, again, err)
			}
		}
		if id, err := keyvault.ParseSecretID(s); err == nil {
			if again, err := keyvault.ParseSecretID(r.SecretURL(id)); err != nil || again != id {
				t.Fatalf("%q is %+v, whose own URL is %+v, %v", s, id, again, err)
			}
		}
	})
}

// glass seals nothing, so that fuzzing reaches what lies behind the seal.
type glass struct{}

func (glass) Seal(_ string, plain []byte) ([]byte, error)  { return bytes.Clone(plain), nil }
func (glass) Open(_ string, sealed []byte) ([]byte, error) { return bytes.Clone(sealed), nil }

func FuzzBlob(f *testing.F) {
	r := openWith(f, databasetest.Open(f, "sqlite:"+f.TempDir()+"/db"), glass{})
	r.putVault("kv-one")
	k := r.createKey("kv-one", "k", 2048)
	s := r.setBEK("s", k.ID, keyvault.RSAOAEP, []byte("bek"))
	keyBlob, err := r.BackUpKey(r.alice, k.ID)
	if err != nil {
		f.Fatal(err)
	}
	secretBlob, err := r.BackUpSecret(r.alice, s.ID)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(keyBlob, secretBlob)
	f.Add(secretBlob, keyBlob)
	f.Add(keyBlob, bytes.Replace(secretBlob, []byte(`"current"`), []byte(`"other"`), 1))
	f.Fuzz(func(t *testing.T, keyBlob, secretBlob []byte) {
		for _, blob := range [][]byte{keyBlob, secretBlob} {
			if info, err := r.Describe(blob); err == nil && (len(info.Versions) == 0 || info.Name == "") {
				t.Fatalf("Describe = %+v", info)
			} else if err != nil && problem.KindOf(err) != problem.Invalid {
				t.Fatalf("Describe: %v", err)
			}
		}
		if bek, err := r.Unwrapped(t.Context(), keyBlob, secretBlob, ""); err == nil && string(bek.Reveal()) != "bek" {
			t.Fatalf("another BEK comes out: %d bytes", bek.Len())
		}
	})
}

func TestDecodeValue(t *testing.T) {
	want := []byte{0xfb, 0xff, 0xfe, 1}
	for _, s := range []string{"-__-AQ", "+//+AQ==", " -__-AQ== \n", "+__+AQ"} {
		if got, err := keyvault.DecodeValue([]byte(s)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("DecodeValue(%q) = %x, %v", s, got, err)
		}
	}
	if _, err := keyvault.DecodeValue([]byte("sec*ret")); err == nil || bytes.Contains([]byte(err.Error()), []byte("sec")) {
		t.Errorf("of what is not base64: %v", err)
	}
}

// What is stored stays readable: a blob written by an earlier version of the program has this document.
func TestBlobDocumentStaysAsItIs(t *testing.T) {
	r := openWith(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), glass{})
	r.putVault("kv-one")
	r.setSecret("kv-one", "s", "value", keyvault.Change{Enabled: new(false), ContentType: new("text"), Tags: map[string]string{"a": "b"}})
	blob, err := r.BackUpSecret(r.alice, keyvault.SecretID{Vault: "kv-one", Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	magic, document, _ := bytes.Cut(blob, []byte("\n"))
	if string(magic) != "&KluisKeyVaultBackup/1" {
		t.Errorf("magic is %q", magic)
	}
	var got map[string]any
	if err := json.Unmarshal(document, &got); err != nil {
		t.Fatal(err)
	}
	v := got["versions"].([]any)[0].(map[string]any)
	v["version"], got["current"] = "V", "V"
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"current":"V","kind":"secrets","made":1772366400000000,"name":"s","vault":"kv-one",` +
		`"versions":[{"changed":1772366400000000,"content":"dmFsdWU=","created":1772366400000000,"document":{"contentType":"text","disabled":true,"tags":{"a":"b"}},"version":"V"}]}`
	if string(text) != want {
		t.Errorf("document is\n%s\nwant\n%s", text, want)
	}
}
