package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kluis/internal/client"
)

// A server that is killed in the middle of a backup goes on with it when it is started again, stores
// nothing twice, and the earlier recovery point is as it was.
func TestKillInBackup(t *testing.T) {
	eachDatabase(t, func(t *testing.T, url string) {
		s := newServer(t, url, "--workers", "1")
		m := newMachine(t, s, 192) // several packs
		ctx := soon(t)
		item := m.enable(ctx, t)
		first := m.backUp(ctx, t, item)

		m.rewrite(ctx, t, 192)
		id := must[string](t)(s.Backup(ctx, item.ARMID(), ""))
		packs := m.packs(t)
		waitUntil(ctx, t, func() bool { return m.packs(t) > packs })
		s.kill()

		s.start()
		j := must[client.Job](t)(s.WaitJob(ctx, m.vault, id, nil))
		if err := j.Properties.Err(); err != nil {
			t.Fatalf("the backup that was killed ended as: %v", err)
		}
		if n := number(t, j, "Bytes reused"); n < 16<<20 {
			t.Errorf("after the kill only %d bytes were reused", n)
		}
		m.checkPoints(ctx, t, item, first, j)
	})
}

// The same a moment later: killed at many moments of a backup, every job ends well, and no moment leaves
// anything that needs a hand.
func TestKillAtManyMoments(t *testing.T) {
	s := newServer(t, "", "--workers", "1")
	m := newMachine(t, s, 24)
	ctx := soon(t)
	item := m.enable(ctx, t)
	jobs := []client.Job{m.backUp(ctx, t, item)}
	for i := range 8 {
		m.change(t)
		id := must[string](t)(s.Backup(ctx, item.ARMID(), ""))
		moment := time.NewTimer(time.Duration(i*60) * time.Millisecond)
		<-moment.C
		s.kill()
		s.start()
		j := must[client.Job](t)(s.WaitJob(ctx, m.vault, id, nil))
		if err := j.Properties.Err(); err != nil {
			t.Fatalf("backup %d ended as: %v", i, err)
		}
		jobs = append(jobs, j)
	}
	m.checkPoints(ctx, t, item, jobs...)
}

// A server that is killed in the middle of a restore goes on with it when it is started again. A disk that is
// only half written has never its name, and of the dead attempt nothing is left.
func TestKillInRestore(t *testing.T) {
	eachDatabase(t, func(t *testing.T, url string) {
		s := newServer(t, url, "--workers", "1")
		m := newMachine(t, s, 192)
		ctx := soon(t)
		item := m.enable(ctx, t)
		first := m.backUp(ctx, t, item)
		must[client.Group](t)(s.PutGroup(ctx, "back", location))
		id := must[string](t)(s.RestoreDisks(ctx, item, first.Properties.Bag("Recovery Point Id"),
			client.RestoreRequest{TargetGroup: s.Subscription().Group("back"), StorageAccount: m.account, Region: location}))
		disks := filepath.Join(s.dir, "disks", "back")
		waitUntil(ctx, t, func() bool { entries, _ := os.ReadDir(disks); return len(entries) > 0 })
		s.kill()
		entries := must[[]fs.DirEntry](t)(os.ReadDir(disks))
		half := 0
		for _, e := range entries {
			name, _, _ := strings.Cut(e.Name(), "-")
			if strings.HasPrefix(e.Name(), ".") {
				half++
			} else if !bytes.Equal(content(t, filepath.Join(disks, e.Name())), content(t, m.files[name])) {
				t.Errorf("%s has its name and is not whole", e.Name())
			}
		}
		t.Logf("killed with %d disks half written and %d whole", half, len(entries)-half)

		s.start()
		j := must[client.Job](t)(s.WaitJob(ctx, m.vault, id, nil))
		if err := j.Properties.Err(); err != nil {
			t.Fatalf("the restore that was killed ended as: %v", err)
		}
		m.checkRestored(ctx, t, "back")
		if entries := must[[]fs.DirEntry](t)(os.ReadDir(disks)); len(entries) != 2 {
			t.Errorf("the folder of the restored disks holds %v", entries)
		}
	})
}

// checkPoints makes sure that there is one proved recovery point for each job, and that the newest one
// restores what the VM's disks hold.
func (m *machine) checkPoints(ctx context.Context, t *testing.T, item client.Item, jobs ...client.Job) {
	t.Helper()
	points := must[[]client.Point](t)(m.s.RecoveryPoints(ctx, item.ARMID()))
	if len(points) != len(jobs) {
		t.Fatalf("%d recovery points for %d jobs", len(points), len(jobs))
	}
	for _, j := range jobs {
		checkProved(t, must[client.Point](t)(m.s.RecoveryPoint(ctx, item.ARMID(), j.Properties.Bag("Recovery Point Id"))))
	}
	must[client.Group](t)(m.s.PutGroup(ctx, "again", location))
	if err := m.restore(ctx, t, item, jobs[len(jobs)-1], "again"); err != nil {
		t.Fatal(err)
	}
	m.checkRestored(ctx, t, "again")
	for _, d := range must[[]client.Disk](t)(m.s.Disks(ctx, m.s.Subscription().Group("again"))) {
		if err := m.s.DeleteDisk(ctx, d.ARMID()); err != nil {
			t.Fatal(err)
		}
	}
}

// restore restores the disks of the recovery point that a backup left, and waits for the end.
func (m *machine) restore(ctx context.Context, t *testing.T, item client.Item, backup client.Job, to string) error {
	t.Helper()
	id := must[string](t)(m.s.RestoreDisks(ctx, item, backup.Properties.Bag("Recovery Point Id"),
		client.RestoreRequest{TargetGroup: m.s.Subscription().Group(to), StorageAccount: m.account, Region: location}))
	j, err := m.s.WaitJob(ctx, m.vault, id, nil)
	if err == nil {
		err = j.Properties.Err()
	}
	return err
}

// checkRestored makes sure that a group holds the machine's two disks as they are now, and nothing else.
func (m *machine) checkRestored(ctx context.Context, t *testing.T, in string) {
	t.Helper()
	disks := must[[]client.Disk](t)(m.s.Disks(ctx, m.s.Subscription().Group(in)))
	if len(disks) != 2 {
		t.Fatalf("%d restored disks", len(disks))
	}
	for _, d := range disks {
		name, _, _ := strings.Cut(d.Name, "-")
		if !bytes.Equal(content(t, imagePath(d)), content(t, m.files[name])) {
			t.Errorf("disk %s was restored differently", name)
		}
	}
}

func imagePath(d client.Disk) string {
	return strings.TrimPrefix(d.Properties.CreationData.SourceURI, "file://")
}

func number(t *testing.T, j client.Job, name string) (n int64) {
	t.Helper()
	if err := json.Unmarshal([]byte(j.Properties.Bag(name)), &n); err != nil {
		t.Errorf("job detail %q: %v", name, err)
	}
	return n
}

// packs counts the packs of the recovery stores.
func (m *machine) packs(t *testing.T) (n int) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(m.s.dir, "store", "stores"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(path, "/packs/") {
			n++
		}
		return nil // files come and go meanwhile
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func waitUntil(ctx context.Context, t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal("what was waited for did not happen")
		case <-tick.C:
		}
	}
}
