package storage

import (
	"bytes"
	"context"
	"errors"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// What the server makes for somebody to fetch once, such as an export of jobs, lies in an account of its own. It is in
// no group and no list, no role is about it, and nobody can make one of its name; its blobs are reached with the
// signatures that are made here alone, and are deleted when those have expired.

const (
	publicAccount   = "kluis-exports" // which is no name for an account
	publicContainer = "exports"
	publishedFor    = 15 * time.Minute
)

// Publish keeps a document for a quarter of an hour. It is read at the URL with the query.
func (s *Service) Publish(ctx context.Context, name, contentType string, data []byte) (url, query string, err error) {
	if err := s.DropPublished(ctx); err != nil {
		return "", "", err
	}
	a, err := s.openPublic(ctx)
	if err != nil {
		return "", "", err
	}
	if _, err := s.put(ctx, a, publicContainer, name, Upload{Size: int64(len(data)), Headers: Headers{ContentType: contentType}}, bytes.NewReader(data)); err != nil {
		return "", "", err
	}
	const layout = "2006-01-02T15:04:05Z"
	now := s.o.Now().UTC()
	v := SAS{Version: ownSAS, Resource: "b", Permissions: "r", Protocol: "https", Start: now.Add(-time.Minute).Format(layout), Expiry: now.Add(publishedFor).Format(layout)}
	keys, err := s.keys(ctx, a)
	if err != nil {
		return "", "", err
	}
	query = v.signed(keys[0].Value, publicAccount, publicContainer, name)
	for _, k := range keys {
		k.Value.Wipe()
	}
	return s.URL(publicAccount, publicContainer, name), query, nil
}

// openPublic returns the account, which is made when it is first needed.
func (s *Service) openPublic(ctx context.Context) (Account, error) {
	a := Account{ID: armid.ID{}.Resource(accountType, publicAccount), Kind: "StorageV2", SKU: "Standard_LRS", Created: s.o.Now()}
	return a, s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if err := putAccount(ctx, tx, a); err != nil {
			return err
		}
		_, found, err := selectContainer(ctx, tx, publicAccount, publicContainer)
		if err != nil || found {
			return err
		}
		return putContainer(ctx, tx, publicAccount, s.newContainer(publicContainer, nil))
	})
}

// DropPublished deletes what was published and can't be read any more.
func (s *Service) DropPublished(ctx context.Context) error {
	var unused []string
	err := s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		unused = nil
		blobs, err := selectBlobs(ctx, tx, publicAccount, publicContainer, "", batch)
		if err != nil {
			return err
		}
		for _, b := range blobs {
			if s.o.Now().Before(b.Modified.Add(publishedFor)) {
				continue
			}
			objects, err := deleteBlob(ctx, tx, publicAccount, publicContainer, b.Name)
			if err != nil {
				return err
			}
			unused = append(unused, objects...)
		}
		return nil
	})
	return errors.Join(err, s.drop(ctx, unused...))
}
