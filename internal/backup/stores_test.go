package backup_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"kluis/internal/backup"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/job"
	"kluis/internal/objects"
	"kluis/internal/recovery"
)

// Each item has a store of its own, and deleting one erases it and no other.
func TestDeleteErasesOneStore(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		h.noSoftDelete()
		kek := h.putKeyVault()
		h.grantBackup()
		web, mail := h.putEncryptedVM(kek, "web"), h.putEncryptedVM(kek, "mail")
		kept := h.backedUp(mail)
		before := h.storeFolders()
		h.backedUp(web)
		h.backedUp(web)
		if len(before) != 2 || before[0] == before[1] {
			t.Fatalf("two items have the recovery stores %v", before)
		}

		j := h.wait(must(h.Delete(h.ctx, web.ID))(t))
		if j.Outcome != job.Completed || j.Details["Number of Recovery Points"] != "2" {
			t.Fatalf("deletion ended as %s with %v: %+v", j.Outcome, j.Details, j.Problems)
		}
		left := h.storeFolders()
		if len(left) != 1 || len(h.objects("register/")) != 1 {
			t.Fatalf("left are %v and %v", left, h.objects("register/"))
		}
		for _, name := range h.objects("stores/") {
			if !strings.HasPrefix(name, left[0]+"/") {
				t.Errorf("%s is left of the item that was deleted", name)
			}
		}
		if _, err := h.Item(h.ctx, web.ID); err == nil {
			t.Error("the item is still there")
		}
		if p := must(h.Point(h.ctx, mail.ID.Child("recoveryPoints", kept.ID)))(t); len(must(h.PointKeys(h.ctx, mail.ID.Child("recoveryPoints", p.ID)))(t)) != 1 {
			t.Error("the other item's recovery point has lost its keys")
		}

		h.wantProblem(second(h.DeleteVault(h.ctx, vaultID)), "ServiceResourceNotEmptyWithContainerDetails")
		h.wait(must(h.Delete(h.ctx, mail.ID))(t))
		if !must(h.DeleteVault(h.ctx, vaultID))(t) || len(h.objects("stores/")) != 0 || len(h.objects("register/")) != 0 {
			t.Errorf("after the vault was deleted there are %v", h.objects(""))
		}
	})
}

func second[T any](_ T, err error) error { return err }

// A deletion that fails at any object goes on when it is tried again, and from the first moment on there is
// no key.
func TestDeletionGoesOn(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		h.noSoftDelete()
		kek := h.putKeyVault()
		h.grantBackup()
		item := h.putEncryptedVM(kek, "web")
		for failing := 1; ; failing += 3 {
			h.backedUp(item)
			deleted := 0
			h.bucket.spy(func(name string) error {
				if strings.Contains(name, "/owner/") { // the lease's own
					return nil
				}
				if deleted++; deleted == failing {
					return errors.New("the bucket is away")
				}
				return nil
			}, nil)
			j := h.wait(must(h.Delete(h.ctx, item.ID))(t))
			h.bucket.spy(nil, nil)
			if j.Outcome == job.Completed {
				if failing < 5 {
					t.Errorf("only %d objects were deleted", deleted)
				}
				return
			}
			keys := slices.DeleteFunc(h.objects("stores/"), func(name string) bool { return !strings.Contains(name, "key.age") })
			if (len(keys) > 0) != (failing == 1) {
				t.Fatalf("the deletion failed at object %d, and the keys are %v", failing, keys)
			}
			if points := must(h.Points(h.ctx, item.ID))(t); len(points) != 0 {
				t.Errorf("points are listed that may be incomplete: %v", points)
			}
			h.close()
			h.open() // start-up does not bring them back
			if points := must(h.Points(h.ctx, item.ID))(t); len(points) != 0 {
				t.Errorf("after a start points are listed that may be incomplete: %v", points)
			}
			h.wantProblem(second3(h.Protect(h.ctx, item.ID, vmID("web"), policyID)), "UserErrorBackupDataBeingDeleted")
			if j := h.wait(must(h.Delete(h.ctx, item.ID))(t)); j.Outcome != job.Completed || len(h.objects("stores/")) != 0 {
				t.Fatalf("tried again, the deletion ended as %s and left %v", j.Outcome, h.objects("stores/"))
			}
			item = h.protect("web") // anew, with a new store
		}
	})
}

func second3[A, B any](_ A, _ B, err error) error { return err }

// The store is the truth: what the database has lost is found in the stores.
func TestAdoptStores(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		kek := h.putKeyVault()
		h.grantBackup()
		item := h.putEncryptedVM(kek, "web")
		first, last := h.backedUp(item), h.backedUp(item)

		for _, lost := range []struct {
			name   string
			tables []string
			state  backup.ItemState
		}{
			{"a point", []string{"recovery_points"}, backup.Protected},
			{"the item", []string{"recovery_points", "protected_items"}, backup.ProtectionStopped},
			{"the vault", []string{"recovery_points", "protected_items", "backup_policies", "recovery_vaults"}, backup.ProtectionStopped},
		} {
			h.close()
			h.check(db.InTx(h.ctx, func(tx *database.Tx) error {
				for _, table := range lost.tables {
					if _, err := tx.ExecContext(h.ctx, "DELETE FROM "+table); err != nil {
						return err
					}
				}
				return nil
			}))
			h.open()
			points := must(h.Points(h.ctx, item.ID))(t)
			if len(points) != 2 || points[0].ID != last.ID || points[1].ID != first.ID {
				t.Fatalf("after %s was lost there are the points %v", lost.name, points)
			}
			if i := must(h.Item(h.ctx, item.ID))(t); i.State != lost.state || i.LastPoint != last.ID || !i.VM.Equal(item.VM) {
				t.Errorf("after %s was lost the item is %+v", lost.name, i)
			}
			if keys := must(h.PointKeys(h.ctx, item.ID.Child("recoveryPoints", first.ID)))(t); len(keys) != 1 {
				t.Errorf("after %s was lost a point has %d keys", lost.name, len(keys))
			}
		}
		h.protect("web")
		if p := h.backedUp(item); p.Disks[0].Counters.New > 1<<20 {
			t.Errorf("the adopted store was not used: %+v", p.Disks[0].Counters)
		}
	})
}

// What nobody can open is neither listed nor touched, and does not keep the server from starting.
func TestStartBesideBrokenStores(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		kek := h.putKeyVault()
		h.grantBackup()
		item := h.putEncryptedVM(kek, "web")
		point := h.backedUp(item)
		store := h.storeFolders()[0]
		h.close()
		for _, name := range []string{"register/lost/empty", "register/lost/keyless", "stores/lost/keyless/points/x"} {
			h.check(h.bucket.Put(h.ctx, name, 1, bytes.NewReader([]byte("x"))))
		}
		key := filepath.Join(h.folder, filepath.FromSlash(store), "documents")
		h.check(os.Rename(key, key+"-away"))
		h.open()
		if points := must(h.Points(h.ctx, item.ID))(t); len(points) != 1 {
			t.Errorf("without its key the store's points are no longer listed: %v", points)
		}
		h.wantProblem(second(h.PointKeys(h.ctx, item.ID.Child("recoveryPoints", point.ID))), "UserErrorRecoveryStoreMissing")
		j := h.backUp(item, h.clock.Now().AddDate(0, 0, 1))
		if j.Outcome != job.Failed || codes(j.Problems)[0] != "UserErrorRecoveryStoreMissing" {
			t.Errorf("the backup ended as %s: %+v", j.Outcome, j.Problems)
		}
		h.close()
		h.check(os.Rename(key+"-away", key))
		h.open()
		h.backedUp(item)
		if got := h.objects("stores/lost/"); len(got) != 1 {
			t.Errorf("a store without an item was touched: %v", got)
		}
	})
}

// While another process works on an item's store, a backup of that item says so, and of another runs.
func TestStoreInUse(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		kek := h.putKeyVault()
		h.grantBackup()
		web, mail := h.putEncryptedVM(kek, "web"), h.putEncryptedVM(kek, "mail")
		h.backedUp(web)
		name := ""
		for _, folder := range h.storeFolders() {
			if h.size(folder+"/") > 0 {
				name = folder
			}
		}
		other := h.ownStore(name)
		j := h.backUp(web, h.clock.Now().AddDate(0, 0, 1))
		if j.Outcome != job.Failed || codes(j.Problems)[0] != "UserErrorRecoveryStoreInUse" || !strings.Contains(j.Problems[0].Message, "another process") {
			t.Errorf("the backup ended as %s: %+v", j.Outcome, j.Problems)
		}
		if points := must(h.Points(h.ctx, web.ID))(t); len(must(h.PointKeys(h.ctx, web.ID.Child("recoveryPoints", points[0].ID)))(t)) != 1 {
			t.Error("a recovery point cannot be looked at while another process works on its store")
		}
		h.backedUp(mail)
		h.check(other.Close())
		h.backedUp(web)
	})
}

// ownStore opens a recovery store as another process would.
func (h *house) ownStore(folder string) *recovery.Store {
	h.t.Helper()
	return must(h.openStore(folder, recovery.Options{Owner: "another process"}))(h.t)
}

// When the recipients of the root key change, the key of each store is wrapped for them, also if that is cut short;
// nothing else of the stores is written, and the recovery points are as they were.
func TestRewrap(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		kek := h.putKeyVault()
		h.grantBackup()
		web, mail := h.putEncryptedVM(kek, "web"), h.putEncryptedVM(kek, "mail")
		points := map[string]backup.Item{h.backedUp(web).ID: web, h.backedUp(mail).ID: mail}
		if n, err := h.Rewrap(h.ctx); n != 0 || err != nil {
			t.Fatalf("nobody came or went, and %d keys were wrapped: %v", n, err)
		}
		packs := h.objects("stores/")
		offline, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		if err := h.root.AddRecipient(offline.Recipient().String()); err != nil {
			t.Fatal(err)
		}
		if n, err := h.Rewrap(h.ctx); n != 2 || err != nil {
			t.Fatalf("%d of 2 keys were wrapped: %v", n, err)
		}
		if n, err := h.Rewrap(h.ctx); n != 0 || err != nil {
			t.Fatalf("%d keys were wrapped again: %v", n, err)
		}
		for _, name := range h.storeFolders() {
			wrapped := must(recovery.ReadDocument(h.ctx, objects.Prefix(h.bucket, name), "key.age"))(t)
			key, err := age.Decrypt(bytes.NewReader(wrapped), offline)
			if err != nil {
				t.Errorf("the new recipient does not open the key of %s: %v", name, err)
				continue
			}
			if b, err := io.ReadAll(key); err != nil || len(b) != 32 {
				t.Errorf("the key of %s has %d bytes, %v", name, len(b), err)
			}
		}
		isPack := func(name string) bool { return strings.Contains(name, "/packs/") || strings.Contains(name, "/points/") }
		before, after := slices.DeleteFunc(packs, func(n string) bool { return !isPack(n) }), slices.DeleteFunc(h.objects("stores/"), func(n string) bool { return !isPack(n) })
		if !slices.Equal(before, after) {
			t.Errorf("packs and points were\n%v\nand are\n%v", before, after)
		}
		for id, item := range points {
			if keys := must(h.PointKeys(h.ctx, item.ID.Child("recoveryPoints", id)))(t); len(keys) != 1 {
				t.Errorf("recovery point %s has lost its keys", id)
			}
		}
	})
}
