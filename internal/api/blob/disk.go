package blob

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"kluis/internal/compute"
	"kluis/internal/problem"
	"kluis/internal/storage"
)

// A disk to which somebody was granted access is read at a host of its own, as the page blob that Azure shows: a
// fixed VHD. Its URL carries a signature that is the compute service's, and nothing but reading is done with it.

// Disks open disks for whoever has come with the URL of one.
type Disks interface {
	OpenShared(ctx context.Context, account, container, blob, si, signature string) (*compute.Shared, error)
}

// isDisk reports whether a host is that of a disk.
func (x request) isDisk() bool { return strings.HasPrefix(x.account, compute.AccessHosts) }

func (d *door) serveDisk(ctx context.Context, w http.ResponseWriter, x request) error {
	disk, err := d.o.Disks.OpenShared(ctx, x.account, x.container, x.blob, x.query.Get("si"), x.query.Get("sig"))
	if err != nil {
		return err
	}
	defer func() { _ = disk.Close() }() // it was only read
	if err := x.refuseUnknown(); err != nil {
		return err
	}
	if x.query.Get("snapshot") != "" || x.query.Get("prevsnapshot") != "" {
		return unsupported("snapshots and differences of a disk's blob")
	}
	reads := x.Method == http.MethodGet || x.Method == http.MethodHead
	switch comp := x.query.Get("comp"); {
	case !reads:
		return problem.New(problem.Denied, "AuthorizationPermissionMismatch", "This request is not authorized to perform this operation using this permission.").
			WithAdvice("Access to a disk is granted for reading alone.")
	case comp == "pagelist" && x.Method == http.MethodGet:
		return x.listPages(ctx, w, disk)
	case comp != "" && comp != "metadata":
		return unsupported("comp=" + comp + " on a disk")
	}
	return x.readDisk(w, disk)
}

func (x request) readDisk(w http.ResponseWriter, disk *compute.Shared) error {
	must, unless, err := x.readConditions()
	if err != nil {
		return err
	}
	state := storage.Described(x.blob, disk.Size, disk.Modified, disk.ETag)
	if err := storage.Check(must, state, true, time.Time{}); err != nil {
		return err
	}
	off, n, partial := x.wanted()
	if x.Method == http.MethodHead {
		off, n, partial = 0, -1, false
	}
	if off >= disk.Size {
		return problem.New(problem.Invalid, "InvalidRange", "The range begins at byte %d of a blob of %d.", off, disk.Size).WithAdvice("Ask for bytes that the blob has.")
	}
	if notModified(w, state, unless) {
		return nil
	}
	length, status := disk.Size-off, http.StatusOK
	if n >= 0 {
		length = min(length, n)
	}
	describeDisk(w.Header(), state)
	var data io.Reader = io.NewSectionReader(disk, off, length)
	if partial {
		status = http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+length-1, disk.Size))
		if strings.EqualFold(x.Header.Get("X-Ms-Range-Get-Content-Md5"), "true") {
			if data, err = hashed(w, data, length); err != nil {
				return err
			}
		}
	}
	w.Header().Set("Content-Length", fmt.Sprint(length))
	w.WriteHeader(status)
	if x.Method == http.MethodHead {
		return nil
	}
	if _, err := io.CopyBuffer(onlyWriter{w}, data, make([]byte, diskBuffer)); err != nil {
		panic(http.ErrAbortHandler) // the length is promised: what is cut short must not look whole
	}
	return nil
}

// diskBuffer is what is read of a disk at once.
const diskBuffer = 1 << 20

// onlyWriter hides a ReadFrom that would read in small pieces.
type onlyWriter struct{ io.Writer }

func describeDisk(h http.Header, b storage.Blob) {
	tell(h, b)
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Accept-Ranges", "bytes")
	h.Set("X-Ms-Blob-Type", "PageBlob")
	h.Set("X-Ms-Blob-Sequence-Number", "1")
	h.Set("X-Ms-Creation-Time", b.Created.UTC().Format(http.TimeFormat))
	tellLease(h, leaseOf(b.Lease, time.Time{}))
	h.Set("X-Ms-Server-Encrypted", "false")
}

// maxPageRanges is how many ranges one answer lists.
const maxPageRanges = 10_000

type pageList struct {
	XMLName xml.Name    `xml:"PageList"`
	Ranges  []pageRange `xml:"PageRange"`
	Next    string      `xml:"NextMarker"`
}

type pageRange struct {
	Start, End int64
}

// listPages tells which pages hold something, within the range that is asked for. Where the list is cut, it goes on
// at the byte that its marker names.
func (x request) listPages(ctx context.Context, w http.ResponseWriter, disk *compute.Shared) error {
	state := storage.Described(x.blob, disk.Size, disk.Modified, disk.ETag)
	must, _, err := x.readConditions()
	if err != nil {
		return err
	}
	if err := storage.Check(must, state, true, time.Time{}); err != nil {
		return err
	}
	first, most, err := x.pageWindow()
	if err != nil {
		return err
	}
	off, n, _ := x.wanted()
	end := disk.Size
	if n >= 0 {
		end = min(end, off+n)
	}
	first = max(first, off)
	var list pageList
	for e, err := range disk.Extents(ctx) {
		if err != nil {
			return err
		}
		from, to := max(e.Offset, first), min(e.Offset+e.Length, end)
		if from >= to {
			continue
		}
		if len(list.Ranges) == most {
			list.Next = strconv.FormatInt(from, 10)
			break
		}
		list.Ranges = append(list.Ranges, pageRange{from, to - 1})
	}
	tell(w.Header(), state)
	w.Header().Set("X-Ms-Blob-Content-Length", fmt.Sprint(disk.Size))
	return writeXML(w, http.StatusOK, list)
}

// pageWindow is where a list of pages begins, and how long it may be.
func (x request) pageWindow() (first int64, most int, err error) {
	if marker := x.query.Get("marker"); marker != "" {
		if first, err = strconv.ParseInt(marker, 10, 64); err != nil || first < 0 {
			return 0, 0, invalidQuery("marker", "it is not the NextMarker of a list")
		}
	}
	most = maxPageRanges
	if text := x.query.Get("maxresults"); text != "" {
		asked, err := strconv.Atoi(text)
		if err != nil || asked < 1 {
			return 0, 0, invalidQuery("maxresults", "it is not a number from 1 on")
		}
		most = min(most, asked)
	}
	return first, most, nil
}
