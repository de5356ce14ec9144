// Package storage is storage accounts with their containers and blobs: the place where a restore leaves
// configuration and template, and where a person fetches them.
//
// A blob's bytes are an object in a bucket; a row says which. Overwriting a blob writes a new object,
// then switches the row, then deletes the old object: a reader sees the old bytes or the new ones, and a
// crash leaves at most an object that nothing names. An object is deleted only when it is certain that no
// row names it.
//
// Account names are unique in the installation, because they are host names. Blob data is reached with a
// role, like everything else; there are no account keys.
package storage

import (
	"context"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/objects"
)

// Authorizer decides whether the principal in ctx may do an action at a scope.
type Authorizer interface {
	Authorize(ctx context.Context, action string, scope armid.ID) error
}

// Groups knows the resource groups.
type Groups interface {
	GroupExists(ctx context.Context, name string) error
}

// Options are the parts of a Service.
type Options struct {
	DB         *database.DB
	Authorizer Authorizer
	Groups     Groups
	Bucket     objects.Bucket
	DNSSuffix  string // "blob.localhost:8443": a blob is at https://{account}.{suffix}/{container}/{blob}
	Now        func() time.Time
	NewID      func() string
}

// Service keeps storage accounts. It is safe for concurrent use.
type Service struct{ o Options }

// New returns the service.
func New(o Options) *Service { return &Service{o} }

const accountType = "Microsoft.Storage/storageAccounts"

const (
	readBlobs   = accountType + "/blobServices/containers/blobs/read"
	writeBlobs  = accountType + "/blobServices/containers/blobs/write"
	deleteBlobs = accountType + "/blobServices/containers/blobs/delete"
)

var (
	accountName   = regexp.MustCompile(`^[a-z0-9]{3,24}$`)
	containerName = regexp.MustCompile(`^[a-z0-9](-?[a-z0-9]){2,62}$`)
	contentTypes  = regexp.MustCompile(`^[ -~]{1,256}$`)
)

func isContainerName(name string) bool { return len(name) <= 63 && containerName.MatchString(name) }

func isBlobName(name string) bool {
	return name != "" && len(name) <= 1024 && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// URL is where a blob is found.
func (s *Service) URL(account, container, blob string) string {
	u := url.URL{Scheme: "https", Host: account + "." + s.o.DNSSuffix, Path: "/" + container + "/" + blob}
	return u.String()
}

// ParseURL takes a URL apart that URL could have made; false for any other.
func (s *Service) ParseURL(address string) (account, container, blob string, ok bool) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", "", "", false
	}
	account, isOurs := strings.CutSuffix(strings.ToLower(u.Host), "."+strings.ToLower(s.o.DNSSuffix))
	container, blob, _ = strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if !isOurs || !accountName.MatchString(account) || !isContainerName(container) || !isBlobName(blob) {
		return "", "", "", false
	}
	return account, container, blob, true
}
