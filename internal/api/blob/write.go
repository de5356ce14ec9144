package blob

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strings"

	"kluis/internal/problem"
	"kluis/internal/storage"
)

// upload is what the headers say about the body, or of the blob that it becomes.
func (x request) upload() (u storage.Upload, err error) {
	if x.ContentLength < 0 {
		return u, missingLength()
	}
	if u.MD5, err = x.sum("Content-Md5", 16); err != nil {
		return u, err
	}
	if u.CRC64, err = x.sum("X-Ms-Content-Crc64", 8); err != nil {
		return u, err
	}
	u.Size, u.Metadata = x.ContentLength, x.metadata()
	u.Headers, err = x.blobHeaders()
	return u, err
}

// blobHeaders are how the blob is to be served.
func (x request) blobHeaders() (h storage.Headers, err error) {
	get := func(name string) string { return x.Header.Get("X-Ms-Blob-" + name) }
	h = storage.Headers{ContentType: get("Content-Type"), ContentEncoding: get("Content-Encoding"), ContentLanguage: get("Content-Language"),
		ContentDisposition: get("Content-Disposition"), CacheControl: get("Cache-Control")}
	h.ContentMD5, err = x.sum("X-Ms-Blob-Content-Md5", 16)
	return h, err
}

// sum reads a checksum of so many bytes; nil if there is none.
func (x request) sum(name string, size int) ([]byte, error) {
	value := x.Header.Get(name)
	if value == "" {
		return nil, nil
	}
	sum, err := base64.StdEncoding.DecodeString(value)
	if err != nil || len(sum) != size {
		return nil, invalidHeader(name, "it is no checksum in base64")
	}
	return sum, nil
}

// write takes a whole blob.
func (d *door) write(ctx context.Context, w http.ResponseWriter, x request) error {
	if kind := x.Header.Get("X-Ms-Blob-Type"); !strings.EqualFold(kind, "BlockBlob") {
		return unsupported("blobs of another type than BlockBlob")
	}
	u, err := x.upload()
	if err != nil {
		return err
	}
	if u.Headers.ContentType == "" {
		u.Headers.ContentType = x.Header.Get("Content-Type")
	}
	conditions, err := x.conditions()
	if err != nil {
		return err
	}
	body := http.MaxBytesReader(w, x.Body, storage.MaxBlobSize)
	b, err := d.s.PutBlob(ctx, x.account, x.container, x.blob, u, body, conditions...)
	if err != nil {
		return err
	}
	tell(w.Header(), b)
	w.Header().Set("Content-Md5", base64.StdEncoding.EncodeToString(b.Headers.ContentMD5))
	return created(w)
}

func created(w http.ResponseWriter) error {
	w.Header().Set("X-Ms-Request-Server-Encrypted", "false")
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (d *door) putBlock(ctx context.Context, w http.ResponseWriter, x request) error {
	u, err := x.upload()
	if err != nil {
		return err
	}
	body := http.MaxBytesReader(w, x.Body, storage.MaxBlockSize)
	sum, err := d.s.PutBlock(ctx, x.account, x.container, x.blob, x.query.Get("blockid"), u, body, x.leaseHeader()...)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Md5", base64.StdEncoding.EncodeToString(sum))
	return created(w)
}

// maxBlockList bounds the text of a list of 50,000 blocks.
const maxBlockList = 8 << 20

func (d *door) commitBlocks(ctx context.Context, w http.ResponseWriter, x request) error {
	refs, err := readBlockList(http.MaxBytesReader(w, x.Body, maxBlockList))
	if err != nil {
		return err
	}
	u := storage.Upload{Metadata: x.metadata()}
	if u.Headers, err = x.blobHeaders(); err != nil {
		return err
	}
	conditions, err := x.conditions()
	if err != nil {
		return err
	}
	b, err := d.s.CommitBlocks(ctx, x.account, x.container, x.blob, refs, u, conditions...)
	if err != nil {
		return err
	}
	tell(w.Header(), b)
	return created(w)
}

// readBlockList reads <BlockList><Latest>id</Latest>…</BlockList>, where an entry may be Committed, Uncommitted
// or Latest, and their order is the blob's.
func readBlockList(body io.Reader) (refs []storage.BlockRef, err error) {
	decoder := xml.NewDecoder(body)
	malformed := func(err error) error {
		return problem.New(problem.Invalid, "InvalidXmlDocument", "XML specified is not syntactically valid, or no list of blocks.").
			WithAdvice("Send a BlockList of Committed, Uncommitted and Latest.").WithCause(err)
	}
	root := false
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) && root {
			return refs, nil
		}
		if err != nil {
			return nil, malformed(err)
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if !root {
			if root = start.Name.Local == "BlockList"; !root {
				return nil, malformed(nil)
			}
			continue
		}
		r := storage.BlockRef{Committed: start.Name.Local != "Uncommitted", Uncommitted: start.Name.Local != "Committed"}
		if !r.Committed && !r.Uncommitted || start.Name.Local != "Committed" && start.Name.Local != "Uncommitted" && start.Name.Local != "Latest" {
			return nil, malformed(nil)
		}
		if err := decoder.DecodeElement(&r.ID, &start); err != nil {
			return nil, malformed(err)
		}
		if refs = append(refs, r); len(refs) > storage.MaxBlocks {
			return refs, nil // it is refused for that
		}
	}
}

func (d *door) setMetadata(ctx context.Context, w http.ResponseWriter, x request) error {
	conditions, err := x.conditions()
	if err != nil {
		return err
	}
	b, err := d.s.SetMetadata(ctx, x.account, x.container, x.blob, x.metadata(), conditions...)
	if err != nil {
		return err
	}
	tell(w.Header(), b)
	w.WriteHeader(http.StatusOK)
	return nil
}

func (d *door) setHeaders(ctx context.Context, w http.ResponseWriter, x request) error {
	conditions, err := x.conditions()
	if err != nil {
		return err
	}
	h, err := x.blobHeaders()
	if err != nil {
		return err
	}
	b, err := d.s.SetHeaders(ctx, x.account, x.container, x.blob, h, conditions...)
	if err != nil {
		return err
	}
	tell(w.Header(), b)
	w.WriteHeader(http.StatusOK)
	return nil
}

func (d *door) delete(ctx context.Context, w http.ResponseWriter, x request) error {
	if strings.EqualFold(x.Header.Get("X-Ms-Delete-Snapshots"), "only") {
		return unsupported("snapshots of blobs")
	}
	conditions, err := x.conditions()
	if err != nil {
		return err
	}
	if err := d.s.DeleteBlob(ctx, x.account, x.container, x.blob, conditions...); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}
