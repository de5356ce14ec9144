package compute_test

import (
	"fmt"
	"net/url"
	"testing"
)

const snapshots = group + "/providers/Microsoft.Compute/snapshots/"

func copyBody(source string) string {
	return fmt.Sprintf(`{"location":"westeurope","properties":{"creationData":{"createOption":"Copy","sourceResourceId":%q}}}`, source)
}

// follow asks for an operation until it is over.
func (d *door) follow(a answer, header string) answer {
	d.t.Helper()
	u, err := url.Parse(a.header.Get(header))
	if err != nil || u.Path == "" {
		d.t.Fatalf("%s is %q, %v", header, u, err)
	}
	q := u.Query()
	q.Del("api-version")
	for {
		if a := d.send("GET", u.Path, q.Encode(), nil); a.status != 202 && at(a.body, "status") != "InProgress" {
			return a
		}
	}
}

// A snapshot is begun with its document and an operation, and the operation's outcome is the snapshot.
func TestSnapshotIsFollowed(t *testing.T) {
	d := open(t, sqlite(t))
	d.want(200, d.send("PUT", disks+"os", "", diskBody("/images/os")))
	a := d.want(202, d.send("PUT", snapshots+"kept", "", copyBody(disks+"os")))
	if at(a.body, "properties", "provisioningState") != "Creating" || at(a.body, "type") != "Microsoft.Compute/snapshots" {
		t.Errorf("begun: %s", a.raw)
	}
	if over := d.want(200, d.follow(a, "Azure-AsyncOperation")); at(over.body, "status") != "Succeeded" || at(over.body, "percentComplete") != 100.0 {
		t.Errorf("over: %s", over.raw)
	}
	if made := d.want(200, d.follow(a, "Location")); at(made.body, "properties", "provisioningState") != "Succeeded" || at(made.body, "name") != "kept" {
		t.Errorf("made: %s", made.raw)
	}
	d.want(200, d.send("PUT", snapshots+"kept", "", copyBody(disks+"os")))
	d.want(200, d.send("PATCH", snapshots+"kept", "", `{"tags":{"a":"b"}}`))
	if list := d.want(200, d.send("GET", subscription+"/providers/Microsoft.Compute/snapshots", "", nil)); len(list.body["value"].([]any)) != 1 {
		t.Errorf("list: %s", list.raw)
	}
	d.want(202, d.send("POST", snapshots+"kept/beginGetAccess", "", `{"access":"Read","durationInSeconds":60}`))
	d.want(409, d.send("DELETE", snapshots+"kept", "", nil))
	d.want(200, d.send("POST", snapshots+"kept/endGetAccess", "", nil))
	a = d.want(202, d.send("PUT", disks+"again", "", copyBody(snapshots+"kept")))
	if made := d.want(200, d.follow(a, "Location")); at(made.body, "type") != "Microsoft.Compute/disks" {
		t.Errorf("a disk of it: %s", made.raw)
	}
	d.want(200, d.send("DELETE", snapshots+"kept", "", nil))
	d.want(204, d.send("DELETE", snapshots+"kept", "", nil))
	d.want(404, d.send("GET", snapshots+"kept", "", nil))
}

func TestSnapshotThatFails(t *testing.T) {
	d := open(t, sqlite(t))
	d.want(200, d.send("PUT", disks+"large", "", diskBody("/images/large")))
	a := d.want(202, d.send("PUT", snapshots+"kept", "", copyBody(disks+"large")))
	if over := d.want(200, d.follow(a, "Azure-AsyncOperation")); at(over.body, "status") != "Failed" || at(over.body, "error", "code") != "InsufficientStorage" {
		t.Errorf("over: %s", over.raw)
	}
	if made := d.want(409, d.follow(a, "Location")); at(made.body, "error", "code") != "InsufficientStorage" {
		t.Errorf("outcome: %s", made.raw)
	}
	d.want(404, d.send("GET", snapshots+"kept", "", nil))
	d.want(400, d.send("PUT", snapshots+"kept", "", `{"location":"x","properties":{"creationData":{"createOption":"Copy"}}}`))
	d.want(400, d.send("PUT", snapshots+"kept", "", `{"location":"x","properties":{"creationData":{"sourceResourceId":7}}}`))
}
