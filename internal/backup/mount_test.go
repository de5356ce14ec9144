package backup_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/problem"
	"kluis/internal/secret"
	"kluis/internal/volume/filesystem"
)

// shelf is where mounts lay their disks. What lies there can be read; what is withdrawn must not be.
type shelf struct {
	mu    sync.Mutex
	disks map[string][]backup.ExportedDisk
	err   error
}

func (s *shelf) Offer(mount string, _ time.Time, disks []backup.ExportedDisk) (backup.Access, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return backup.Access{}, s.err
	}
	s.disks[mount] = disks
	return backup.Access{Address: "127.0.0.1:10809", Key: secret.New([]byte("key of " + mount))}, nil
}

func (s *shelf) Withdraw(mount string, _ []backup.ExportedDisk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.disks, mount)
}

func (s *shelf) mounts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.disks)
}

// forbid is an authorizer that forbids some actions.
type forbid struct {
	mu      sync.Mutex
	actions []string
}

func (f *forbid) Authorize(_ context.Context, action string, _ armid.ID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Contains(f.actions, action) {
		return problem.New(problem.Denied, "AuthorizationFailed", "You may not %s.", action).WithAdvice("Ask.")
	}
	return nil
}

func (f *forbid) set(actions ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.actions = actions
}

// mountedHouse has an encrypted VM with a recovery point.
func mountedHouse(t *testing.T, db *database.DB) (*house, backup.Item, backup.Point) {
	t.Helper()
	h := newHouse(t, db)
	h.putVault()
	kek := h.putKeyVault()
	h.grantBackup()
	item := h.putEncryptedVM(kek, "web1")
	return h, item, h.backedUp(item)
}

func (h *house) provision(p backup.Point, decrypted bool) backup.Mount {
	h.t.Helper()
	return must(h.Provision(h.ctx, backup.MountRequest{Point: idOf(p), Decrypted: decrypted}))(h.t)
}

func idOf(p backup.Point) armid.ID { return p.Item.Child("recoveryPoints", p.ID) }

const (
	provisionAction = "Microsoft.RecoveryServices/vaults/backupFabrics/protectionContainers/protectedItems/recoveryPoints/provisionInstantItemRecovery/action"
	revokeAction    = "Microsoft.RecoveryServices/vaults/backupFabrics/protectionContainers/protectedItems/recoveryPoints/revokeInstantItemRecovery/action"
	decryptAction   = "Microsoft.RecoveryServices/vaults/decryptRecoveryPoints/action"
)

// A mount serves the disk as it was stored, or what is in it, until it is revoked.
func TestMount(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, _, p := mountedHouse(t, db)
		image := must(os.ReadFile(h.imageOf("web1")))(t)
		if must(h.Point(h.ctx, idOf(p)))(t).Served {
			t.Error("a recovery point without a mount is served")
		}
		m := h.provision(p, false)
		if listed := must(h.Points(h.ctx, p.Item))(t); !listed[0].Served || !must(h.Point(h.ctx, idOf(p)))(t).Served {
			t.Error("a recovery point with a mount is not served")
		}
		got := make([]byte, m.Disks[0].Size())
		if _, err := m.Disks[0].ReadAt(got, 0); err != nil || !bytes.Equal(got, image) || len(m.Disks) != 1 {
			t.Errorf("%d disks, read of the first: %v", len(m.Disks), err)
		}
		opened := h.provision(p, true)
		if fs, err := filesystem.Recognise(opened.Disks[0], opened.Disks[0].Size()); err != nil || fs.Type != "ext4" || opened.Disks[0].Encryption == "" {
			t.Errorf("decrypted disk %+v holds %v, %v", opened.Disks[0], fs, err)
		}
		if again := must(h.Mount(h.ctx, vaultID, opened.ID))(t); !bytes.Equal(again.Access.Key.Reveal(), []byte("key of "+opened.ID)) {
			t.Error("a mount that is looked up has another key")
		}
		if uses := must(h.keys.Uses(h.ctx, keyVaultID, "", 1))(t); len(uses) != 1 || uses[0].Operation != "SecretDisclose" || uses[0].Principal.ObjectID != alice.ObjectID || uses[0].Result != "Success" {
			t.Errorf("the log of uses ends with %+v", uses)
		}

		h.check(h.Revoke(h.ctx, idOf(p), opened.ID))
		_, err := h.Mount(h.ctx, vaultID, opened.ID)
		h.wantProblem(err, "UserErrorItemRecoveryNotFound")
		if _, err := opened.Disks[0].ReadAt(got[:512], 0); err == nil {
			t.Error("an opened volume can be read when its mount has ended")
		}
		h.check(h.Revoke(h.ctx, idOf(p), "")) // the other one
		h.check(h.Revoke(h.ctx, idOf(p), "")) // nothing is no error
		if n := h.shelf.mounts(); n != 0 {
			t.Errorf("%d mounts are left", n)
		}
		if item := must(h.Item(h.ctx, p.Item))(t); item.LastPoint != p.ID {
			t.Errorf("the item has changed: %+v", item)
		}
	})
}

// A mount ends with its time, with its item and with the server.
func TestMountEnds(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, item, p := mountedHouse(t, db)
		m := h.provision(p, false)
		h.clock.forward(backup.MountLife - time.Minute)
		h.EndMounts()
		if h.shelf.mounts() != 1 {
			t.Error("the mount has ended early")
		}
		h.clock.forward(time.Minute)
		_, err := h.Mount(h.ctx, vaultID, m.ID)
		h.wantProblem(err, "UserErrorItemRecoveryNotFound")
		h.EndMounts()
		if h.shelf.mounts() != 0 {
			t.Error("the mount goes on after its time")
		}

		h.provision(p, true)
		h.close()
		if h.shelf.mounts() != 0 {
			t.Error("the mount goes on after the server")
		}
		_, err = h.Provision(h.ctx, backup.MountRequest{Point: idOf(p)})
		h.wantProblem(err, "UserErrorItemRecoveryNotAvailable")
		h.open()

		h.provision(p, true)
		h.noSoftDelete()
		h.wait(must(h.Delete(h.ctx, item.ID))(t)) // would wait for ever for the store if the mount stayed
		if h.shelf.mounts() != 0 {
			t.Error("the mount goes on after its item")
		}
		_, err = h.Provision(h.ctx, backup.MountRequest{Point: idOf(p)})
		h.wantProblem(err, "BMSUserErrorRecoveryPointNotFound")
	})
}

// What is refused leaves nothing served.
func TestMountIsRefused(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, item, p := mountedHouse(t, db)
		refused := func(code string, r backup.MountRequest) {
			t.Helper()
			_, err := h.Provision(h.ctx, r)
			h.wantProblem(err, code)
			if h.shelf.mounts() != 0 {
				t.Errorf("%s: and yet something is served", code)
			}
		}
		h.authorizer.set(provisionAction)
		refused("AuthorizationFailed", backup.MountRequest{Point: idOf(p)})
		h.authorizer.set(decryptAction)
		refused("AuthorizationFailed", backup.MountRequest{Point: idOf(p), Decrypted: true})
		h.authorizer.set()
		refused("UserErrorDiskNotInRecoveryPoint", backup.MountRequest{Point: idOf(p), Disks: []string{"WEB1", "other"}})
		refused("BMSUserErrorRecoveryPointNotFound", backup.MountRequest{Point: item.ID.Child("recoveryPoints", "7")})
		h.shelf.err = errors.New("no port is free")
		if _, err := h.Provision(h.ctx, backup.MountRequest{Point: idOf(p), Decrypted: true}); err == nil {
			t.Error("what cannot be served is mounted")
		}
		h.shelf.err = nil

		m := h.provision(p, true)
		h.authorizer.set(decryptAction)
		_, err := h.Mount(h.ctx, vaultID, m.ID)
		h.wantProblem(err, "AuthorizationFailed")
		h.authorizer.set(revokeAction)
		h.wantProblem(h.Revoke(h.ctx, idOf(p), ""), "AuthorizationFailed")
		h.authorizer.set()
		_, err = h.Mount(h.ctx, group.Resource("Microsoft.RecoveryServices/vaults", "other"), m.ID)
		h.wantProblem(err, "UserErrorItemRecoveryNotFound")
		h.check(h.Revoke(h.ctx, idOf(p), ""))
	})
}

// A disk whose key opens nothing is not served as if it were opened, and the log says that somebody tried.
func TestMountWithWrongKey(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		kek := h.putKeyVault()
		h.grantBackup()
		item := h.putEncryptedVM(kek, "web1")
		h.encryptedImage(h.imageOf("web1"), "another passphrase", cheap)
		j := h.backUp(item, time.Time{})
		p := must(h.Point(h.ctx, item.ID.Child("recoveryPoints", j.Details["Recovery Point Id"])))(t)
		_, err := h.Provision(h.ctx, backup.MountRequest{Point: idOf(p), Decrypted: true})
		h.wantProblem(err, "UserErrorRecoveryPointNotDecrypted")
		if h.shelf.mounts() != 0 {
			t.Error("and yet something is served")
		}
		h.provision(p, false)
	})
}

// There is an end to how many are served at once; those whose time is over make room by themselves.
func TestMountsAreLimited(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, _, p := mountedHouse(t, db)
		const most = 32
		for range most {
			h.provision(p, false)
		}
		_, err := h.Provision(h.ctx, backup.MountRequest{Point: idOf(p)})
		h.wantProblem(err, "UserErrorTooManyItemRecoveries")
		if n := h.shelf.mounts(); n != most {
			t.Errorf("%d mounts, want %d", n, most)
		}
		h.clock.forward(backup.MountLife)
		h.provision(p, false)
		if n := h.shelf.mounts(); n != 1 {
			t.Errorf("%d mounts are left, want the new one", n)
		}
	})
}
