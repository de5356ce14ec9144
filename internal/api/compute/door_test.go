package compute_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"kluis/internal/api/arm"
	api "kluis/internal/api/compute"
	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/fabric"
	"kluis/internal/identity"
	"kluis/internal/job"
)

const (
	subscription = "/subscriptions/00000000-0000-0000-0000-000000000000"
	group        = subscription + "/resourceGroups/rg"
	disks        = group + "/providers/Microsoft.Compute/disks/"
	machines     = group + "/providers/Microsoft.Compute/virtualMachines/"
)

// world answers for everything that the service asks of other rooms: all is allowed, every file is a
// disk of 2 GiB, except those that are missing.
type world struct{}

func (world) Authorize(context.Context, string, armid.ID) error { return nil }
func (world) GroupExists(context.Context, string) error         { return nil }
func (world) Remove(context.Context, string) error              { return nil }
func (world) Inspect(_ context.Context, path string) (compute.Image, error) {
	if strings.Contains(path, "missing") {
		return compute.Image{}, &fabric.ImageError{Path: path, Kind: fabric.Missing, Err: os.ErrNotExist}
	}
	return compute.Image{Path: path, Format: "raw", Size: 2 << 30}, nil
}

func (world) Snapshot(context.Context, fabric.VM, fabric.Checkpoint) (fabric.Snapshot, error) {
	return blank{}, nil
}

func (world) CopyPath(dir, name string) (string, error) { return "/copies/" + name, nil }
func (world) Copy(_ context.Context, from fabric.DiskSpec, _, _ string, progress func(done, total int64)) error {
	if strings.Contains(from.Path, "large") {
		return &fabric.ImageError{Path: from.Path, Kind: fabric.NoSpace}
	}
	progress(1, 1)
	return nil
}

// plain keeps what others seal.
type plain struct{}

func (plain) Seal(_ string, b []byte) ([]byte, error) { return bytes.Clone(b), nil }
func (plain) Open(_ string, b []byte) ([]byte, error) { return bytes.Clone(b), nil }

// blank is a snapshot of one disk that nothing is read of.
type blank struct {
	fabric.Snapshot
	fabric.Disk
}

func (b blank) Disks() []fabric.Disk      { return []fabric.Disk{b} }
func (blank) Size() int64                 { return 2 << 30 }
func (blank) Close(context.Context) error { return nil }

type door struct {
	t      *testing.T
	router *arm.Router
}

func open(t *testing.T, db *database.DB) *door { return openWith(t, db, nil) }

func openWith(t *testing.T, db *database.DB, keys api.Keys) *door {
	jobs := job.NewQueue(db, time.Now, uuid.NewString)
	s := compute.New(compute.Options{DB: db, Jobs: jobs, Authorizer: world{}, Groups: world{}, Images: world{}, NewID: uuid.NewString,
		Seal: plain{}, Rand: rand.Reader, BlobSuffix: "blob.localhost",
		Now: func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }})
	router, err := arm.NewRouter(arm.RouterOptions{
		Authenticate: func(ctx context.Context, _ *http.Request) (context.Context, error) {
			return identity.With(ctx, identity.Principal{ObjectID: "o"}), nil
		},
		Logger: slog.New(slog.DiscardHandler), NewID: uuid.NewString,
	}, api.Provider(s, keys), api.Classic())
	if err != nil {
		t.Fatal(err)
	}
	works, err := job.StartRunner(t.Context(), jobs, job.Options{Node: "here", Workers: 1, Lease: time.Minute, Now: time.Now, Log: slog.New(slog.DiscardHandler)}, s.Works()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(works.Stop)
	return &door{t, router}
}

func sqlite(t *testing.T) *database.DB {
	t.Helper()
	db := databasetest.Open(t, "sqlite:"+filepath.Join(t.TempDir(), "db"))
	return db
}

type answer struct {
	status int
	header http.Header
	body   map[string]any
	raw    string
}

// send makes a request; query is without api-version.
func (d *door) send(method, path, query string, body any) answer {
	d.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			d.t.Fatal(err)
		}
		r = bytes.NewReader(encoded)
	}
	url := "https://localhost" + path + "?api-version=2024-03-01"
	if query != "" {
		url += "&" + query
	}
	w := httptest.NewRecorder()
	d.router.ServeHTTP(w, httptest.NewRequest(method, url, r))
	a := answer{status: w.Code, header: w.Header(), raw: w.Body.String()}
	if a.raw != "" {
		if err := json.Unmarshal(w.Body.Bytes(), &a.body); err != nil {
			d.t.Fatalf("%s %s answers what is not JSON: %v\n%s", method, path, err, a.raw)
		}
	}
	return a
}

func (d *door) want(status int, a answer) answer {
	d.t.Helper()
	if a.status != status {
		d.t.Fatalf("status %d, want %d: %s", a.status, status, a.raw)
	}
	return a
}

func diskBody(path string) string {
	return fmt.Sprintf(`{"location":"westeurope","properties":{"osType":"Linux","creationData":{"createOption":"Import","sourceUri":"file://%s"}}}`, path)
}

func vmBody(osDisk string) string {
	return fmt.Sprintf(`{"location":"westeurope","properties":{"storageProfile":{"osDisk":{"osType":"Linux","createOption":"Attach","managedDisk":{"id":%q}}}}}`, disks+osDisk)
}

// at follows a path of keys through a document.
func at(v any, path ...string) any {
	for _, key := range path {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	return v
}

func TestDisksAndMachines(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		d := open(t, db)
		a := d.want(200, d.send("PUT", disks+"os", "", diskBody("/images/os.raw")))
		if at(a.body, "properties", "provisioningState") != "Succeeded" || at(a.body, "properties", "diskState") != "Unattached" || a.body["id"] != disks+"os" {
			t.Errorf("disk %s", a.raw)
		}
		d.want(200, d.send("PUT", disks+"os", "", diskBody("/images/os.raw")))
		d.want(201, d.send("PUT", machines+"vm", "", vmBody("os")))
		d.want(200, d.send("PUT", machines+"vm", "", vmBody("os")))

		// Any case of the path, one spelling in the answer.
		a = d.want(200, d.send("GET", strings.ToLower(machines+"VM"), "", nil))
		if a.body["id"] != machines+"vm" || a.body["type"] != "Microsoft.Compute/virtualMachines" || at(a.body, "properties", "instanceView") != nil {
			t.Errorf("VM %s", a.raw)
		}
		a = d.want(200, d.send("GET", disks+"os", "", nil))
		if a.body["managedBy"] != machines+"vm" || at(a.body, "properties", "diskState") != "Attached" {
			t.Errorf("attached disk %s", a.raw)
		}
		for _, expand := range []string{"$expand=instanceView", "%24Expand=userData,instanceview"} {
			a = d.want(200, d.send("GET", machines+"vm", expand, nil))
			if at(a.body, "properties", "instanceView", "vmAgent") == nil || at(a.body, "properties", "vmId") == nil {
				t.Errorf("%s: VM %s", expand, a.raw)
			}
		}
		a = d.want(200, d.send("GET", machines+"vm/instanceView", "", nil))
		if at(a.body, "vmAgent") == nil {
			t.Errorf("instance view %s", a.raw)
		}
		// What was got can be put, and the view does not stick.
		d.want(200, d.send("PUT", machines+"vm", "", d.send("GET", machines+"vm", "$expand=instanceView", nil).body))
		if a := d.send("GET", machines+"vm", "", nil); at(a.body, "properties", "instanceView") != nil {
			t.Errorf("the instance view was kept: %s", a.raw)
		}

		for _, scope := range []string{group, subscription} {
			for kind, expanded := range map[string]bool{"disks": false, "virtualMachines": false, "virtualMachines&$expand=instanceView": true} {
				kind, query, _ := strings.Cut(kind, "&")
				a := d.want(200, d.send("GET", scope+"/providers/Microsoft.Compute/"+kind, query, nil))
				value, _ := a.body["value"].([]any)
				if len(value) != 1 || (at(value[0], "properties", "instanceView") != nil) != expanded {
					t.Errorf("%s of %s: %s", kind, scope, a.raw)
				}
			}
		}
		a = d.want(200, d.send("GET", subscription+"/resourceGroups/empty/providers/Microsoft.Compute/disks", "", nil))
		if a.raw != `{"value":[]}`+"\n" && a.raw != `{"value":[]}` {
			t.Errorf("empty list %q", a.raw)
		}

		if a := d.send("DELETE", disks+"os", "", nil); a.status != 409 || at(a.body, "error", "code") != "OperationNotAllowed" {
			t.Errorf("delete of an attached disk: %d %s", a.status, a.raw)
		}
		d.want(200, d.send("DELETE", machines+"vm", "", nil))
		d.want(204, d.send("DELETE", machines+"vm", "", nil))
		d.want(200, d.send("DELETE", disks+"os", "", nil))
		d.want(204, d.send("DELETE", disks+"os", "", nil))
	})
}

func TestRefusals(t *testing.T) {
	d := open(t, sqlite(t))
	for _, test := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", machines + "none", "", 404, "ResourceNotFound"},
		{"GET", machines + "none/instanceView", "", 404, "ResourceNotFound"},
		{"GET", disks + "none", "", 404, "ResourceNotFound"},
		{"GET", machines + "none/extensions", "", 404, "ResourceNotFound"},
		{"GET", machines + "none/extensions/e", "", 404, "ResourceNotFound"},
		{"PUT", machines + "none/extensions/e", `{"location":"x","properties":{"publisher":"p","type":"t"}}`, 404, "ResourceNotFound"},
		{"PUT", machines + "none/extensions/e", `{"location":"x","properties":{"publisher":"p"}}`, 404, "ResourceNotFound"},
		{"PUT", disks + "d", `{`, 400, "InvalidRequestContent"},
		{"PUT", disks + "d", ``, 400, "InvalidRequestContent"},
		{"PUT", disks + "d", `[]`, 400, "InvalidRequestContent"},
		{"PUT", disks + "d", `{"properties":{"creationData":7}}`, 400, "InvalidRequestContent"},
		{"PUT", machines + "v", `{"location":"x","properties":{"storageProfile":{"osDisk":{"managedDisk":{"id":"no id"}}}}}`, 400, "InvalidRequestContent"},
		{"PUT", disks + "d", diskBody("/images/missing"), 400, "DiskImageNotFound"},
		{"PUT", disks + "d", `{"location":"x","properties":{"creationData":{"createOption":"Empty"}}}`, 400, "OperationNotSupported"},
		{"PATCH", disks + "none", `{}`, 404, "ResourceNotFound"},
		{"PATCH", machines + "none", `{}`, 404, "ResourceNotFound"},
		{"POST", machines + "none/start", ``, 404, "ResourceNotFound"},
		{"POST", machines + "none/deallocate", ``, 404, "ResourceNotFound"},
	} {
		a := d.send(test.method, test.path, "", test.body)
		if a.status != test.status || at(a.body, "error", "code") != test.code || at(a.body, "error", "message") == nil {
			t.Errorf("%s %s %s: %d %s, want %d %s", test.method, test.path, test.body, a.status, a.raw, test.status, test.code)
		}
	}
}

func TestClassic(t *testing.T) {
	d := open(t, sqlite(t))
	classic := group + "/providers/Microsoft.ClassicCompute/virtualMachines"
	if a := d.send("GET", classic+"/vm", "", nil); a.status != 404 || at(a.body, "error", "code") != "ResourceNotFound" {
		t.Errorf("classic VM: %d %s", a.status, a.raw)
	}
	d.want(200, d.send("GET", classic, "", nil))
	if a := d.send("PUT", classic+"/vm", "", `{}`); a.status != 405 {
		t.Errorf("put of a classic VM: %d %s", a.status, a.raw)
	}
}

// What only a running guest's agent can tell, and extensions, which do not exist here.
var notTold = []string{"properties.instanceView.computerName", "properties.instanceView.osName", "properties.instanceView.osVersion",
	"properties.instanceView.hyperVGeneration", "properties.instanceView.extensions", "properties.instanceView.vmAgent.extensionHandlers", "resources"}

// A VM that Azure showed, put here with its disk, comes back with all that Azure showed of it.
func TestAnswersCoverTheRecordedOnes(t *testing.T) {
	for _, name := range []string{"vm-get-instanceview", "ade-vm-get-instanceview"} {
		t.Run(name, func(t *testing.T) {
			d := open(t, sqlite(t))
			b, err := os.ReadFile(filepath.Join("testdata", "recorded", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			var recorded struct {
				Response struct {
					Status int
					Body   map[string]any
				}
			}
			if err := json.Unmarshal(b, &recorded); err != nil {
				t.Fatal(err)
			}
			vm := recorded.Response.Body
			path, _ := vm["id"].(string)
			disk, _ := at(vm, "properties", "storageProfile", "osDisk", "managedDisk", "id").(string)
			body := map[string]any{"location": vm["location"], "properties": map[string]any{"creationData": map[string]any{"createOption": "Import", "sourceUri": "file:///images/os.vhd"}}}
			if views, _ := at(vm, "properties", "instanceView", "disks").([]any); at(views[0], "encryptionSettings") != nil {
				shown, _ := at(views[0], "encryptionSettings").([]any)
				body["properties"].(map[string]any)["encryptionSettingsCollection"] = map[string]any{"enabled": true, "encryptionSettingsVersion": "1.1", "encryptionSettings": shown}
			}
			d.want(200, d.send("PUT", disk, "", body))
			sent := d.clone(vm)
			osDisk, _ := at(sent, "properties", "storageProfile", "osDisk").(map[string]any)
			osDisk["createOption"] = "Attach"
			d.want(201, d.send("PUT", path, "", sent))
			got := d.want(recorded.Response.Status, d.send("GET", path, "$expand=instanceView", nil))
			cover(t, "", vm, got.body)
		})
	}
}

func (d *door) clone(v map[string]any) (c map[string]any) {
	d.t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// cover fails for every key of want that got lacks, in lists by their first elements.
func cover(t *testing.T, path string, want, got any) {
	t.Helper()
	if slices.Contains(notTold, path) {
		return
	}
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			t.Errorf("%s is %v, want an object", path, got)
			return
		}
		for key, v := range w {
			below := strings.TrimPrefix(path+"."+key, ".")
			if _, there := g[key]; !there && !slices.Contains(notTold, below) {
				t.Errorf("%s is missing", below)
				continue
			}
			cover(t, below, v, g[key])
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) < len(w) {
			t.Errorf("%s is %v, want a list of %d", path, got, len(w))
			return
		}
		for i := range w {
			cover(t, path, w[i], g[i])
		}
	}
}
