package live_test

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// While the guest is off somebody writes to its image behind QEMU's back. The bitmap knows nothing of it, and nothing
// else does: same file, same size, a checkpoint that is whole. The audit finds it, the disk is read as a whole, and that
// is said loudly.
func TestBitmapThatLies(t *testing.T) {
	w := newWorld(t, "lies")
	w.point(w.begin())
	w.stop()
	scribble(t, w.image)
	job := w.begin()
	j, err := w.WaitJob(t.Context(), w.vault, job, nil)
	if err != nil {
		t.Fatal(err)
	}
	if j.Properties.Status != "CompletedWithWarnings" {
		t.Errorf("the job is %s", j.Properties.Status)
	}
	if said, err := json.Marshal(j.Properties.ErrorDetails); err != nil || !strings.Contains(string(said), "UserErrorChangeTrackingNotTrusted") {
		t.Errorf("the job says %s %v", said, err)
	}
	p, err := w.RecoveryPoint(t.Context(), w.item.ARMID(), j.Properties.Bag("Recovery Point Id"))
	if err != nil {
		t.Fatal(err)
	}
	if d := p.Properties.Disks[0]; d.Incremental || d.Rescanned == "" {
		t.Errorf("the disk was read in increments: %t, %q", d.Incremental, d.Rescanned)
	}
	w.equals(p)
	w.clean()
}

// luksHeader is as long as the header of a LUKS2 volume: what opens the disk stays as it is.
const luksHeader = 16 << 20

// scribble writes over all data of a qcow2 image but the header of what is in it, where it lies in the file. It must be
// so much that an audit, which looks at a few chunks, cannot miss it.
func scribble(t *testing.T, image string) {
	t.Helper()
	said, err := exec.CommandContext(t.Context(), "qemu-img", "map", "--output=json", image).Output()
	if err != nil {
		t.Fatal(err)
	}
	var extents []struct {
		Start, Length, Offset int64
		Data                  bool
	}
	if err := json.Unmarshal(said, &extents); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var written int64
	for _, e := range extents {
		if !e.Data || e.Start < luksHeader {
			continue
		}
		b := make([]byte, e.Length)
		_, _ = rand.Read(b)
		if _, err := f.WriteAt(b, e.Offset); err != nil {
			t.Fatal(err)
		}
		written += e.Length
	}
	if written < 4<<20 {
		t.Fatalf("the image holds only %d bytes behind the header", written)
	}
}
