package client

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"kluis/internal/armid"
)

// Snapshot is a disk as it was at one moment.
type Snapshot = Resource[DiskProperties]

const typeSnapshot = "Microsoft.Compute/snapshots"

// CopyOf makes the body of a disk or a snapshot that is a copy of another one.
func CopyOf(location string, source armid.ID) Resource[DiskProperties] {
	return Resource[DiskProperties]{Location: location, Properties: DiskProperties{CreationData: CreationData{CreateOption: "Copy", SourceResourceID: source.String()}}}
}

// PutSnapshot creates or updates a snapshot. It returns when the snapshot is whole.
func (c *Client) PutSnapshot(ctx context.Context, id armid.ID, s Snapshot) (Snapshot, error) {
	return putResource(ctx, c, id, versionDisks, s)
}

// Snapshot reads a snapshot.
func (c *Client) Snapshot(ctx context.Context, id armid.ID) (Snapshot, error) {
	return getResource[DiskProperties](ctx, c, id, versionDisks)
}

// Snapshots lists the snapshots of a scope.
func (c *Client) Snapshots(ctx context.Context, scope armid.ID) ([]Snapshot, error) {
	return listResources[DiskProperties](ctx, c, collection(scope, typeSnapshot), versionDisks, "")
}

// DeleteSnapshot deletes a snapshot.
func (c *Client) DeleteSnapshot(ctx context.Context, id armid.ID) error {
	return c.delete(ctx, id, versionDisks)
}

// GrantAccess makes a URL at which a disk or a snapshot is read for a while.
func (c *Client) GrantAccess(ctx context.Context, id armid.ID, d time.Duration) (string, error) {
	body := map[string]any{"access": "Read", "durationInSeconds": int64(d / time.Second)}
	resp, err := exchange(ctx, c.armPipeline(), http.MethodPost, c.armURL(id.String()+"/beginGetAccess", versionDisks, nil), body)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	last, err := c.follow(ctx, resp, runtime.FinalStateViaLocation)
	if err != nil {
		return "", err
	}
	var granted struct {
		URL string `json:"accessSAS"`
	}
	if err := json.Unmarshal(last, &granted); err != nil || granted.URL == "" {
		return "", fmt.Errorf("the grant of %s named no URL", id.Name())
	}
	return granted.URL, nil
}

// RevokeAccess ends what GrantAccess has begun.
func (c *Client) RevokeAccess(ctx context.Context, id armid.ID) error {
	return c.do(ctx, http.MethodPost, id.String()+"/endGetAccess", versionDisks, nil, nil)
}

// SharedDisk is a disk that is read by a URL: a page blob that is a fixed VHD.
type SharedDisk struct {
	c    *Client
	url  string
	etag string

	Size     int64  // of the VHD
	Modified string // when the image was last written to, as the server says it
}

// PageRange is a part of a disk that holds something.
type PageRange struct {
	Start int64 `xml:"Start"`
	End   int64 `xml:"End"` // its last byte
}

// OpenShared looks at what a URL of this server's offers.
func (c *Client) OpenShared(ctx context.Context, address string) (*SharedDisk, error) {
	d := &SharedDisk{c: c, url: address}
	resp, err := d.ask(ctx, http.MethodHead, "", http.Header{})
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if d.Size, err = strconv.ParseInt(resp.Header.Get("Content-Length"), 10, 64); err != nil {
		return nil, fmt.Errorf("read the disk's URL: it says no size")
	}
	d.etag, d.Modified = resp.Header.Get("Etag"), resp.Header.Get("Last-Modified")
	return d, nil
}

// ask sends a request that needs no token but the URL.
func (d *SharedDisk) ask(ctx context.Context, method, query string, h http.Header) (*http.Response, error) {
	u, err := url.Parse(d.url)
	if err != nil || !d.c.ours(u) {
		return nil, fmt.Errorf("the disk's URL does not belong to this server")
	}
	if d.etag != "" {
		h.Set("If-Match", d.etag)
	}
	h.Set("X-Ms-Version", versionBlobs)
	return exchange(policy.WithHTTPHeader(ctx, h), d.c.open, method, d.url+query, nil)
}

// Pages lists the parts that hold something. What lies between them is zeros.
func (d *SharedDisk) Pages(ctx context.Context) (all []PageRange, err error) {
	for marker := "start"; marker != ""; {
		query := "&comp=pagelist"
		if marker != "start" {
			query += "&marker=" + url.QueryEscape(marker)
		}
		resp, err := d.ask(ctx, http.MethodGet, query, http.Header{})
		if err != nil {
			return nil, err
		}
		text, err := runtime.Payload(resp)
		_ = resp.Body.Close() // it was read whole
		if err != nil {
			return nil, fmt.Errorf("read pages of the disk: %w", err)
		}
		var page struct {
			Ranges []PageRange `xml:"PageRange"`
			Next   string      `xml:"NextMarker"`
		}
		if err := xml.Unmarshal(text, &page); err != nil {
			return nil, fmt.Errorf("read pages of the disk: %w", err)
		}
		all, marker = append(all, page.Ranges...), page.Next
	}
	return all, nil
}

// Read reads n bytes from off on, which must be less than an answer may hold.
func (d *SharedDisk) Read(ctx context.Context, off int64, n int) ([]byte, error) {
	resp, err := d.ask(ctx, http.MethodGet, "", http.Header{"X-Ms-Range": {fmt.Sprintf("bytes=%d-%d", off, off+int64(n)-1)}})
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := runtime.Payload(resp)
	if err == nil && len(data) != n {
		err = fmt.Errorf("%d bytes came of %d", len(data), n)
	}
	if err != nil {
		return nil, fmt.Errorf("read disk at %d: %w", off, err)
	}
	return data, nil
}
