package blob

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"net/http"

	"kluis/internal/storage"
)

type keyInfo struct {
	XMLName xml.Name `xml:"KeyInfo"`
	Start   string
	Expiry  string
}

type delegationKey struct {
	XMLName  xml.Name `xml:"UserDelegationKey"`
	ObjectID string   `xml:"SignedOid"`
	TenantID string   `xml:"SignedTid"`
	Start    string   `xml:"SignedStart"`
	Expiry   string   `xml:"SignedExpiry"`
	Service  string   `xml:"SignedService"`
	Version  string   `xml:"SignedVersion"`
	Value    string
}

// maxKeyInfo bounds the text of two times.
const maxKeyInfo = 4 << 10

// userDelegationKey gives the caller a key with which to sign for others.
func (d *door) userDelegationKey(ctx context.Context, w http.ResponseWriter, x request) error {
	var info keyInfo
	if err := readXML(http.MaxBytesReader(w, x.Body, maxKeyInfo), &info); err != nil {
		return err
	}
	k, err := d.s.UserDelegationKey(ctx, x.account, info.Start, info.Expiry, w.Header().Get("X-Ms-Version"))
	if err != nil {
		return err
	}
	defer k.Value.Wipe()
	return writeXML(w, http.StatusOK, delegationKey{ObjectID: k.ObjectID, TenantID: k.TenantID, Start: k.Start, Expiry: k.Expiry,
		Service: k.Service, Version: k.Version, Value: base64.StdEncoding.EncodeToString(k.Value.Reveal())})
}

// signedIdentifiers are the stored access policies of a container.
type signedIdentifiers struct {
	XMLName xml.Name           `xml:"SignedIdentifiers"`
	Each    []signedIdentifier `xml:"SignedIdentifier"`
}

type signedIdentifier struct {
	ID     string `xml:"Id"`
	Policy struct {
		Start      string `xml:"Start,omitempty"`
		Expiry     string `xml:"Expiry,omitempty"`
		Permission string `xml:"Permission,omitempty"`
	} `xml:"AccessPolicy"`
}

func (d *door) containerACL(ctx context.Context, w http.ResponseWriter, x request) error {
	c, err := d.s.Policies(ctx, x.account, x.container, x.leaseHeader()...)
	if err != nil {
		return err
	}
	var body signedIdentifiers
	for _, p := range c.Policies {
		listed := signedIdentifier{ID: p.ID}
		listed.Policy.Start, listed.Policy.Expiry, listed.Policy.Permission = p.Start, p.Expiry, p.Permissions
		body.Each = append(body.Each, listed)
	}
	tellContainer(w.Header(), c)
	return writeXML(w, http.StatusOK, body)
}

// maxACL bounds the text of five policies.
const maxACL = 64 << 10

// setContainerACL replaces the stored access policies. Public access is refused by its header.
func (d *door) setContainerACL(ctx context.Context, w http.ResponseWriter, x request) error {
	var body signedIdentifiers
	if err := readXML(http.MaxBytesReader(w, x.Body, maxACL), &body); err != nil {
		return err
	}
	var policies []storage.Policy
	for _, listed := range body.Each {
		policies = append(policies, storage.Policy{ID: listed.ID, Start: listed.Policy.Start, Expiry: listed.Policy.Expiry, Permissions: listed.Policy.Permission})
	}
	c, err := d.s.SetPolicies(ctx, x.account, x.container, policies, x.leaseHeader()...)
	return answer(w, http.StatusOK, c, err)
}
