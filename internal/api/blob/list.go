package blob

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"kluis/internal/problem"
	"kluis/internal/storage"
)

// enumeration is the answer to a list: of blobs, or of containers.
type enumeration struct {
	XMLName    xml.Name     `xml:"EnumerationResults"`
	Endpoint   string       `xml:"ServiceEndpoint,attr"`
	Container  string       `xml:"ContainerName,attr,omitempty"`
	Prefix     string       `xml:"Prefix,omitempty"`
	Containers *containers  `xml:"Containers"`
	Blobs      *listedBlobs `xml:"Blobs"`
	Next       string       `xml:"NextMarker"`
}

type containers struct {
	Container []container
}

type container struct {
	Name string
}

type listedBlobs struct {
	Blob []listed
}

type listed struct {
	Name       string
	Properties listedProperties
}

type listedProperties struct {
	Modified    string `xml:"Last-Modified"`
	Etag        string `xml:"Etag"`
	Length      int64  `xml:"Content-Length"`
	ContentType string `xml:"Content-Type"`
	BlobType    string `xml:"BlobType"`
}

func (d *door) listBlobs(ctx context.Context, w http.ResponseWriter, x request) error {
	if x.query.Get("delimiter") != "" {
		return unsupported("lists with a delimiter")
	}
	prefix := x.query.Get("prefix")
	blobs, err := d.s.Blobs(ctx, x.account, x.container, prefix)
	if err != nil {
		return err
	}
	marker, most, err := x.window()
	if err != nil {
		return err
	}
	part, next := page(blobs, func(b storage.Blob) string { return b.Name }, marker, most)
	e := enumeration{Endpoint: x.endpoint(), Container: x.container, Prefix: prefix, Blobs: &listedBlobs{}, Next: next}
	for _, b := range part {
		e.Blobs.Blob = append(e.Blobs.Blob, listed{b.Name,
			listedProperties{b.Modified.UTC().Format(http.TimeFormat), b.ETag(), b.Size, b.ContentType, "BlockBlob"}})
	}
	return writeXML(w, http.StatusOK, e)
}

func (d *door) listContainers(ctx context.Context, w http.ResponseWriter, x request) error {
	names, err := d.s.Containers(ctx, x.account)
	if err != nil {
		return err
	}
	prefix := x.query.Get("prefix")
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, prefix) })
	marker, most, err := x.window()
	if err != nil {
		return err
	}
	part, next := page(names, func(name string) string { return name }, marker, most)
	e := enumeration{Endpoint: x.endpoint(), Prefix: prefix, Containers: &containers{}, Next: next}
	for _, name := range part {
		e.Containers.Container = append(e.Containers.Container, container{name})
	}
	return writeXML(w, http.StatusOK, e)
}

func (x request) endpoint() string { return "https://" + x.Host + "/" }

// maxResults is the most that one list holds.
const maxResults = 5000

// page takes from a sorted list what marker and maxresults ask for, and the marker with which it goes on.
// A marker is the name that comes next, in base64 because a name may hold what XML may not.
func page[T any](all []T, name func(T) string, marker string, most int) (part []T, next string) {
	from, _ := slices.BinarySearchFunc(all, marker, func(v T, marker string) int { return strings.Compare(name(v), marker) })
	if all = all[from:]; len(all) <= most {
		return all, ""
	}
	return all[:most], base64.RawURLEncoding.EncodeToString([]byte(name(all[most])))
}

func writeXML(w http.ResponseWriter, status int, v any) error {
	text, err := xml.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	if _, err = io.WriteString(w, xml.Header+string(text)); err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
	return nil
}

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
