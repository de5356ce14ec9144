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
	"bytes"
	"context"
	"errors"
	"fmt"
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

// Account is a storage account.
type Account struct {
	ID       armid.ID          `json:"id"`
	Location string            `json:"location"`
	Tags     map[string]string `json:"tags,omitempty"`
	Kind     string            `json:"kind"`
	SKU      string            `json:"sku"`
	Created  time.Time         `json:"created"`
}

// Blob describes a blob; Size is in bytes.
type Blob struct {
	Name        string
	Size        int64
	ContentType string
	Modified    time.Time

	object string
}

// MaxBlobSize bounds a blob: what belongs here is documents, not disks.
const MaxBlobSize = 64 << 20

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

// PutAccount creates an account, or changes tags and kind of one.
func (s *Service) PutAccount(ctx context.Context, a Account) (_ Account, created bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, accountType+"/write", a.ID); err != nil {
		return Account{}, false, err
	}
	if !accountName.MatchString(a.ID.Name()) {
		return Account{}, false, invalidAccountName(a.ID.Name())
	}
	if a.Location == "" {
		return Account{}, false, locationRequired(a.ID)
	}
	if err := s.o.Groups.GroupExists(ctx, a.ID.ResourceGroup); err != nil {
		return Account{}, false, err
	}
	a.Created = s.o.Now()
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		old, found, err := selectAccount(ctx, tx, a.ID.Name())
		if err != nil {
			return err
		}
		if created = !found; found {
			if !old.ID.Equal(a.ID) {
				return accountTaken(a.ID.Name())
			}
			a.ID, a.Location, a.Created = old.ID, old.Location, old.Created
		}
		return putAccount(ctx, tx, a)
	})
	return a, created, err
}

// CheckName says why an account of that name cannot be created; nil means that it can.
func (s *Service) CheckName(ctx context.Context, subscription armid.ID, name string) error {
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.Storage/checkNameAvailability/read", subscription); err != nil {
		return err
	}
	if !accountName.MatchString(name) {
		return invalidAccountName(name)
	}
	return s.o.DB.Read(ctx, func(tx *database.Tx) error {
		_, found, err := selectAccount(ctx, tx, name)
		if err == nil && found {
			return accountTaken(name)
		}
		return err
	})
}

// Account returns an account.
func (s *Service) Account(ctx context.Context, id armid.ID) (Account, error) {
	if err := s.o.Authorizer.Authorize(ctx, accountType+"/read", id); err != nil {
		return Account{}, err
	}
	a, err := s.account(ctx, id.Name())
	if err == nil && !a.ID.Equal(id) {
		return Account{}, accountNotFound(id)
	}
	return a, err
}

// account finds an account by its name, which may be any text.
func (s *Service) account(ctx context.Context, name string) (a Account, err error) {
	if !accountName.MatchString(strings.ToLower(name)) {
		return Account{}, accountNotFound(armid.ID{}.Resource(accountType, name))
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		var found bool
		if a, found, err = selectAccount(ctx, tx, name); err == nil && !found {
			return accountNotFound(armid.ID{}.Resource(accountType, name))
		}
		return err
	})
	return a, err
}

// Accounts returns the accounts of a group or of the subscription, by name.
func (s *Service) Accounts(ctx context.Context, scope armid.ID) ([]Account, error) {
	if err := s.o.Authorizer.Authorize(ctx, accountType+"/read", scope); err != nil {
		return nil, err
	}
	return s.accountsIn(ctx, scope)
}

func (s *Service) accountsIn(ctx context.Context, scope armid.ID) (within []Account, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		all, err := selectAccounts(ctx, tx)
		for _, a := range all {
			if a.ID.Within(scope) {
				within = append(within, a)
			}
		}
		return err
	})
	return within, err
}

// CountIn says how many accounts a resource group holds.
func (s *Service) CountIn(ctx context.Context, group armid.ID) (int, error) {
	accounts, err := s.accountsIn(ctx, group)
	return len(accounts), err
}

// DeleteAccount removes an account with all its blobs; one that is not there is no error.
func (s *Service) DeleteAccount(ctx context.Context, id armid.ID) (existed bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, accountType+"/delete", id); err != nil {
		return false, err
	}
	var unused []string
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		existed, unused = false, nil
		a, found, err := selectAccount(ctx, tx, id.Name())
		if err != nil || !found || !a.ID.Equal(id) {
			return err
		}
		existed = true
		unused, err = deleteAccount(ctx, tx, a.ID.Name())
		return err
	})
	if err != nil {
		return false, err
	}
	return existed, s.drop(ctx, unused...)
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

// CreateContainer makes a container; ContainerAlreadyExists if it is there.
func (s *Service) CreateContainer(ctx context.Context, account, container string) error {
	a, err := s.open(ctx, account, accountType+"/blobServices/containers/write")
	if err != nil {
		return err
	}
	if !isContainerName(container) {
		return invalidContainerName(container)
	}
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		found, err := hasContainer(ctx, tx, a.ID.Name(), container)
		if err != nil {
			return err
		}
		if found {
			return containerExists(container)
		}
		return putContainer(ctx, tx, a.ID.Name(), container)
	})
}

// open authorizes the caller on the account of that name.
func (s *Service) open(ctx context.Context, account, action string) (Account, error) {
	a, err := s.account(ctx, account)
	if err != nil {
		return Account{}, err
	}
	return a, s.o.Authorizer.Authorize(ctx, action, a.ID)
}

// PutBlob writes a blob of the given size, over an older one of the same name.
func (s *Service) PutBlob(ctx context.Context, account, container, name, contentType string, size int64, data io.Reader) (Blob, error) {
	a, err := s.open(ctx, account, writeBlobs)
	if err != nil {
		return Blob{}, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error { return checkContainer(ctx, tx, a, container) })
	if err != nil {
		return Blob{}, err
	}
	return s.put(ctx, a, container, name, contentType, size, data)
}

// checkContainer is nil when the container exists. Its name may be any text.
func checkContainer(ctx context.Context, tx *database.Tx, a Account, container string) error {
	if !isContainerName(container) {
		return containerNotFound(container)
	}
	found, err := hasContainer(ctx, tx, a.ID.Name(), container)
	if err == nil && !found {
		return containerNotFound(container)
	}
	return err
}

func (s *Service) put(ctx context.Context, a Account, container, name, contentType string, size int64, data io.Reader) (Blob, error) {
	if !isBlobName(name) {
		return Blob{}, invalidBlobName(name)
	}
	if size > MaxBlobSize {
		return Blob{}, blobTooLarge(size)
	}
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	if !contentTypes.MatchString(contentType) {
		return Blob{}, invalidContentType()
	}
	// What is told of a blob now is what its row will tell, and rows have microseconds.
	b := Blob{Name: name, Size: size, ContentType: contentType, Modified: s.o.Now().Truncate(time.Microsecond), object: s.o.NewID()}
	if err := s.o.Bucket.Put(ctx, b.object, size, data); err != nil {
		return Blob{}, fmt.Errorf("store blob %s: %w", name, err)
	}
	var old string
	var written bool
	err := s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		old, written = "", false
		before, found, err := selectBlob(ctx, tx, a.ID.Name(), container, name)
		if err != nil {
			return err
		}
		if found {
			old = before.object
		}
		err = putBlob(ctx, tx, a.ID.Name(), container, b)
		written = err == nil
		return err
	})
	switch {
	case err != nil && written: // the commit's answer was lost: the row may name the new object or the old one
		return Blob{}, err
	case err != nil:
		return Blob{}, errors.Join(err, s.drop(ctx, b.object))
	case old != "":
		return b, s.drop(ctx, old)
	}
	return b, nil
}

// drop deletes objects that no row names any longer, also for a caller who has gone.
func (s *Service) drop(ctx context.Context, objects ...string) error {
	var errs []error
	for _, o := range objects {
		if err := s.o.Bucket.Delete(context.WithoutCancel(ctx), o); err != nil {
			errs = append(errs, fmt.Errorf("delete object of a blob: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Blob describes a blob.
func (s *Service) Blob(ctx context.Context, account, container, name string) (Blob, error) {
	a, err := s.open(ctx, account, readBlobs)
	if err != nil {
		return Blob{}, err
	}
	return s.blob(ctx, a, container, name)
}

func (s *Service) blob(ctx context.Context, a Account, container, name string) (b Blob, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		b, err = findBlob(ctx, tx, a, container, name)
		return err
	})
	return b, err
}

// findBlob finds a blob, or says what is not there. The names may be any text.
func findBlob(ctx context.Context, tx *database.Tx, a Account, container, name string) (Blob, error) {
	if err := checkContainer(ctx, tx, a, container); err != nil {
		return Blob{}, err
	}
	if !isBlobName(name) {
		return Blob{}, blobNotFound(name)
	}
	b, found, err := selectBlob(ctx, tx, a.ID.Name(), container, name)
	if err == nil && !found {
		return Blob{}, blobNotFound(name)
	}
	return b, err
}

// maxOverwrites is how often a blob may be overwritten between the look at its row and at its object,
// until a reader gives up.
const maxOverwrites = 10

// ReadBlob returns a blob and its bytes, which the caller closes.
func (s *Service) ReadBlob(ctx context.Context, account, container, name string) (Blob, io.ReadCloser, error) {
	a, err := s.open(ctx, account, readBlobs)
	if err != nil {
		return Blob{}, nil, err
	}
	b, err := s.blob(ctx, a, container, name)
	for range maxOverwrites {
		if err != nil {
			return Blob{}, nil, err
		}
		data, getErr := s.o.Bucket.Get(ctx, b.object, 0, -1)
		if getErr == nil {
			return b, data, nil
		}
		gone := b.object
		if errors.Is(getErr, objects.ErrNotExist) {
			b, err = s.blob(ctx, a, container, name)
		}
		if err == nil && b.object == gone {
			return Blob{}, nil, fmt.Errorf("read blob %s: %w", name, getErr)
		}
	}
	return Blob{}, nil, fmt.Errorf("read blob %s: it is overwritten all the time", name)
}

// Blobs lists a container's blobs whose names begin with prefix, by name.
func (s *Service) Blobs(ctx context.Context, account, container, prefix string) (blobs []Blob, err error) {
	a, err := s.open(ctx, account, readBlobs)
	if err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		if err := checkContainer(ctx, tx, a, container); err != nil {
			return err
		}
		all, err := selectBlobs(ctx, tx, a.ID.Name(), container)
		for _, b := range all {
			if strings.HasPrefix(b.Name, prefix) {
				blobs = append(blobs, b)
			}
		}
		return err
	})
	return blobs, err
}

// DeleteBlob removes a blob.
func (s *Service) DeleteBlob(ctx context.Context, account, container, name string) error {
	a, err := s.open(ctx, account, deleteBlobs)
	if err != nil {
		return err
	}
	var b Blob
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if b, err = findBlob(ctx, tx, a, container, name); err != nil {
			return err
		}
		return deleteBlob(ctx, tx, a.ID.Name(), container, name)
	})
	if err != nil {
		return err
	}
	return s.drop(ctx, b.object)
}

// WriteArtifact writes a document of a restore job into a container, which it makes if need be. The job
// was authorized when it was asked for, so no caller is checked here.
func (s *Service) WriteArtifact(ctx context.Context, account armid.ID, container, name string, data []byte) (url string, err error) {
	a, err := s.account(ctx, account.Name())
	if err != nil {
		return "", err
	}
	if !a.ID.Equal(account) {
		return "", accountNotFound(account)
	}
	if !isContainerName(container) {
		return "", invalidContainerName(container)
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error { return putContainer(ctx, tx, a.ID.Name(), container) })
	if err != nil {
		return "", err
	}
	_, err = s.put(ctx, a, container, name, "application/json", int64(len(data)), bytes.NewReader(data))
	return s.URL(a.ID.Name(), container, name), err
}
