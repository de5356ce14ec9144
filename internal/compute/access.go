package compute

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// Who is granted access to a disk gets a URL at which its bytes are read, as those of a fixed VHD. The URL is all
// that is needed: it carries a signature, which is 32 random bytes that are kept sealed. It is good until the grant
// expires or is revoked, and for reading alone. While it is good the disk is in the state ActiveSAS: no other VM gets
// it, and it is not deleted.

// AccessRequest says what for and how long access is wanted.
type AccessRequest struct {
	Access     string `json:"access"`
	Seconds    int64  `json:"durationInSeconds"`
	FileFormat string `json:"fileFormat"`
	GuestState bool   `json:"getSecureVMGuestStateSAS"`
}

// longestAccess is Azure's limit of a grant.
const longestAccess = 60 * 24 * time.Hour

func (r AccessRequest) check(id armid.ID) error {
	switch {
	case strings.EqualFold(r.Access, "Write"):
		return accessNotSupported(id, "access Write")
	case !strings.EqualFold(r.Access, "Read"):
		return invalidAccess(id, "access", "it is not Read")
	case r.FileFormat != "" && !strings.EqualFold(r.FileFormat, "VHD"):
		return accessNotSupported(id, fmt.Sprintf("fileFormat %.20q", r.FileFormat))
	case r.GuestState:
		return accessNotSupported(id, "getSecureVMGuestStateSAS")
	case r.Seconds < 1 || r.Seconds > int64(longestAccess/time.Second):
		return invalidAccess(id, "durationInSeconds", fmt.Sprintf("it is not between 1 and %d", longestAccess/time.Second))
	}
	return nil
}

// Access is a grant: the right of whoever has its URL to read a disk.
type Access struct {
	ID       string   // a UUID
	Resource armid.ID // the disk or snapshot
	Location string   // where that is
	Expires  time.Time

	sealed []byte
}

func (a Access) holds(now time.Time) bool { return a.ID != "" && now.Before(a.Expires) }

// context binds the signature to its grant.
func (a Access) context() string { return "compute/access/" + a.ID }

// AccessHosts begin the names of the hosts at which disks are read. No storage account is called so.
const AccessHosts = "md-"

// The words of a URL as Azure makes them, which clients read.
const (
	accessBlob    = "abcd"
	accessVersion = "2018-03-28"
)

// place is where the bytes are read: an account, and a container with one blob.
func (a Access) place() (account, container, blob string) {
	digits := strings.ReplaceAll(a.ID, "-", "")
	return AccessHosts + digits[:12], digits[12:], accessBlob
}

func (s *Service) urlOf(a Access) (string, error) {
	signature, err := s.o.Seal.Open(a.context(), a.sealed)
	if err != nil {
		return "", fmt.Errorf("open the signature of access %s: %w", a.ID, err)
	}
	account, container, blob := a.place()
	q := url.Values{"sv": {accessVersion}, "sr": {"b"}, "si": {a.ID}, "sig": {base64.StdEncoding.EncodeToString(signature)}}
	return "https://" + account + "." + s.o.BlobSuffix + "/" + container + "/" + blob + "?" + q.Encode(), nil
}

// BeginAccess grants access to a disk or snapshot that can be read now. Where there is a grant already it is that
// one, and it lasts as long as whoever asked for more wants it.
func (s *Service) BeginAccess(ctx context.Context, id armid.ID, r AccessRequest) (Access, error) {
	if err := s.o.Authorizer.Authorize(ctx, id.Type()+"/beginGetAccess/action", id); err != nil {
		return Access{}, err
	}
	if err := r.check(id); err != nil {
		return Access{}, err
	}
	src, err := s.source(ctx, id)
	if err != nil {
		return Access{}, err
	}
	drawn := Access{ID: s.o.NewID(), Resource: src.id, Location: src.location, Expires: s.o.Now().Add(time.Duration(r.Seconds) * time.Second).Truncate(time.Microsecond)}
	if drawn.sealed, err = s.drawSignature(drawn); err != nil {
		return Access{}, err
	}
	if err := s.tryToRead(ctx, src); err != nil {
		return Access{}, err
	}
	a := drawn
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if _, err := selectSource(ctx, tx, id); err != nil {
			return err // deleted since
		}
		old, err := selectAccess(ctx, tx, id)
		if err != nil {
			return err
		}
		if a = drawn; old.holds(s.o.Now()) {
			a = old
			if drawn.Expires.After(old.Expires) {
				a.Expires = drawn.Expires
			}
		}
		return putAccess(ctx, tx, a)
	})
	a.Location = src.location
	return a, err
}

func (s *Service) drawSignature(a Access) (sealed []byte, err error) {
	signature := make([]byte, 32)
	defer clear(signature)
	if _, err := io.ReadFull(s.o.Rand, signature); err != nil {
		return nil, fmt.Errorf("draw the signature of access %s: %w", a.ID, err)
	}
	if sealed, err = s.o.Seal.Seal(a.context(), signature); err != nil {
		return nil, fmt.Errorf("seal the signature of access %s: %w", a.ID, err)
	}
	return sealed, nil
}

// EndAccess revokes a grant, if there is one. Who is reading is cut off.
func (s *Service) EndAccess(ctx context.Context, id armid.ID) error {
	if err := s.o.Authorizer.Authorize(ctx, id.Type()+"/endGetAccess/action", id); err != nil {
		return err
	}
	var a Access
	err := s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if _, err := selectSource(ctx, tx, id); err != nil {
			return err
		}
		var err error
		if a, err = selectAccess(ctx, tx, id); err != nil || a.ID == "" {
			return err
		}
		return deleteAccess(ctx, tx, id)
	})
	if err != nil {
		return err
	}
	return s.shares.end(context.WithoutCancel(ctx), a.ID)
}

// AccessURL returns the URL of a grant to whoever may make one for its disk; NotFound if there is no such grant, or
// no longer.
func (s *Service) AccessURL(ctx context.Context, accessID string) (string, error) {
	a, err := s.accessNamed(ctx, accessID)
	if err != nil {
		return "", err
	}
	if err := s.o.Authorizer.Authorize(ctx, a.Resource.Type()+"/beginGetAccess/action", a.Resource); err != nil {
		return "", err
	}
	return s.urlOf(a)
}

func (s *Service) accessNamed(ctx context.Context, accessID string) (a Access, err error) {
	if uuid.Validate(accessID) != nil {
		return Access{}, operationNotFound(accessID) // it may be any text
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		a, err = selectAccessNamed(ctx, tx, accessID)
		return err
	})
	if err == nil && !a.holds(s.o.Now()) {
		err = operationNotFound(accessID)
	}
	return a, err
}

// OpenShared opens a disk for whoever has come with its URL, to be read until it is closed. account, container and
// blob are what the URL names; si and signature are what its query has.
func (s *Service) OpenShared(ctx context.Context, account, container, blob, si, signature string) (*Shared, error) {
	a, err := s.accessNamed(ctx, si)
	if isNotFound(err) {
		return nil, accessDenied()
	}
	if err != nil {
		return nil, err
	}
	genuine, err := s.o.Seal.Open(a.context(), a.sealed)
	if err != nil {
		return nil, fmt.Errorf("open the signature of access %s: %w", a.ID, err)
	}
	defer clear(genuine)
	shown, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || subtle.ConstantTimeCompare(shown, genuine) != 1 {
		return nil, accessDenied()
	}
	if wantAccount, wantContainer, wantBlob := a.place(); account != wantAccount || container != wantContainer || blob != wantBlob {
		return nil, accessDenied()
	}
	src, err := s.source(ctx, a.Resource)
	if isNotFound(err) {
		return nil, accessDenied()
	}
	if err != nil {
		return nil, err
	}
	shared, err := s.shares.use(ctx, a.ID, func() (*openImage, error) { return s.openImage(ctx, src) })
	switch {
	case errors.Is(err, errEnded):
		return nil, accessDenied()
	case err != nil:
		return nil, imageUnreadable(src.id, err)
	}
	return shared, nil
}

// tryToRead fails if the image cannot be read now.
func (s *Service) tryToRead(ctx context.Context, src source) error {
	i, err := s.openImage(ctx, src)
	if err != nil {
		return imageUnreadable(src.id, err)
	}
	return i.snapshot.Close(context.WithoutCancel(ctx))
}

// DropExpired forgets the grants whose time is over.
func (s *Service) DropExpired(ctx context.Context) error {
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error { return deleteExpired(ctx, tx, s.o.Now()) })
}

// Reseal seals the signatures anew that don't begin with the mark of the present root key, and counts them.
func (s *Service) Reseal(ctx context.Context, mark []byte) (n int, err error) {
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		n = 0
		all, err := selectAccesses(ctx, tx)
		if err != nil {
			return err
		}
		for _, a := range all {
			if strings.HasPrefix(string(a.sealed), string(mark)) {
				continue
			}
			plain, err := s.o.Seal.Open(a.context(), a.sealed)
			if err != nil {
				return fmt.Errorf("open the signature of access %s: %w", a.ID, err)
			}
			a.sealed, err = s.o.Seal.Seal(a.context(), plain)
			clear(plain)
			if err != nil {
				return fmt.Errorf("seal the signature of access %s anew: %w", a.ID, err)
			}
			if err := putAccess(ctx, tx, a); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}
