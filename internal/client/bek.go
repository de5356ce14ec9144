package client

import (
	"context"
	"encoding/base64"
	"fmt"

	"kluis/internal/secret"
)

// BEK is a disk's encryption key on its way into a key vault, in the form that Azure Disk Encryption
// gives it: a secret whose value is the key wrapped by a KEK and whose tags say how.
type BEK struct {
	Name     string       // the secret's name, a GUID
	Key      secret.Bytes // what opens the volume: the passphrase, or the content of a .BEK file
	KEK      string       // versioned URL of the key that wraps it; empty leaves it unwrapped
	Alg      string       // RSA-OAEP unless given
	FileName string       // LinuxPassPhraseFileName unless given; Windows: {name}.BEK
	Machine  string       // name of the VM; may be empty
}

// SetBEK wraps the key and writes the secret.
func (c *Client) SetBEK(ctx context.Context, vaultURI string, b BEK) (Secret, error) {
	if b.FileName == "" {
		b.FileName = "LinuxPassPhraseFileName"
	}
	tags := map[string]string{"DiskEncryptionKeyFileName": b.FileName}
	if b.Machine != "" {
		tags["MachineName"] = b.Machine
	}
	if b.KEK == "" {
		value := base64.StdEncoding.EncodeToString(b.Key.Reveal())
		return c.SetSecret(ctx, vaultURI, b.Name, secret.New([]byte(value)), "BEK", tags)
	}
	if b.Alg == "" {
		b.Alg = RSAOAEP
	}
	wrapped, err := c.WrapKey(ctx, b.KEK, b.Alg, b.Key)
	if err != nil {
		return Secret{}, err
	}
	tags["DiskEncryptionKeyEncryptionAlgorithm"] = b.Alg
	tags["DiskEncryptionKeyEncryptionKeyURL"] = b.KEK
	value := base64.RawURLEncoding.EncodeToString(wrapped)
	return c.SetSecret(ctx, vaultURI, b.Name, secret.New([]byte(value)), "Wrapped BEK", tags)
}

// BEKValue reads a BEK's secret and undoes the wrapping, as a guest does before it opens its disk.
func (c *Client) BEKValue(ctx context.Context, vaultURI, name string) (secret.Bytes, error) {
	s, err := c.SecretValue(ctx, vaultURI, name)
	if err != nil {
		return secret.Bytes{}, err
	}
	kek := s.Tags["DiskEncryptionKeyEncryptionKeyURL"]
	encoding := base64.RawURLEncoding
	if kek == "" {
		encoding = base64.StdEncoding
	}
	value, err := encoding.DecodeString(string(s.Value.Reveal()))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("read secret %s: its value is not base64", name)
	}
	if kek == "" {
		return secret.New(value), nil
	}
	return c.UnwrapKey(ctx, kek, s.Tags["DiskEncryptionKeyEncryptionAlgorithm"], value)
}
