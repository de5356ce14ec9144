package blob

import (
	"context"
	"encoding/xml"
	"net/http"

	"kluis/internal/storage"
)

func (d *door) createContainer(ctx context.Context, w http.ResponseWriter, x request) error {
	c, err := d.s.CreateContainer(ctx, x.account, x.container, x.metadata())
	return answer(w, http.StatusCreated, c, err)
}

func (d *door) setContainerMetadata(ctx context.Context, w http.ResponseWriter, x request) error {
	c, err := d.s.SetContainerMetadata(ctx, x.account, x.container, x.metadata())
	return answer(w, http.StatusOK, c, err)
}

func (d *door) deleteContainer(ctx context.Context, w http.ResponseWriter, x request) error {
	if err := d.s.DeleteContainer(ctx, x.account, x.container); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// answer names the state of a container.
func answer(w http.ResponseWriter, status int, c storage.Container, err error) error {
	if err != nil {
		return err
	}
	tellContainer(w.Header(), c)
	w.WriteHeader(status)
	return nil
}

func tellContainer(h http.Header, c storage.Container) {
	h.Set("Etag", c.ETag())
	h.Set("Last-Modified", c.Modified.UTC().Format(http.TimeFormat))
}

func (d *door) containerProperties(ctx context.Context, w http.ResponseWriter, x request) error {
	c, err := d.s.Container(ctx, x.account, x.container)
	if err != nil {
		return err
	}
	setMetadata(w.Header(), c.Metadata)
	w.Header().Set("X-Ms-Lease-State", "available")
	w.Header().Set("X-Ms-Lease-Status", "unlocked")
	w.Header().Set("X-Ms-Has-Immutability-Policy", "false")
	w.Header().Set("X-Ms-Has-Legal-Hold", "false")
	return answer(w, http.StatusOK, c, nil)
}

// signedIdentifiers are the stored access policies of a container: there are none.
type signedIdentifiers struct {
	XMLName xml.Name   `xml:"SignedIdentifiers"`
	Each    []struct{} `xml:"SignedIdentifier"`
}

func (d *door) containerACL(ctx context.Context, w http.ResponseWriter, x request) error {
	c, err := d.s.Container(ctx, x.account, x.container)
	if err != nil {
		return err
	}
	tellContainer(w.Header(), c)
	return writeXML(w, http.StatusOK, signedIdentifiers{})
}

// maxACL bounds the text of five policies.
const maxACL = 64 << 10

// setContainerACL takes the only access policy there is: none. Public access is refused by its header.
func (d *door) setContainerACL(ctx context.Context, w http.ResponseWriter, x request) error {
	c, err := d.s.CheckContainerWrite(ctx, x.account, x.container)
	if err != nil {
		return err
	}
	var policies signedIdentifiers
	if err := readXML(http.MaxBytesReader(w, x.Body, maxACL), &policies); err != nil {
		return err
	}
	if len(policies.Each) > 0 {
		return unsupported("stored access policies")
	}
	return answer(w, http.StatusOK, c, nil)
}
