package keyvault_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kluis/internal/keyvault"
)

const kekURL = "https://prod.vault.azure.net/keys/kek/0123456789abcdef0123456789abcdef"

// TestReadBEK reads secrets as Azure Disk Encryption writes them: for Windows and Linux, with a KEK and
// without, in one pass and in two.
func TestReadBEK(t *testing.T) {
	kek, err := keyvault.ParseKeyID(kekURL)
	if err != nil {
		t.Fatal(err)
	}
	windows := map[string]string{
		"DiskEncryptionKeyFileName": "4381F759-C4F8-4DE0-BB61-FC33A831BDA5.BEK", "DiskEncryptionKeyEncryptionAlgorithm": "RSA-OAEP",
		"DiskEncryptionKeyEncryptionKeyURL": kekURL, "MachineName": "WIN1", "VolumeLetter": `C:\`, "VolumeLabel": "Windows",
	}
	for _, test := range []struct {
		name, contentType string
		tags              map[string]string
		want              keyvault.BEK
		err               error
	}{
		{"Windows, wrapped", "Wrapped BEK", windows, keyvault.BEK{Wrapped: true, Algorithm: "RSA-OAEP", Key: kek, KeyURL: kekURL, OS: "Windows",
			FileName: "4381F759-C4F8-4DE0-BB61-FC33A831BDA5.BEK", Machine: "WIN1", VolumeLetter: `C:\`, VolumeLabel: "Windows"}, nil},
		{"Linux, wrapped", "Wrapped BEK", map[string]string{"DiskEncryptionKeyFileName": "LinuxPassPhraseFileName", "DiskEncryptionKeyEncryptionAlgorithm": "RSA1_5",
			"DiskEncryptionKeyEncryptionKeyURL": kekURL, "MachineName": "web1"},
			keyvault.BEK{Wrapped: true, Algorithm: "RSA1_5", Key: kek, KeyURL: kekURL, OS: "Linux", FileName: "LinuxPassPhraseFileName", Machine: "web1"}, nil},
		{"no algorithm, other letters", "wrapped bek", map[string]string{"diskencryptionkeyencryptionkeyurl": kekURL, "diskEncryptionKeyFileName": "x.bek"},
			keyvault.BEK{Wrapped: true, Algorithm: "RSA-OAEP", Key: kek, KeyURL: kekURL, OS: "Windows", FileName: "x.bek"}, nil},
		{"Linux, alone", "BEK", map[string]string{"DiskEncryptionKeyFileName": "LinuxPassPhraseFileName"},
			keyvault.BEK{OS: "Linux", FileName: "LinuxPassPhraseFileName"}, nil},
		{"no tags", "BEK", nil, keyvault.BEK{}, nil},
		{"no BEK", "text/plain", windows, keyvault.BEK{}, keyvault.ErrNotWrapped},
		{"no content type", "", windows, keyvault.BEK{}, keyvault.ErrNotWrapped},
		{"wrapped by nothing", "Wrapped BEK", map[string]string{"MachineName": "x"}, keyvault.BEK{}, keyvault.ErrNotWrapped},
		{"wrapped by no key", "Wrapped BEK", map[string]string{"DiskEncryptionKeyEncryptionKeyURL": "https://x"}, keyvault.BEK{}, keyvault.ErrKeyVersionMissing},
	} {
		got, err := keyvault.ReadBEK(test.contentType, test.tags)
		if diff := cmp.Diff(test.want, got); diff != "" || !errors.Is(err, test.err) {
			t.Errorf("%s: %v %s", test.name, err, diff)
		}
	}
}

// FuzzReadBEK reads what whoever may write secrets may write.
func FuzzReadBEK(f *testing.F) {
	f.Add("Wrapped BEK", "DiskEncryptionKeyEncryptionKeyURL", kekURL)
	f.Add("BEK", "DiskEncryptionKeyFileName", "x.BEK")
	f.Fuzz(func(t *testing.T, contentType, name, value string) {
		b, err := keyvault.ReadBEK(contentType, map[string]string{name: value})
		if err == nil && b.Wrapped && (b.Key.Name == "" || b.Algorithm == "") {
			t.Errorf("wrapped by nothing: %+v", b)
		}
	})
}
