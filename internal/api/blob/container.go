package blob

import (
	"context"
	"net/http"

	"kluis/internal/storage"
)

func (d *door) createContainer(ctx context.Context, w http.ResponseWriter, x request) error {
	c, err := d.s.CreateContainer(ctx, x.account, x.container, x.metadata())
	return answer(w, http.StatusCreated, c, err)
}

func (d *door) setContainerMetadata(ctx context.Context, w http.ResponseWriter, x request) error {
	c, err := d.s.SetContainerMetadata(ctx, x.account, x.container, x.metadata(), x.leaseHeader()...)
	return answer(w, http.StatusOK, c, err)
}

func (d *door) deleteContainer(ctx context.Context, w http.ResponseWriter, x request) error {
	if err := d.s.DeleteContainer(ctx, x.account, x.container, x.leaseHeader()...); err != nil {
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
	c, err := d.s.Container(ctx, x.account, x.container, x.leaseHeader()...)
	if err != nil {
		return err
	}
	setMetadata(w.Header(), c.Metadata)
	tellLease(w.Header(), leaseOf(c.Lease, d.o.Now()))
	w.Header().Set("X-Ms-Has-Immutability-Policy", "false")
	w.Header().Set("X-Ms-Has-Legal-Hold", "false")
	return answer(w, http.StatusOK, c, nil)
}
