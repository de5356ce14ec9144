package compute_test

import (
	"net/url"
	"strings"
	"testing"
)

// A grant is followed as clients follow Azure's: one address tells that it is over, the other has the URL.
func TestGrantIsFollowed(t *testing.T) {
	d := open(t, sqlite(t))
	d.want(200, d.send("PUT", disks+"os", "", diskBody("/images/os")))
	a := d.want(202, d.send("POST", disks+"os/beginGetAccess", "", `{"access":"Read","durationInSeconds":60}`))
	if a.raw != "" || a.header.Get("Retry-After") == "" {
		t.Errorf("answer %q, %v", a.raw, a.header)
	}
	follow := func(header string) answer {
		t.Helper()
		u, err := url.Parse(a.header.Get(header))
		if err != nil || !strings.HasPrefix(u.Path, subscription+"/providers/Microsoft.Compute/locations/westeurope/DiskOperations/") {
			t.Fatalf("%s: %q, %v", header, u, err)
		}
		q := u.Query()
		q.Del("api-version")
		return d.want(200, d.send("GET", u.Path, q.Encode(), nil))
	}
	location, status := follow("Location"), follow("Azure-AsyncOperation")
	sas, _ := location.body["accessSAS"].(string)
	if !strings.HasPrefix(sas, "https://md-") || at(status.body, "status") != "Succeeded" || at(status.body, "properties", "output", "accessSAS") != sas {
		t.Errorf("%s\n%s", location.raw, status.raw)
	}
	if got := d.want(200, d.send("GET", disks+"os", "", nil)); at(got.body, "properties", "diskState") != "ActiveSAS" {
		t.Errorf("disk %s", got.raw)
	}
	if a := d.want(409, d.send("DELETE", disks+"os", "", nil)); at(a.body, "error", "code") != "OperationNotAllowed" {
		t.Errorf("delete: %s", a.raw)
	}
	d.want(200, d.send("POST", disks+"os/endGetAccess", "", nil))
	u, _ := url.Parse(a.header.Get("Location"))
	if a := d.want(404, d.send("GET", u.Path, "monitor=true", nil)); at(a.body, "error", "code") != "NotFound" {
		t.Errorf("after the end: %s", a.raw)
	}
	d.want(200, d.send("DELETE", disks+"os", "", nil))
}

func TestGrantRefused(t *testing.T) {
	d := open(t, sqlite(t))
	d.want(200, d.send("PUT", disks+"os", "", diskBody("/images/os")))
	for body, code := range map[string]string{
		`{"access":"Write","durationInSeconds":60}`:                    "OperationNotSupported",
		`{"access":"Read","durationInSeconds":60,"fileFormat":"VHDX"}`: "OperationNotSupported",
		`{"access":"Read"}`: "InvalidParameter",
		`{"access":"Read","durationInSeconds":99999999999999999999999}`: "InvalidRequestContent",
		`{"access":7}`: "InvalidRequestContent",
	} {
		if a := d.want(400, d.send("POST", disks+"os/beginGetAccess", "", body)); at(a.body, "error", "code") != code {
			t.Errorf("%s: %s", body, a.raw)
		}
	}
	d.want(404, d.send("POST", disks+"none/beginGetAccess", "", `{"access":"Read","durationInSeconds":60}`))
	d.want(404, d.send("POST", disks+"none/endGetAccess", "", nil))
}
