package compute_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/problem"
)

// forAnHour is what a client asks for.
var forAnHour = compute.AccessRequest{Access: "Read", Seconds: 3600}

// filled registers a raw disk with content.
func (h *host) filled(name string, size int) (content []byte) {
	h.t.Helper()
	content = make([]byte, size)
	r := rand.NewChaCha8([32]byte([]byte("the content of a disk in a test!")))
	_, _ = r.Read(content)
	clear(content[size/4 : size/2])
	uri := h.file(name, int64(size))
	if err := os.WriteFile(filepath.Join(h.images, name), content, 0o600); err != nil {
		h.t.Fatal(err)
	}
	if _, _, err := h.PutDisk(h.t.Context(), h.disk(name, uri)); err != nil {
		h.t.Fatal(err)
	}
	return content
}

func (h *host) mustBegin(id armid.ID, r compute.AccessRequest) compute.Access {
	h.t.Helper()
	a, err := h.BeginAccess(h.t.Context(), id, r)
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

func (h *host) mustURL(a compute.Access) *url.URL {
	h.t.Helper()
	text, err := h.AccessURL(h.t.Context(), a.ID)
	if err != nil {
		h.t.Fatal(err)
	}
	u, err := url.Parse(text)
	if err != nil {
		h.t.Fatal(err)
	}
	return u
}

// openURL opens what a URL names, as the door does.
func (h *host) openURL(u *url.URL) (*compute.Shared, error) {
	account, suffix, _ := strings.Cut(u.Host, ".")
	if suffix != "blob.localhost:8443" {
		h.t.Errorf("the host is %s", u.Host)
	}
	container, blob, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	return h.OpenShared(h.t.Context(), account, container, blob, u.Query().Get("si"), u.Query().Get("sig"))
}

func (h *host) wantState(disk, want string) {
	h.t.Helper()
	d, err := h.Disk(h.t.Context(), diskID(disk))
	if err != nil {
		h.t.Fatal(err)
	}
	all, err := h.Disks(h.t.Context(), group)
	if err != nil {
		h.t.Fatal(err)
	}
	listed := ""
	for _, other := range all {
		if other.ID.Equal(d.ID) {
			listed = other.Properties.DiskState
		}
	}
	if got := d.Properties.DiskState; got != want || listed != want {
		h.t.Errorf("disk %s is %s, and %s in the list; want %s", disk, got, listed, want)
	}
}

func TestAccess(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		content := h.filled("data", 1<<20)
		h.mustPutDisk("os")
		a := h.mustBegin(diskID("DATA"), forAnHour)
		h.wantState("data", "ActiveSAS")

		// Its URL is all that is needed to read it.
		u := h.mustURL(a)
		disk, err := h.openURL(u)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(disk, 0, disk.Size))
		if err != nil || len(got) != len(content)+512 || !bytes.Equal(got[:len(content)], content) {
			t.Errorf("%d bytes that are not the disk's, %v", len(got), err)
		}
		again, err := h.openURL(u)
		if err != nil || again.ETag != disk.ETag || again.Size != disk.Size {
			t.Errorf("opened again: %+v, %v", again, err)
		}
		if err := errors.Join(again.Close(), again.Close()); err != nil {
			t.Error(err)
		}

		// While it is good, no VM gets the disk, and it is not deleted; its settings can change.
		_, err = h.DeleteDisk(ctx, diskID("data"))
		wantProblem(t, err, problem.Conflict, "OperationNotAllowed")
		_, _, err = h.PutVM(ctx, h.vm("vm", "os", "data"))
		wantProblem(t, err, problem.Conflict, "OperationNotAllowed")
		changed, err := h.ChangeDisk(ctx, diskID("data"), []byte(`{"tags":{"x":"y"}}`))
		if err != nil || changed.Properties.DiskState != "ActiveSAS" {
			t.Errorf("changed: %+v, %v", changed.Properties, err)
		}

		// Who asks again gets the same URL, for as long as the longer of both.
		longer := forAnHour
		longer.Seconds *= 3
		if b := h.mustBegin(diskID("data"), longer); b.ID != a.ID || !b.Expires.Equal(start.Add(3*time.Hour)) {
			t.Errorf("a second grant: %+v", b)
		}
		if b := h.mustBegin(diskID("data"), forAnHour); b.ID != a.ID || !b.Expires.Equal(start.Add(3*time.Hour)) {
			t.Errorf("a third grant: %+v", b)
		}

		// Once it is revoked nobody reads, also who was reading.
		if err := h.EndAccess(ctx, diskID("data")); err != nil {
			t.Fatal(err)
		}
		if n, err := disk.ReadAt(make([]byte, 10), 0); err == nil {
			t.Errorf("%d bytes were read after the end", n)
		}
		for range disk.Extents(ctx) {
			if _, err := disk.ReadAt(nil, 0); err == nil {
				t.Error("extents were read after the end")
			}
			break
		}
		_, err = h.openURL(u)
		wantProblem(t, err, problem.Denied, "AuthenticationFailed")
		_, err = h.AccessURL(ctx, a.ID)
		wantProblem(t, err, problem.NotFound, "NotFound")
		h.wantState("data", "Unattached")
		h.mustPutVM(h.vm("vm", "os", "data"))
		if err := h.EndAccess(ctx, diskID("data")); err != nil {
			t.Errorf("revoked again: %v", err)
		}

		// A disk that a VM has can be read, too: the VM is at rest. The VM can still be changed.
		b := h.mustBegin(diskID("data"), forAnHour)
		bURL := h.mustURL(b)
		if b.ID == a.ID {
			t.Error("a revoked grant has come back")
		}
		h.wantState("data", "ActiveSAS")
		h.mustPutVM(h.vm("vm", "os", "data"))

		// When its time is over it is as if it had never been.
		h.now = start.Add(time.Hour)
		_, err = h.openURL(bURL)
		wantProblem(t, err, problem.Denied, "AuthenticationFailed")
		h.wantState("data", "Attached")
		if err := h.DropExpired(ctx); err != nil {
			t.Error(err)
		}
		if c := h.mustBegin(diskID("data"), forAnHour); c.ID == b.ID {
			t.Error("an expired grant has come back")
		}
	})
}

func TestAccessRefused(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		h.mustPutDisk("os")
		for _, test := range []struct {
			request compute.AccessRequest
			kind    problem.Kind
			code    string
		}{
			{compute.AccessRequest{Access: "Write", Seconds: 60}, problem.Unsupported, "OperationNotSupported"},
			{compute.AccessRequest{Access: "None", Seconds: 60}, problem.Invalid, "InvalidParameter"},
			{compute.AccessRequest{Seconds: 60}, problem.Invalid, "InvalidParameter"},
			{compute.AccessRequest{Access: "Read"}, problem.Invalid, "InvalidParameter"},
			{compute.AccessRequest{Access: "Read", Seconds: -1}, problem.Invalid, "InvalidParameter"},
			{compute.AccessRequest{Access: "Read", Seconds: 60*24*3600 + 1}, problem.Invalid, "InvalidParameter"},
			{compute.AccessRequest{Access: "Read", Seconds: 60, FileFormat: "VHDX"}, problem.Unsupported, "OperationNotSupported"},
			{compute.AccessRequest{Access: "Read", Seconds: 60, GuestState: true}, problem.Unsupported, "OperationNotSupported"},
		} {
			_, err := h.BeginAccess(ctx, diskID("os"), test.request)
			wantProblem(t, err, test.kind, test.code)
		}
		_, err := h.BeginAccess(ctx, diskID("none"), forAnHour)
		wantProblem(t, err, problem.NotFound, "ResourceNotFound")
		wantProblem(t, h.EndAccess(ctx, diskID("none")), problem.NotFound, "ResourceNotFound")
		for _, id := range []string{"none", "", "a\x00b", "00000000-0000-4000-8000-00000000ffff"} {
			_, err := h.AccessURL(ctx, id)
			wantProblem(t, err, problem.NotFound, "NotFound")
		}
		h.wantState("os", "Unattached")

		// Rights: to grant, to revoke, and to be told the URL.
		a := h.mustBegin(diskID("os"), forAnHour)
		for action, do := range map[string]func() error{
			"beginGetAccess": func() error { _, err := h.BeginAccess(ctx, diskID("os"), forAnHour); return err },
			"endGetAccess":   func() error { return h.EndAccess(ctx, diskID("os")) },
		} {
			h.denied = compute.DiskType + "/" + action + "/action"
			wantProblem(t, do(), problem.Denied, "AuthorizationFailed")
		}
		h.denied = compute.DiskType + "/beginGetAccess/action"
		_, err = h.AccessURL(ctx, a.ID)
		wantProblem(t, err, problem.Denied, "AuthorizationFailed")
		h.denied = ""

		// A URL is good as a whole, or not at all.
		u := h.mustURL(a)
		for name, change := range map[string]func(*url.URL, url.Values){
			"host":             func(u *url.URL, _ url.Values) { u.Host = "md-1" + u.Host[4:] },
			"container":        func(u *url.URL, _ url.Values) { u.Path = "/other/abcd" },
			"blob":             func(u *url.URL, _ url.Values) { u.Path = strings.TrimSuffix(u.Path, "abcd") + "abc" },
			"signature":        func(_ *url.URL, q url.Values) { q.Set("sig", strings.Repeat("A", 43)+"=") },
			"no signature":     func(_ *url.URL, q url.Values) { q.Del("sig") },
			"broken signature": func(_ *url.URL, q url.Values) { q.Set("sig", "?") },
			"grant":            func(_ *url.URL, q url.Values) { q.Set("si", "00000000-0000-4000-8000-00000000ffff") },
			"no grant":         func(_ *url.URL, q url.Values) { q.Set("si", "\xff\x00") },
		} {
			wrong, q := *u, u.Query()
			change(&wrong, q)
			wrong.RawQuery = q.Encode()
			if _, err := h.openURL(&wrong); !problem.Is(err, "AuthenticationFailed") {
				t.Errorf("with another %s: %v", name, err)
			}
		}
	})
}

// An image that somebody writes to is not shown, and one that was written to is not shown as if it were the same.
func TestAccessToWhatIsWritten(t *testing.T) {
	h, ctx := newHost(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/kluis.db")), t.Context()
	h.filled("data", 1<<20)
	path := filepath.Join(h.images, "data")
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	running := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart, Start: 101, Len: 1} // as QEMU says that it writes
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &running); err != nil {
		t.Fatal(err)
	}
	_, err = h.BeginAccess(ctx, diskID("data"), forAnHour)
	wantProblem(t, err, problem.Conflict, "DiskImageInUse")
	h.wantState("data", "Unattached")
	running.Type = unix.F_UNLCK
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &running); err != nil {
		t.Fatal(err)
	}

	u := h.mustURL(h.mustBegin(diskID("data"), forAnHour))
	before, err := h.openURL(u)
	if err != nil {
		t.Fatal(err)
	}
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, start, start); err != nil {
		t.Fatal(err)
	}
	_, err = h.openURL(u)
	wantProblem(t, err, problem.Conflict, "DiskImageChanged")
	after, err := h.openURL(u)
	if err != nil || after.ETag == before.ETag {
		t.Errorf("the image that was written to has the etag %q, as before: %v", after.ETag, err)
	}
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	_, err = h.openURL(u)
	wantProblem(t, err, problem.Conflict, "DiskImageChanged")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err = h.openURL(u)
	wantProblem(t, err, problem.Conflict, "DiskImageNotFound")
}

func TestSignaturesAreSealedAnew(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		h.mustPutDisk("os")
		a := h.mustBegin(diskID("os"), forAnHour)
		before := h.mustURL(a).String()
		if n, err := h.Reseal(ctx, h.root.Mark()); n != 0 || err != nil {
			t.Errorf("%d sealed anew, %v", n, err)
		}
		if err := h.root.Rotate(); err != nil {
			t.Fatal(err)
		}
		if n, err := h.Reseal(ctx, h.root.Mark()); n != 1 || err != nil {
			t.Errorf("%d sealed anew, %v", n, err)
		}
		if after := h.mustURL(a).String(); after != before {
			t.Errorf("the URL was %s and is %s", before, after)
		}
	})
}
