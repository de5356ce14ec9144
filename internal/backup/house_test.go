package backup_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/compute"
	"kluis/internal/database"
	"kluis/internal/fabric"
	"kluis/internal/fabric/image"
	"kluis/internal/identity"
	"kluis/internal/job"
	"kluis/internal/keyvault"
	"kluis/internal/objects"
	"kluis/internal/objects/folder"
	"kluis/internal/problem"
	"kluis/internal/recovery"
	"kluis/internal/seal"
	"kluis/internal/secret"
	"kluis/internal/storage"
	"kluis/internal/tooltest"
	"kluis/internal/volume/volumetest"
)

const (
	tenant   = "11111111-1111-1111-1111-111111111111"
	location = "westeurope"
)

var (
	group       = armid.Subscription("22222222-2222-2222-2222-222222222222").Group("rg1")
	vaultID     = group.Resource("Microsoft.RecoveryServices/vaults", "nightly")
	keyVaultID  = group.Resource("Microsoft.KeyVault/vaults", "kv1")
	policyID    = vaultID.Child("backupPolicies", "DefaultPolicy")
	alice       = identity.Principal{ObjectID: "aaaaaaaa-0000-0000-0000-000000000001", AppID: "aaaaaaaa-0000-0000-0000-00000000000a", TenantID: tenant}
	clerk       = identity.Principal{ObjectID: identity.BackupManagementService.ObjectID, AppID: identity.BackupManagementService.AppID, TenantID: tenant}
	everybody   = allow{}
	cheap       = volumetest.Options{Version: 1}
	plainLetter = []byte("Dear reader.\n")
)

// allow lets everybody do everything: who may do what is tested where it is decided.
type allow struct{}

func (allow) Authorize(context.Context, string, armid.ID) error { return nil }
func (allow) GroupExists(context.Context, string) error         { return nil }

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Microsecond) // no two things happen at the same time
	return c.now
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// images is the fabric as the two services ask for it.
type images struct {
	*image.Fabric

	ground *drillGround
}

// drillGround is the host on which drills take place; it boots what it is told that it boots.
type drillGround struct {
	hosts  []string
	result fabric.DrillResult
	err    error
	asked  []fabric.Drill

	settled []string // VMs whose host was tidied, and the checkpoint that was kept
}

func (f images) Settle(_ context.Context, vm fabric.VM, keep fabric.Checkpoint) error {
	f.ground.settled = append(f.ground.settled, vm.Name+"="+string(keep))
	return f.ground.err
}

func (images) GuestState(context.Context, fabric.VM) (*fabric.GuestState, error) { return nil, nil }

func (f images) Hosts() []string { return f.ground.hosts }

func (f images) Drill(_ context.Context, _ string, what fabric.Drill) (fabric.DrillResult, error) {
	f.ground.asked = append(f.ground.asked, what)
	return f.ground.result, f.ground.err
}

func (f images) NewDisk(ctx context.Context, dir, name string, size, data int64) (backup.NewDisk, error) {
	d, err := f.NewSparseDisk(ctx, dir, name, size, data)
	if err != nil {
		return nil, err
	}
	return d, nil
}

type inspector struct{ *image.Fabric }

func (f inspector) Inspect(ctx context.Context, path string) (compute.Image, error) {
	i, err := f.Fabric.Inspect(ctx, path)
	return compute.Image{Path: i.Path, Format: i.Format, Size: i.Size}, err
}

// spied is a bucket whose calls a test can hold up or let fail.
type spied struct {
	*folder.Folder
	mu       sync.Mutex
	onDelete func(name string) error
	onList   func(ctx context.Context, prefix string) error
}

func (s *spied) spy(onDelete func(name string) error, onList func(ctx context.Context, prefix string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onDelete, s.onList = onDelete, onList
}

func (s *spied) Delete(ctx context.Context, name string) error {
	s.mu.Lock()
	f := s.onDelete
	s.mu.Unlock()
	if f != nil {
		if err := f(name); err != nil {
			return err
		}
	}
	return s.Folder.Delete(ctx, name)
}

func (s *spied) List(ctx context.Context, prefix string) iter.Seq2[objects.Object, error] {
	s.mu.Lock()
	f := s.onList
	s.mu.Unlock()
	if f != nil {
		if err := f(ctx, prefix); err != nil {
			return func(yield func(objects.Object, error) bool) { yield(objects.Object{}, err) }
		}
	}
	return s.Folder.List(ctx, prefix)
}

// house is the backup service with the real rooms around it, and with its jobs running.
type house struct {
	*backup.Service
	t       testing.TB
	ctx     context.Context // alice's
	db      *database.DB
	clock   *clock
	images  string // folder of image files
	folder  string // of the bucket
	bucket  *spied
	root    *seal.Root
	jobs    *job.Queue
	keys    *keyvault.Service
	compute *compute.Service
	storage *storage.Service
	log     *lines
	shelf   *shelf
	ground  *drillGround
	stop    func()

	authorizer *forbid // of the backup service
	limits     backup.Limits
	principals []string
}

// lines keeps what was logged.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newHouse(t testing.TB, db *database.DB) *house {
	t.Helper()
	dir := t.TempDir()
	h := &house{t: t, db: db, clock: &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}, images: t.TempDir(), log: &lines{},
		shelf: &shelf{disks: map[string][]backup.ExportedDisk{}}, ground: &drillGround{}, authorizer: &forbid{},
		folder: filepath.Join(dir, "store"), ctx: identity.With(t.Context(), alice)}
	h.bucket = &spied{Folder: must(folder.Open(h.folder))(t)}
	t.Cleanup(func() { _ = h.bucket.Close() })
	root, _, err := seal.OpenOrCreate(filepath.Join(dir, "seal"), seal.Options{Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	h.root = root
	h.keys = must(keyvault.New(keyvault.Options{DB: db, Seal: root, Authorizer: everybody, Groups: everybody, DNSSuffix: "vault.localhost",
		TenantID: tenant, Issuer: "https://login", Now: h.clock.Now, Rand: rand.Reader}))(t)
	h.open()
	t.Cleanup(func() {
		h.close()
		if t.Failed() {
			t.Logf("log:\n%s", h.log)
		}
	})
	return h
}

// open starts the service, as a server does.
func (h *house) open() {
	h.t.Helper()
	f := must(image.New(image.Options{Allow: []string{h.images}, RestoreDir: filepath.Join(h.folder, "..", "disks")}))(h.t)
	h.compute = compute.New(compute.Options{DB: h.db, Authorizer: everybody, Groups: everybody, Images: inspector{f}, Now: h.clock.Now, NewID: uuid.NewString})
	h.storage = storage.New(storage.Options{DB: h.db, Authorizer: everybody, Groups: everybody, Bucket: objects.Prefix(h.bucket, "blobs/"),
		Seal: h.root, Rand: rand.Reader, DNSSuffix: "blob.localhost", Now: h.clock.Now, NewID: uuid.NewString})
	h.jobs = job.NewQueue(h.db, h.clock.Now, uuid.NewString)
	log := slog.New(slog.NewTextHandler(h.log, nil))
	h.Service = must(backup.Open(h.ctx, backup.Options{DB: h.db, Jobs: h.jobs, Bucket: h.bucket, Node: "here", Wrapper: h.root, Authorizer: h.authorizer,
		Machines: h.compute, Fabric: images{f, h.ground}, Keys: h.keys, Artifacts: h.storage, Groups: everybody, Principals: h, Exports: h.shelf,
		AsService: func(ctx context.Context) context.Context { return identity.With(ctx, clerk) }, ServiceObject: clerk.ObjectID,
		Correlation: func(context.Context) string { return "" }, Now: h.clock.Now, NewID: uuid.NewString, Rand: rand.Reader, Log: log, Limits: h.limits}))(h.t)
	o := job.Options{Node: "here", Workers: 2, Lease: time.Minute, Now: h.clock.Now, Log: log}
	works := must(job.StartRunner(h.ctx, h.jobs, o, h.Works()...))(h.t)
	chores := must(job.StartRunner(h.ctx, h.jobs, o, h.Chores()...))(h.t)
	h.stop = func() { works.Stop(); chores.Stop() }
}

// close stops it, as a server does.
func (h *house) close() {
	h.t.Helper()
	h.stop()
	if err := h.Close(); err != nil {
		h.t.Error(err)
	}
}

// must takes the value of a call that may not fail: must(call())(t).
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (h *house) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) wantProblem(err error, code string) {
	h.t.Helper()
	if p := problem.Of(err); p == nil || p.Code != code || p.Advice == "" {
		h.t.Fatalf("got %v, want %s with advice", err, code)
	}
}

func (h *house) putVault() {
	h.t.Helper()
	_, _, err := h.PutVault(h.ctx, backup.RecoveryVault{ID: vaultID, Location: location})
	h.check(err)
}

// MakePrincipal and DropPrincipal are a tenant that only counts.
func (h *house) MakePrincipal(_ context.Context, name string) (objectID, tenantID string, err error) {
	h.principals = append(h.principals, name)
	return name, tenant, nil
}

func (h *house) DropPrincipal(_ context.Context, objectID string) error {
	h.principals = slices.DeleteFunc(h.principals, func(p string) bool { return p == objectID })
	return nil
}

// noSoftDelete makes deletions of the vault final.
func (h *house) noSoftDelete() {
	h.t.Helper()
	v := must(h.Vault(h.ctx, vaultID))(h.t)
	v.SoftDelete.State = backup.SoftDeleteDisabled
	_, _, err := h.PutVault(h.ctx, v)
	h.check(err)
}

// putKeyVault makes the key vault with a KEK. The backup service gets no access to it.
func (h *house) putKeyVault() (kek keyvault.Key) {
	h.t.Helper()
	_, _, err := h.keys.PutVault(h.ctx, keyvault.Vault{ID: keyVaultID, Location: location, Settings: keyvault.Settings{SKU: "standard", SoftDeleteDays: 7,
		AccessPolicies: []keyvault.AccessPolicy{{TenantID: tenant, ObjectID: alice.ObjectID,
			Permissions: keyvault.Permissions{Keys: []string{"all"}, Secrets: []string{"all"}}}}}})
	h.check(err)
	return must(h.keys.CreateKey(h.ctx, "kv1", "kek", keyvault.NewKey{Type: "RSA"}))(h.t)
}

func (h *house) grantBackup() {
	h.t.Helper()
	_, err := h.keys.UpdateAccessPolicies(h.ctx, keyVaultID, keyvault.Add,
		[]keyvault.AccessPolicy{{TenantID: tenant, ObjectID: clerk.ObjectID, Permissions: keyvault.AzureBackupTemplate()}})
	h.check(err)
}

// setBEK keeps a passphrase as Azure Disk Encryption does: wrapped by the KEK.
func (h *house) setBEK(kek keyvault.Key, name, passphrase, machine string) *compute.SettingsCollection {
	h.t.Helper()
	return h.setSecret(kek, name, h.wrap(kek, passphrase), "Wrapped BEK", h.keys.KeyURL(kek.ID), machine)
}

func (h *house) wrap(kek keyvault.Key, passphrase string) string {
	h.t.Helper()
	_, wrapped, err := h.keys.WrapKey(h.ctx, kek.ID, "RSA-OAEP", secret.New([]byte(passphrase)))
	h.check(err)
	return base64.RawURLEncoding.EncodeToString(wrapped)
}

// setSecret makes a secret as told, and settings that name it and the KEK.
func (h *house) setSecret(kek keyvault.Key, name, value, contentType, keyURL, machine string) *compute.SettingsCollection {
	h.t.Helper()
	s := must(h.keys.SetSecret(h.ctx, "kv1", name, secret.New([]byte(value)), keyvault.Change{ContentType: &contentType,
		Tags: map[string]string{"DiskEncryptionKeyEncryptionAlgorithm": "RSA-OAEP", "DiskEncryptionKeyEncryptionKeyURL": keyURL,
			"DiskEncryptionKeyFileName": "LinuxPassPhraseFileName", "MachineName": machine}}))(h.t)
	return &compute.SettingsCollection{Enabled: true, Version: "1.1", Settings: []compute.EncryptionSettings{{
		DiskEncryptionKey: &compute.SecretRef{SecretURL: h.keys.SecretURL(s.ID), SourceVault: compute.Ref{ID: keyVaultID}},
		KeyEncryptionKey:  &compute.KeyRef{KeyURL: h.keys.KeyURL(kek.ID), SourceVault: compute.Ref{ID: keyVaultID}}}}}
}

func vmID(name string) armid.ID   { return group.Resource("Microsoft.Compute/virtualMachines", name) }
func diskID(name string) armid.ID { return group.Resource("Microsoft.Compute/disks", name) }

func (h *house) imageOf(disk string) string { return filepath.Join(h.images, disk+".raw") }

// putDisk registers the image of a disk, or changes its encryption settings.
func (h *house) putDisk(name string, settings *compute.SettingsCollection) {
	h.t.Helper()
	_, _, err := h.compute.PutDisk(h.ctx, compute.Disk{ID: diskID(name), Location: location, Properties: compute.DiskProperties{OSType: "Linux",
		CreationData: compute.CreationData{CreateOption: "Import", SourceURI: "file://" + h.imageOf(name)}, EncryptionSettings: settings}})
	h.check(err)
}

// putVM makes a VM of one disk that has its name.
func (h *house) putVM(name string) {
	h.t.Helper()
	_, _, err := h.compute.PutVM(h.ctx, compute.VM{ID: vmID(name), Location: location, Properties: compute.VMProperties{StorageProfile: compute.StorageProfile{
		OSDisk: compute.OSDisk{OSType: "Linux", CreateOption: "Attach", ManagedDisk: &compute.Ref{ID: diskID(name)}}}}})
	h.check(err)
}

// plainImage writes an image with a file system that holds noise.
func (h *house) plainImage(path string, size int64) {
	h.t.Helper()
	tooltest.Need(h.t, "mke2fs")
	content := h.t.TempDir()
	noise := make([]byte, 1<<20)
	_, _ = rand.Read(noise) // never fails
	h.check(os.WriteFile(filepath.Join(content, "letter"), plainLetter, 0o600))
	h.check(os.WriteFile(filepath.Join(content, "noise"), noise, 0o600))
	h.check(os.RemoveAll(path))
	h.check(volumetest.MakeFileSystem(h.ctx, path, size, content))
}

// encryptedImage writes an image that is a LUKS volume around a file system.
func (h *house) encryptedImage(path, passphrase string, o volumetest.Options) {
	h.t.Helper()
	tooltest.Need(h.t, "cryptsetup")
	plain := filepath.Join(h.t.TempDir(), "plain")
	h.plainImage(plain, 4<<20)
	h.check(os.RemoveAll(path))
	h.check(volumetest.Encrypt(h.ctx, plain, path, []byte(passphrase), o))
}

// putEncryptedVM makes a VM whose one disk is encrypted, and protects it.
func (h *house) putEncryptedVM(kek keyvault.Key, name string) backup.Item {
	h.t.Helper()
	h.encryptedImage(h.imageOf(name), "passphrase of "+name, cheap)
	h.putDisk(name, h.setBEK(kek, "bek-"+name, "passphrase of "+name, name))
	h.putVM(name)
	return h.protect(name)
}

func (h *house) protect(name string) backup.Item {
	h.t.Helper()
	item, _, err := h.Protect(h.ctx, backup.ItemID(vaultID, vmID(name)), vmID(name), policyID)
	h.check(err)
	return item
}

// wait returns a job when it has ended.
func (h *house) wait(j job.Job) job.Job {
	h.t.Helper()
	h.waitUntil("the end of the job "+j.Kind, func() bool { j = must(h.jobs.Job(h.ctx, j.ID))(h.t); return j.State == job.Ended })
	return j
}

func (h *house) waitUntil(what string, ok func() bool) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			h.t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

// backUp backs an item up and returns the job, however it ended.
func (h *house) backUp(item backup.Item, expiry time.Time) job.Job {
	h.t.Helper()
	return h.wait(must(h.BackUp(h.ctx, item.ID, expiry))(h.t))
}

// backedUp backs an item up and returns the recovery point.
func (h *house) backedUp(item backup.Item) backup.Point {
	h.t.Helper()
	j := h.backUp(item, time.Time{})
	if j.Outcome != job.Completed {
		h.t.Fatalf("the backup ended as %s: %+v", j.Outcome, j.Problems)
	}
	return must(h.Point(h.ctx, item.ID.Child("recoveryPoints", j.Details["Recovery Point Id"])))(h.t)
}

func codes(problems []job.Problem) (all []string) {
	for _, p := range problems {
		all = append(all, p.Code)
	}
	return all
}

// objects returns the names of what the bucket holds under a prefix.
func (h *house) objects(prefix string) (names []string) {
	h.t.Helper()
	for o, err := range h.bucket.List(h.ctx, prefix) {
		h.check(err)
		names = append(names, o.Name)
	}
	return names
}

// storeFolders are the recovery stores: the folders that hold a header.
func (h *house) storeFolders() (all []string) {
	h.t.Helper()
	for _, name := range h.objects("stores/") {
		if folder, ok := strings.CutSuffix(name, "/store.json"); ok {
			all = append(all, folder)
		}
	}
	return all
}

// size is how many bytes the packs below a prefix have.
func (h *house) size(prefix string) (n int64) {
	h.t.Helper()
	for o, err := range h.bucket.List(h.ctx, prefix) {
		h.check(err)
		if strings.Contains(o.Name, "/packs/") {
			n += o.Size
		}
	}
	return n
}

// openStore opens the recovery store in a folder of the bucket by its own wrapped key.
func (h *house) openStore(folder string, o recovery.Options) (*recovery.Store, error) {
	b := objects.Prefix(h.bucket, folder)
	wrapped, err := recovery.ReadDocument(h.ctx, b, "key.age")
	if err != nil {
		return nil, err
	}
	key, err := h.root.Unwrap(wrapped)
	if err != nil {
		return nil, err
	}
	o.Key, o.Now = secret.New(key), h.clock.Now
	return recovery.Open(h.ctx, b, o)
}
