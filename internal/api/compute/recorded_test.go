package compute_test

import (
	"net/url"
	"strings"
	"testing"

	"kluis/internal/api/openapitest"
)

// replayed are the recorded requests about extensions, in their order: encryption is switched on, looked at, and off.
var replayed = []struct {
	name string
	not  map[string]string // key -> why it is not in our answer
}{
	{"ade-extension-put-201", nil},
	{"ade-extension-get-instanceview", map[string]string{"properties.instanceView": "nothing is installed in the guest, so there is nobody who could tell how it went"}},
	{"ade-extension-disable-200", nil},
}

// What az sent to the real service about the extension that encrypts disks is answered here as there, but for the
// operation to follow: an extension is data, and noted when it is answered.
func TestRecordedRequestsAreAnsweredAlike(t *testing.T) {
	recorded := openapitest.Recordings(t)
	d := open(t, sqlite(t))
	d.want(200, d.send("PUT", disks+"os", "", diskBody("/images/os.raw")))
	for _, c := range replayed {
		t.Run(c.name, func(t *testing.T) {
			rec := recorded[c.name]
			u, err := url.Parse(rec.Request.URI)
			if err != nil {
				t.Fatal(err)
			}
			vm, _, _ := strings.Cut(u.Path, "/extensions/")
			if a := d.send("PUT", vm, "", vmBody("os")); a.status > 201 {
				t.Fatalf("the VM: %s", a.raw)
			}
			a := d.send(rec.Request.Method, u.Path, u.Query().Encode(), string(rec.Request.Body))
			if a.status != rec.Response.Status {
				t.Fatalf("status %d, recorded %d: %s", a.status, rec.Response.Status, a.raw)
			}
			openapitest.Cover(t, c.not, rec.Response.Body, any(a.body))
		})
	}
}

// Every recording of the namespace is sent to us, or its answer is made (TestAnswersCoverTheRecordedOnes).
func TestNoRecordingIsForgotten(t *testing.T) {
	shown := map[string]bool{"ade-vm-get-instanceview": true, "vm-get-instanceview": true}
	for _, c := range replayed {
		shown[c.name] = true
	}
	for name, rec := range openapitest.Recordings(t) {
		if strings.Contains(strings.ToLower(rec.Request.URI), "/providers/microsoft.compute/") && !shown[name] {
			t.Errorf("%s is compared with nothing", name)
		}
	}
}
