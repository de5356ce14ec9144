package blob

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"kluis/internal/problem"
	"kluis/internal/storage"
)

// enumeration is the answer to a list: of blobs, or of containers.
type enumeration struct {
	XMLName    xml.Name     `xml:"EnumerationResults"`
	Endpoint   string       `xml:"ServiceEndpoint,attr"`
	Container  string       `xml:"ContainerName,attr,omitempty"`
	Prefix     string       `xml:"Prefix,omitempty"`
	Marker     string       `xml:"Marker,omitempty"`
	Most       int          `xml:"MaxResults,omitempty"`
	Delimiter  string       `xml:"Delimiter,omitempty"`
	Containers *containers  `xml:"Containers"`
	Blobs      *listedBlobs `xml:"Blobs"`
	Next       string       `xml:"NextMarker"`
}

type containers struct {
	Container []container
}

type container struct {
	Name       string
	Properties containerProperties
	Metadata   metadata `xml:",omitempty"`
}

type containerProperties struct {
	Modified string `xml:"Last-Modified"`
	Etag     string
	Lease
}

// Lease is what there is to say of a lease.
type Lease struct {
	Status   string `xml:"LeaseStatus"`
	State    string `xml:"LeaseState"`
	Duration string `xml:"LeaseDuration,omitempty"`
}

type listedBlobs struct {
	Blob   []listed
	Prefix []prefix `xml:"BlobPrefix"`
}

type prefix struct{ Name string }

type listed struct {
	Name       string
	Properties listedProperties
	Metadata   metadata `xml:",omitempty"`
}

type listedProperties struct {
	Created     string `xml:"Creation-Time"`
	Modified    string `xml:"Last-Modified"`
	Etag        string `xml:"Etag"`
	Length      int64  `xml:"Content-Length"`
	ContentType string `xml:"Content-Type"`
	Encoding    string `xml:"Content-Encoding"`
	Language    string `xml:"Content-Language"`
	MD5         string `xml:"Content-MD5"`
	Cache       string `xml:"Cache-Control"`
	Disposition string `xml:"Content-Disposition"`
	BlobType    string `xml:"BlobType"`
	AccessTier  string
	Inferred    bool `xml:"AccessTierInferred"`
	Lease
	Encrypted bool `xml:"ServerEncrypted"`
}

// metadata is written as one element for each name.
type metadata map[string]string

// MarshalXML implements xml.Marshaler.
func (m metadata) MarshalXML(e *xml.Encoder, start xml.StartElement) error {
	if m == nil {
		return nil
	}
	if err := e.EncodeToken(start); err != nil {
		return err
	}
	names := []string{}
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := e.EncodeElement(m[name], xml.StartElement{Name: xml.Name{Local: name}}); err != nil {
			return err
		}
	}
	return e.EncodeToken(start.End())
}

func encodeListed(b storage.Blob, withMetadata bool, now time.Time) listed {
	l := listed{Name: b.Name, Properties: listedProperties{b.Created.UTC().Format(http.TimeFormat), b.Modified.UTC().Format(http.TimeFormat), strings.Trim(b.ETag(), `"`), b.Size,
		b.Headers.ContentType, b.Headers.ContentEncoding, b.Headers.ContentLanguage, base64.StdEncoding.EncodeToString(b.Headers.ContentMD5),
		b.Headers.CacheControl, b.Headers.ContentDisposition, "BlockBlob", accessTier, true, leaseOf(b.Lease, now), false}}
	if withMetadata {
		l.Metadata = orEmpty(b.Metadata)
	}
	return l
}

func orEmpty(m map[string]string) metadata {
	if m == nil {
		return metadata{}
	}
	return m
}

// included reads include. What it names beside metadata are states of a blob that none is in here.
func (x request) included() (withMetadata bool, err error) {
	for _, value := range x.query["include"] {
		for name := range strings.SplitSeq(value, ",") {
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "metadata":
				withMetadata = true
			case "", "snapshots", "copy", "deleted", "versions", "deletedwithversions", "tags", "immutabilitypolicy", "legalhold", "permissions", "system":
			default:
				return false, unsupported("lists with include=" + name)
			}
		}
	}
	return withMetadata, nil
}

func (d *door) listBlobs(ctx context.Context, w http.ResponseWriter, x request) error {
	withMetadata, err := x.included()
	if err != nil {
		return err
	}
	marker, most, err := x.window()
	if err != nil {
		return err
	}
	l := storage.Listing{Prefix: x.query.Get("prefix"), Delimiter: x.query.Get("delimiter"), From: marker, Most: most}
	all, next, err := d.s.ListBlobs(ctx, x.account, x.container, l)
	if err != nil {
		return err
	}
	e := enumeration{Endpoint: x.endpoint(), Container: x.container, Prefix: l.Prefix, Delimiter: l.Delimiter, Marker: x.query.Get("marker"), Most: most,
		Blobs: &listedBlobs{}, Next: encodeMarker(next)}
	for _, entry := range all {
		if entry.Prefix != "" {
			e.Blobs.Prefix = append(e.Blobs.Prefix, prefix{entry.Prefix})
		} else {
			e.Blobs.Blob = append(e.Blobs.Blob, encodeListed(entry.Blob, withMetadata, d.o.Now()))
		}
	}
	return writeXML(w, http.StatusOK, e)
}

func (d *door) listContainers(ctx context.Context, w http.ResponseWriter, x request) error {
	withMetadata, err := x.included()
	if err != nil {
		return err
	}
	marker, most, err := x.window()
	if err != nil {
		return err
	}
	all, err := d.s.Containers(ctx, x.account, x.query.Get("prefix"))
	if err != nil {
		return err
	}
	e := enumeration{Endpoint: x.endpoint(), Prefix: x.query.Get("prefix"), Marker: x.query.Get("marker"), Most: most, Containers: &containers{}}
	for _, c := range all {
		if c.Name < marker {
			continue
		}
		if len(e.Containers.Container) == most {
			e.Next = encodeMarker(c.Name)
			break
		}
		listed := container{Name: c.Name, Properties: containerProperties{c.Modified.UTC().Format(http.TimeFormat), strings.Trim(c.ETag(), `"`), leaseOf(c.Lease, d.o.Now())}}
		if withMetadata {
			listed.Metadata = orEmpty(c.Metadata)
		}
		e.Containers.Container = append(e.Containers.Container, listed)
	}
	return writeXML(w, http.StatusOK, e)
}

func (x request) endpoint() string {
	if strings.HasPrefix(x.URL.Path, "/blob/") {
		return "https://" + x.Host + "/blob/" + x.account + "/"
	}
	return "https://" + x.Host + "/"
}

// maxResults is the most that one list holds.
const maxResults = 5000

// encodeMarker makes a marker of the name that comes next: base64, because a name may hold what XML may not.
func encodeMarker(next string) string { return base64.RawURLEncoding.EncodeToString([]byte(next)) }

// window reads marker and maxresults.
func (x request) window() (marker string, most int, err error) {
	text, err := base64.RawURLEncoding.DecodeString(x.query.Get("marker"))
	if err != nil {
		return "", 0, invalidQuery("marker", "it is not from an earlier list")
	}
	most = maxResults
	if s := x.query.Get("maxresults"); s != "" {
		if most, err = strconv.Atoi(s); err != nil || most < 1 {
			return "", 0, invalidQuery("maxresults", "it must be a whole number from 1")
		}
	}
	return string(text), min(most, maxResults), nil
}

func invalidQuery(name, why string) error {
	return problem.New(problem.Invalid, "InvalidQueryParameterValue", "The query parameter %s is invalid: %s.", name, why).
		WithTarget(name).WithAdvice("Correct the parameter, or leave it out.")
}

func writeXML(w http.ResponseWriter, status int, v any) error {
	text, err := xml.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("Content-Length", strconv.Itoa(len(xml.Header)+len(text)))
	w.WriteHeader(status)
	if _, err = io.WriteString(w, xml.Header+string(text)); err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
	return nil
}

// readXML reads a body, which may be empty.
func readXML(body io.Reader, v any) error {
	if err := xml.NewDecoder(body).Decode(v); err != nil && !errors.Is(err, io.EOF) {
		return problem.New(problem.Invalid, "InvalidXmlDocument", "XML specified is not syntactically valid.").WithAdvice("Correct the body.").WithCause(err)
	}
	return nil
}
