package clients_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

// A secret and a key are planted, used, refused and deleted; then every file of the data folder and the log, which tells
// all it can, are searched for them.
func TestNothingPlantedIsInTheDataFolderOrTheLog(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	url := s.newVault(t, "kv-leak", everyKey, everySecret)
	secrets, keys := s.secrets(t, url), s.keys(t, url)
	value := "planted-secret-value-0123456789"
	key := []byte("planted key, thirty-two bytes !!")
	must[azsecrets.SetSecretResponse](t)(secrets.SetSecret(ctx, "s", azsecrets.SetSecretParameters{Value: &value}, nil))
	must[azsecrets.GetSecretResponse](t)(secrets.GetSecret(ctx, "s", "", nil))
	_, err := secrets.SetSecret(ctx, "under_score", azsecrets.SetSecretParameters{Value: &value}, nil)
	wantRefusal(t, err, "BadParameter")
	must[azkeys.ImportKeyResponse](t)(keys.ImportKey(ctx, "k", azkeys.ImportKeyParameters{Key: &azkeys.JSONWebKey{Kty: new(azkeys.KeyTypeOct), K: key}}, nil))
	_, err = keys.ImportKey(ctx, "k", azkeys.ImportKeyParameters{Key: &azkeys.JSONWebKey{Kty: new(azkeys.KeyTypeRSA), D: key}}, nil)
	wantRefusal(t, err, "BadParameter")
	must[azsecrets.BackupSecretResponse](t)(secrets.BackupSecret(ctx, "s", nil))
	must[azsecrets.DeleteSecretResponse](t)(secrets.DeleteSecret(ctx, "s", nil))
	s.run(t, "seal", "rotate")
	s.kill(t)

	searched := 0
	look := func(path string) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		searched++
		for _, planted := range [][]byte{[]byte(value), key} {
			for _, needle := range [][]byte{planted, []byte(hex.EncodeToString(planted)), []byte(base64.RawURLEncoding.EncodeToString(planted)), []byte(base64.RawStdEncoding.EncodeToString(planted))} {
				if bytes.Contains(content, needle) {
					t.Errorf("%s holds %q", path, needle)
				}
			}
		}
	}
	look(s.log)
	err = filepath.WalkDir(s.data, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			look(path)
		}
		return err
	})
	if err != nil || searched < 5 {
		t.Errorf("%d files were searched: %v", searched, err)
	}
}
