package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"kluis/internal/armid"
	"kluis/internal/secret"
)

// Mount is a recovery point whose disks a server serves for some hours, over NBD with TLS, to whoever holds its
// certificate.
type Mount struct {
	ID          string        `json:"id"`
	Expiry      string        `json:"expiryTime"`
	Decrypted   bool          `json:"decrypted"`
	Address     string        `json:"address"`
	Authority   string        `json:"authority"`
	Certificate string        `json:"certificate"`
	Disks       []MountedDisk `json:"disks"`

	Key    secret.Bytes `json:"-"` // of the certificate, in PEM
	Script secret.Bytes `json:"-"` // for a shell: mounts the disks; it holds the key
}

// MountedDisk is a disk of a mount, or an opened volume of one.
type MountedDisk struct {
	Name       string `json:"name"`
	Partition  int    `json:"partition,omitempty"`
	Export     string `json:"export"`
	Size       int64  `json:"size"`
	Encryption string `json:"encryption,omitempty"`
}

// ProvisionMount lets the server serve disks of a recovery point, all of them if none is named; decrypted means
// opened with the keys in the recovery point.
func (c *Client) ProvisionMount(ctx context.Context, item armid.ID, point string, disks []string, decrypted bool) (Mount, error) {
	path := item.Child("recoveryPoints", point).String() + "/provisionInstantItemRecovery"
	body := map[string]any{"properties": map[string]any{"objectType": "IaasVMILRRegistrationRequest", "recoveryPointId": point,
		"kluisDisks": disks, "kluisDecrypt": decrypted}}
	resp, err := exchange(ctx, c.armPipeline(), http.MethodPost, c.armURL(path, versionBackup, nil), body)
	if err != nil {
		return Mount{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	status, err := c.follow(ctx, resp, runtime.FinalStateViaAzureAsyncOp)
	if err != nil {
		return Mount{}, err
	}
	var operation struct {
		Properties struct {
			Target struct {
				Scripts []struct {
					Content []byte `json:"scriptContent"`
				} `json:"clientScripts"`
			} `json:"recoveryTarget"`
			Mount struct {
				Mount

				Key string `json:"key"`
			} `json:"kluisMount"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(status, &operation); err != nil {
		return Mount{}, errors.New("read operation: it is not what a mount's should be") // the decoder's error may quote the key
	}
	m := operation.Properties.Mount.Mount
	m.Key = secret.New([]byte(operation.Properties.Mount.Key))
	if scripts := operation.Properties.Target.Scripts; len(scripts) > 0 {
		m.Script = secret.New(scripts[0].Content)
	}
	if m.Address == "" {
		return Mount{}, fmt.Errorf("the operation of %s named no mount", path)
	}
	return m, nil
}

// RevokeMount ends a mount of a recovery point, or all of them if id is empty.
func (c *Client) RevokeMount(ctx context.Context, item armid.ID, point, id string) error {
	var body any
	if id != "" {
		body = map[string]any{"properties": map[string]string{"kluisMount": id}}
	}
	return c.do(ctx, http.MethodPost, item.Child("recoveryPoints", point).String()+"/revokeInstantItemRecovery", versionBackup, body, nil)
}

// TLS is how to speak with the mount's address.
func (m Mount) TLS() (*tls.Config, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(m.Authority)) {
		return nil, errors.New("the mount names no certificate authority")
	}
	certificate, err := tls.X509KeyPair([]byte(m.Certificate), m.Key.Reveal())
	if err != nil {
		return nil, errors.New("the mount's certificate and key cannot be used") // the cause might quote the key
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}, nil
}
