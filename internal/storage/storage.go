// Package storage is storage accounts with their containers and block blobs: the place where a restore
// leaves configuration and template, and where a person fetches them.
//
// A blob's bytes are blocks, each an object in a bucket; rows say which. Writing never touches an object
// that is there: it writes new ones, then switches the rows, then deletes the objects that no row names any
// more. So a reader sees the old bytes or the new ones, and a crash leaves at most an object that nothing
// names. An object is deleted only when it is certain that no row names it. A blob that is uploaded in one
// piece is one block; one that is uploaded in blocks appears when their list is committed, without a copy.
//
// Account names are unique in the installation, because they are host names. Blob data is reached in three
// ways: with a role, like everything else; with one of the account's two keys, which is as good as every
// role on the account's data (key.go); with a shared access signature, which one of the keys has signed and
// which says itself what it is good for (sas.go). In ctx there is a principal or a Grant, and every call is
// held against it (grant.go). A principal can sign, too, without a key of the account (delegation.go). Keys are sealed under the root key and drawn when an account is made.
//
// Sources: Azure Storage's REST reference for the Blob service, "Authorize with Shared Key", "Create a
// service SAS", "Create an account SAS".
package storage

import (
	"context"
	"io"
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

// Sealer encrypts what is stored. The context binds a sealed value to its place: it opens only with the
// context it was sealed with.
type Sealer interface {
	Seal(context string, plain []byte) ([]byte, error)
	Open(context string, sealed []byte) ([]byte, error)
}

// Options are the parts of a Service.
type Options struct {
	DB         *database.DB
	Authorizer Authorizer
	Groups     Groups
	Principals Principals
	Bucket     objects.Bucket
	Seal       Sealer
	Rand       io.Reader
	DNSSuffix  string // "blob.localhost:8443": a blob is at https://{account}.{suffix}/{container}/{blob}
	Now        func() time.Time
	NewID      func() string
}

// Service keeps storage accounts. It is safe for concurrent use.
type Service struct{ o Options }

// New returns the service.
func New(o Options) *Service { return &Service{o} }

const accountType = "Microsoft.Storage/storageAccounts"

var (
	accountName   = regexp.MustCompile(`^[a-z0-9]{3,24}$`)
	containerName = regexp.MustCompile(`^[a-z0-9](-?[a-z0-9]){2,62}$`)
	headerText    = regexp.MustCompile(`^[ -~]{1,1000}$`)
	metadataName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

func isContainerName(name string) bool { return len(name) <= 63 && containerName.MatchString(name) }

func isBlobName(name string) bool {
	return name != "" && len(name) <= 1024 && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// Endpoint is where an account answers, with a slash at its end.
func (s *Service) Endpoint(account string) string {
	return "https://" + account + "." + s.o.DNSSuffix + "/"
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
