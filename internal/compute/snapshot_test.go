package compute_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/job"
	"kluis/internal/problem"
)

func snapshotID(name string) armid.ID { return group.Resource(compute.SnapshotType, name) }

// work lets jobs be done until the test ends, or until it is called.
func (h *host) work() (stop func()) {
	h.t.Helper()
	r, err := job.StartRunner(h.t.Context(), h.jobs, job.Options{Node: "here", Workers: 2, Lease: time.Minute, Now: time.Now, Log: slog.New(slog.DiscardHandler)}, h.Works()...)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(r.Stop)
	return r.Stop
}

func (h *host) snapshotOf(name string, source armid.ID) compute.Snapshot {
	s := document[compute.Snapshot](h.t, `{"location":"westeurope","tags":{"a":"b"},"sku":{"name":"Standard_LRS"},
		"properties":{"creationData":{"createOption":"Copy","sourceResourceId":%q}}}`, source)
	s.ID = snapshotID(name)
	return s
}

func (h *host) copyOf(name string, source armid.ID) compute.Disk {
	d := document[compute.Disk](h.t, `{"location":"westeurope","properties":{"creationData":{"createOption":"Copy","sourceResourceId":%q}}}`, source)
	d.ID = diskID(name)
	return d
}

func (h *host) mustSnapshot(name string, source armid.ID) compute.Snapshot {
	h.t.Helper()
	s, created, err := h.PutSnapshot(h.t.Context(), h.snapshotOf(name, source))
	if err != nil || !created || s.Operation() == "" {
		h.t.Fatalf("snapshot %s: created %v, operation %q, %v", name, created, s.Operation(), err)
	}
	if err := h.Await(h.t.Context(), s.Operation()); err != nil {
		h.t.Fatal(err)
	}
	return s
}

// copies are the files that belong to copies, unfinished ones too.
func (h *host) copies() (all []string) {
	entries, err := os.ReadDir(filepath.Join(h.restore, "copies"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		h.t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// A disk is kept in a snapshot, goes on changing, and comes back as another disk with the bytes of that moment.
func TestSnapshotAndBack(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		h.work()
		content := h.filled("data", 1<<20)
		if _, err := h.ChangeDisk(ctx, diskID("data"), []byte(`{"properties":{"encryptionSettingsCollection":{"enabled":true,"encryptionSettings":[{`+settings("bek", true)+`}]}}}`)); err != nil {
			t.Fatal(err)
		}
		started := h.mustSnapshot("kept", diskID("data"))
		if p := started.Properties; p.ProvisioningState != "Creating" || p.SizeBytes != 1<<20 || p.SizeGB != 1 {
			t.Errorf("as it was begun: %+v", p)
		}
		if err := os.WriteFile(filepath.Join(h.images, "data"), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		kept, err := h.Snapshot(ctx, snapshotID("KEPT"))
		if err != nil {
			t.Fatal(err)
		}
		p := kept.Properties
		if p.ProvisioningState != "Succeeded" || p.DiskState != "Unattached" || p.OSType != "Linux" || p.EncryptionSettings == nil ||
			p.EncryptionSettings.Settings[0].DiskEncryptionKey.SecretURL == "" || !p.CreationData.SourceResourceID.Equal(diskID("data")) || p.CreationData.SourceUniqueID == "" {
			t.Errorf("as it was kept: %+v", p)
		}
		if w := wire(t, kept); w["type"] != compute.SnapshotType || w["sku"] == nil || w["properties"].(map[string]any)["incremental"] != false {
			t.Errorf("on the wire: %v", w)
		}

		d, created, err := h.PutDisk(ctx, h.copyOf("again", snapshotID("kept")))
		if err != nil || !created {
			t.Fatalf("created %v, %v", created, err)
		}
		if err := h.Await(ctx, d.Operation()); err != nil {
			t.Fatal(err)
		}
		spec, err := h.ImageOf(ctx, diskID("again"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(spec.Path); err != nil || !bytes.Equal(got, content) {
			t.Errorf("the disk of the snapshot is another, %v", err)
		}
		again, err := h.Disk(ctx, diskID("again"))
		if err != nil || again.Properties.ProvisioningState != "Succeeded" || again.Properties.EncryptionSettings == nil {
			t.Errorf("%+v, %v", again.Properties, err)
		}
		h.mustPutVM(h.vm("vm", "again"))

		// Settings change, what it is made of does not.
		s, created, err := h.PutSnapshot(ctx, h.snapshotOf("kept", diskID("data")))
		if err != nil || created || s.Properties.UniqueID != p.UniqueID || s.Properties.ProvisioningState != "Succeeded" {
			t.Errorf("put again: %+v, created %v, %v", s.Properties, created, err)
		}
		_, _, err = h.PutSnapshot(ctx, h.snapshotOf("kept", diskID("again")))
		wantProblem(t, err, problem.Conflict, "PropertyChangeNotAllowed")
		_, _, err = h.PutDisk(ctx, h.copyOf("again", diskID("data")))
		wantProblem(t, err, problem.Conflict, "PropertyChangeNotAllowed")
		if s, err := h.ChangeSnapshot(ctx, snapshotID("kept"), []byte(`{"tags":{"x":"y"},"properties":{"provisioningState":"Creating"}}`)); err != nil || s.Tags["x"] != "y" || s.Properties.ProvisioningState != "Succeeded" {
			t.Errorf("patched: %+v, %v", s, err)
		}
		if n, err := h.CountIn(ctx, group); err != nil || n != 4 {
			t.Errorf("%d resources, %v", n, err)
		}
		if all, err := h.Snapshots(ctx, subscription); err != nil || len(all) != 1 {
			t.Errorf("%d snapshots, %v", len(all), err)
		}

		// Nobody gets a snapshot's file as a disk to write to, and it goes with the snapshot.
		if len(h.copies()) != 2 {
			t.Errorf("files %v", h.copies())
		}
		_, _, err = h.PutDisk(ctx, h.disk("thief", "file://"+filepath.Join(h.restore, "copies", p.UniqueID)))
		wantProblem(t, err, problem.Conflict, "DiskImageInUse")
		h.mustBegin(snapshotID("kept"), forAnHour)
		_, err = h.DeleteSnapshot(ctx, snapshotID("kept"))
		wantProblem(t, err, problem.Conflict, "OperationNotAllowed")
		if err := h.EndAccess(ctx, snapshotID("kept")); err != nil {
			t.Fatal(err)
		}
		for _, want := range []bool{true, false} {
			if existed, err := h.DeleteSnapshot(ctx, snapshotID("kept")); err != nil || existed != want {
				t.Errorf("deleted %v, %v", existed, err)
			}
		}
		if len(h.copies()) != 1 {
			t.Errorf("files %v", h.copies())
		}
	})
}

func TestCopyRefused(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		h.mustPutDisk("os")
		for name, test := range map[string]struct {
			change func(*compute.Snapshot)
			kind   problem.Kind
			code   string
		}{
			"option":      {func(s *compute.Snapshot) { s.Properties.CreationData.CreateOption = "Import" }, problem.Unsupported, "OperationNotSupported"},
			"no source":   {func(s *compute.Snapshot) { s.Properties.CreationData.SourceResourceID = armid.ID{} }, problem.Invalid, "InvalidParameter"},
			"a VM":        {func(s *compute.Snapshot) { s.Properties.CreationData.SourceResourceID = vmID("vm") }, problem.Invalid, "InvalidParameter"},
			"gone":        {func(s *compute.Snapshot) { s.Properties.CreationData.SourceResourceID = diskID("none") }, problem.Invalid, "InvalidParameter"},
			"larger":      {func(s *compute.Snapshot) { s.Properties.SizeGB = 100 }, problem.Unsupported, "OperationNotSupported"},
			"incremental": {func(s *compute.Snapshot) { s.Properties.Incremental = true }, problem.Unsupported, "OperationNotSupported"},
			"nowhere":     {func(s *compute.Snapshot) { s.Location = "" }, problem.Invalid, "LocationRequired"},
			"no group":    {func(s *compute.Snapshot) { s.ID = subscription.Group("none").Resource(compute.SnapshotType, "x") }, problem.NotFound, "ResourceGroupNotFound"},
		} {
			s := h.snapshotOf("x", diskID("os"))
			test.change(&s)
			_, _, err := h.PutSnapshot(ctx, s)
			t.Run(name, func(t *testing.T) { wantProblem(t, err, test.kind, test.code) })
		}
		// To copy a disk takes the right to its bytes.
		h.denied = compute.DiskType + "/beginGetAccess/action"
		_, _, err := h.PutSnapshot(ctx, h.snapshotOf("x", diskID("os")))
		wantProblem(t, err, problem.Denied, "AuthorizationFailed")
		_, _, err = h.PutDisk(ctx, h.copyOf("x", diskID("os")))
		wantProblem(t, err, problem.Denied, "AuthorizationFailed")
		for _, action := range []string{"write", "read", "delete"} {
			h.denied = compute.SnapshotType + "/" + action
			do := map[string]func() error{
				"write":  func() error { _, err := h.ChangeSnapshot(ctx, snapshotID("x"), []byte(`{}`)); return err },
				"read":   func() error { _, err := h.Snapshots(ctx, group); return err },
				"delete": func() error { _, err := h.DeleteSnapshot(ctx, snapshotID("x")); return err },
			}[action]
			wantProblem(t, do(), problem.Denied, "AuthorizationFailed")
		}
		if all, err := h.LookupDisk(ctx, diskID("x")); problem.KindOf(err) != problem.NotFound {
			t.Errorf("there is %+v, %v", all, err)
		}
	})
}

// Until a copy is whole nobody uses it; where it can't be made nothing is left of it, and the operation says why.
func TestCopyTakesItsTime(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		h.filled("data", 1<<20)
		d, _, err := h.PutDisk(ctx, h.copyOf("copy", diskID("data")))
		if err != nil {
			t.Fatal(err)
		}
		o, err := h.Operation(ctx, d.Operation())
		if err != nil || o.Status != "InProgress" || !o.Resource.Equal(diskID("copy")) {
			t.Errorf("%+v, %v", o, err)
		}
		_, err = h.BeginAccess(ctx, diskID("copy"), forAnHour)
		wantProblem(t, err, problem.Conflict, "OperationNotAllowed")
		_, _, err = h.PutVM(ctx, h.vm("vm", "copy"))
		wantProblem(t, err, problem.Conflict, "OperationNotAllowed")
		_, _, err = h.PutSnapshot(ctx, h.snapshotOf("x", diskID("copy")))
		wantProblem(t, err, problem.Conflict, "OperationNotAllowed")
		if changed, err := h.ChangeDisk(ctx, diskID("copy"), []byte(`{"tags":{"x":"y"}}`)); err != nil || changed.Properties.ProvisioningState != "Creating" {
			t.Errorf("changed meanwhile: %+v, %v", changed.Properties, err)
		}

		// Deleted before it is whole: nothing of it comes later.
		if existed, err := h.DeleteDisk(ctx, diskID("copy")); err != nil || !existed {
			t.Errorf("deleted %v, %v", existed, err)
		}
		if o, err := h.Operation(ctx, d.Operation()); err != nil || o.Status != "Canceled" {
			t.Errorf("%+v, %v", o, err)
		}

		// Its source goes away before it is copied.
		s, _, err := h.PutSnapshot(ctx, h.snapshotOf("kept", diskID("data")))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(h.images, "data")); err != nil {
			t.Fatal(err)
		}
		h.work()
		if err := h.Await(ctx, s.Operation()); !problem.Is(err, "DiskImageNotFound") {
			t.Errorf("%v", err)
		}
		o, err = h.Operation(ctx, s.Operation())
		if err != nil || o.Status != "Failed" || !problem.Is(o.Error, "DiskImageNotFound") || strings.Contains(o.Error.Message, h.images) {
			t.Errorf("%+v, %v", o, err)
		}
		if _, err := h.Snapshot(ctx, snapshotID("kept")); problem.KindOf(err) != problem.NotFound {
			t.Errorf("what could not be made: %v", err)
		}
		h.denied = compute.SnapshotType + "/read"
		_, err = h.Operation(ctx, s.Operation())
		wantProblem(t, err, problem.Denied, "AuthorizationFailed")
		if left := h.copies(); len(left) != 0 {
			t.Errorf("files %v", left)
		}
	})
}

// A copy whose process died in the middle is made from the start, over what the first attempt has left.
func TestCopyIsMadeAgain(t *testing.T) {
	h, ctx := newHost(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/kluis.db")), t.Context()
	content := h.filled("data", 1<<20)
	s, _, err := h.PutSnapshot(ctx, h.snapshotOf("kept", diskID("data")))
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(h.restore, "copies")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, s.Properties.UniqueID)
	for _, left := range []string{path, filepath.Join(folder, "."+s.Properties.UniqueID+".restoring")} {
		if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.work()
	if err := h.Await(ctx, s.Operation()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) || len(h.copies()) != 1 {
		t.Errorf("%d bytes, %v, files %v", len(got), err, h.copies())
	}
}
