package keyvault

import (
	"fmt"
	"strings"
)

// The tags by which Azure Disk Encryption says what a BEK is for.
const (
	TagFileName     = "DiskEncryptionKeyFileName"
	TagMachine      = "MachineName"
	TagVolumeLetter = "VolumeLetter"
	TagVolumeLabel  = "VolumeLabel"
)

// linuxFileName is what the tag of a Linux passphrase says; that of Windows names the .BEK file.
const (
	linuxFileName    = "LinuxPassPhraseFileName"
	windowsExtension = ".BEK"
)

// BEK is what a secret's content type and tags say of the key in it. What the key is follows from the
// system: the bytes of a .BEK file on Windows; on Linux the passphrase as a key file holds it, without a
// newline.
type BEK struct {
	// Wrapped says that the value is wrapped by Key with Algorithm. Else it is the key itself, in base64.
	Wrapped   bool
	Algorithm string
	Key       KeyID
	KeyURL    string // of Key, as the tag says it: wherever that key vault is
	// OS is Windows, Linux, or empty when the tags don't say.
	OS           string
	FileName     string
	Machine      string
	VolumeLetter string // Windows only: C:
	VolumeLabel  string
}

// ReadBEK reads content type and tags of a secret. Azure's agents differ in the case of letters, so none
// counts. The error is ErrNotWrapped or ErrKeyVersionMissing, with a word on which.
func ReadBEK(contentType string, tags map[string]string) (BEK, error) {
	tag := func(name string) string {
		if v, ok := tags[name]; ok {
			return v
		}
		for k, v := range tags {
			if strings.EqualFold(k, name) {
				return v
			}
		}
		return ""
	}
	b := BEK{FileName: tag(TagFileName), Machine: tag(TagMachine), VolumeLetter: tag(TagVolumeLetter), VolumeLabel: tag(TagVolumeLabel)}
	switch {
	case strings.HasSuffix(strings.ToUpper(b.FileName), windowsExtension):
		b.OS = "Windows"
	case strings.EqualFold(b.FileName, linuxFileName):
		b.OS = "Linux"
	}
	if strings.EqualFold(contentType, ContentBEK) {
		return b, nil
	}
	url := tag(TagKeyURL)
	if !strings.EqualFold(contentType, ContentWrappedBEK) || url == "" {
		return BEK{}, fmt.Errorf("%w: it has the content type %q", ErrNotWrapped, clip(contentType))
	}
	id, err := ParseKeyID(url)
	if err != nil {
		return BEK{}, fmt.Errorf("%w: tag %s: %w", ErrKeyVersionMissing, TagKeyURL, err)
	}
	b.Wrapped, b.Key, b.KeyURL, b.Algorithm = true, id, url, tag(TagAlgorithm)
	if b.Algorithm == "" {
		b.Algorithm = RSAOAEP
	}
	return b, nil
}
