package storage_test

import (
	"net/url"
	"testing"
	"time"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/storage"
)

// What is published is read with its signature, for a quarter of an hour, and is in nobody's way.
func TestPublish(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db, nil)
		ctx := t.Context()
		place, query, err := w.Publish(ctx, "report", "application/json", []byte("[1]"))
		if err != nil || place != "https://kluis-exports.blob.localhost:8443/exports/report" {
			t.Fatalf("%s, %v", place, err)
		}
		read := func() error {
			q, err := url.ParseQuery(query)
			if err != nil {
				t.Fatal(err)
			}
			v, err := storage.ParseSAS(q)
			if err != nil {
				return err
			}
			g, err := w.Redeem(ctx, v, "kluis-exports", "exports", "report", elsewhere, true)
			if err != nil {
				return err
			}
			_, data, err := w.ReadBlob(storage.WithGrant(ctx, g), "kluis-exports", "exports", "report")
			if err != nil {
				return err
			}
			return data.Close()
		}
		if err := read(); err != nil {
			t.Error(err)
		}
		if all, err := w.Accounts(ctx, subscription); err != nil || len(all) != 0 {
			t.Errorf("accounts %v, %v", all, err)
		}
		_, _, err = w.PutAccount(ctx, storage.Account{ID: group.Resource(accountType, "kluis-exports"), Location: "westeurope"})
		wantCode(t, err, "AccountNameInvalid")
		_, err = w.ListKeys(ctx, group.Resource(accountType, "kluis-exports"))
		wantCode(t, err, "StorageAccountNotFound")
		if existed, err := w.DeleteAccount(ctx, group.Resource(accountType, "kluis-exports")); existed || err != nil {
			t.Errorf("deleted: %v, %v", existed, err)
		}
		if _, _, err := w.Publish(ctx, "second", "application/json", []byte("[2]")); err != nil || len(w.kept()) != 2 {
			t.Errorf("objects %v, %v", w.kept(), err)
		}
		w.now = start.Add(15 * time.Minute)
		wantCode(t, read(), "AuthenticationFailed")
		if err := w.DropPublished(ctx); err != nil || len(w.kept()) != 0 {
			t.Errorf("objects %v, %v", w.kept(), err)
		}
	})
}
