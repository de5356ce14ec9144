package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"kluis/internal/armid"
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

// OpenedDisk is what a key has opened.
type OpenedDisk struct {
	Disk       string `json:"disk"`
	Encryption string `json:"encryption"`
	FileSystem string `json:"fileSystem"`
}

// TryKey asks the server whether a key opens a disk of a VM; an empty name means the OS disk. The server keeps
// nothing of it.
func (c *Client) TryKey(ctx context.Context, vm armid.ID, disk string, key secret.Bytes) (OpenedDisk, error) {
	var opened OpenedDisk
	err := c.do(ctx, http.MethodPost, vm.String()+"/kluisTryEncryptionKey", versionCompute, map[string]any{"disk": disk, "key": key.Reveal()}, &opened)
	return opened, err
}

// SetEncryption names the keys of a disk in the disk's settings, and for the OS disk in those of its VM too.
// Everything else in the two documents stays as it is.
func (c *Client) SetEncryption(ctx context.Context, vm, disk armid.ID, e *EncryptionSettingsCollection) error {
	document, err := c.document(ctx, disk, versionDisks)
	if err != nil {
		return err
	}
	place(document, e, "properties", "encryptionSettingsCollection")
	if err := c.do(ctx, http.MethodPut, disk.String(), versionDisks, document, nil); err != nil {
		return err
	}
	if document, err = c.document(ctx, vm, versionCompute); err != nil {
		return err
	}
	machine, err := c.VM(ctx, vm)
	if err != nil {
		return err
	}
	if os := machine.Properties.StorageProfile.OSDisk.ManagedDisk; os == nil || !strings.EqualFold(os.ID, disk.String()) {
		return nil
	}
	settings := e.EncryptionSettings[0]
	settings.Enabled = &e.Enabled
	place(document, settings, "properties", "storageProfile", "osDisk", "encryptionSettings")
	return c.do(ctx, http.MethodPut, vm.String(), versionCompute, document, nil)
}

// document reads a resource as the server sends it.
func (c *Client) document(ctx context.Context, id armid.ID, version string) (map[string]any, error) {
	var raw json.RawMessage
	if err := c.get(ctx, id.String(), version, nil, &raw); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // what is not understood must not be rounded
	var document map[string]any
	if err := d.Decode(&document); err != nil {
		return nil, fmt.Errorf("read %s: %w", id.Name(), err)
	}
	return document, nil
}

// place puts a value into a document, at the end of a path of objects.
func place(document map[string]any, value any, path ...string) {
	for _, step := range path[:len(path)-1] {
		inner, ok := document[step].(map[string]any)
		if !ok {
			inner = map[string]any{}
			document[step] = inner
		}
		document = inner
	}
	document[path[len(path)-1]] = value
}
