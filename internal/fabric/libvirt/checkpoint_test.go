package libvirt

import (
	"strings"
	"testing"
)

// What changed is believed of the same image, of the same size, while the checkpoint is there. Whatever else is the case is
// the reason for reading all.
func TestDistrust(t *testing.T) {
	then := token{Name: "kluis-1", Host: "lab", Disks: map[string]tokenDisk{"vda": {Path: "/a", File: "1:2", Size: 3}}}
	same := then.Disks["vda"]
	for _, c := range []struct {
		name, host, target string
		now                tokenDisk
		listed             []string
		want               string
	}{
		{"nothing changed", "lab", "vda", same, []string{"kluis-1"}, ""},
		{"the machine moved, and its checkpoint too", "dc2", "vda", same, []string{"kluis-1"}, ""},
		{"the machine moved", "dc2", "vda", same, nil, "the machine is on host dc2 now and was on lab"},
		{"the checkpoint is gone", "lab", "vda", same, []string{"theirs"}, "no longer has the checkpoint kluis-1"},
		{"the disk is new", "lab", "vdb", same, []string{"kluis-1"}, "not part of the last checkpoint"},
		{"another image", "lab", "vda", tokenDisk{"/b", "1:2", 3}, []string{"kluis-1"}, "its image is /b now and was /a"},
		{"another file", "lab", "vda", tokenDisk{"/a", "1:3", 3}, []string{"kluis-1"}, "is another file"},
		{"another size", "lab", "vda", tokenDisk{"/a", "1:2", 4}, []string{"kluis-1"}, "it has 4 bytes now and had 3"},
	} {
		if why := then.distrust(c.host, c.now, c.target, c.listed); (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%s: %q, want %q", c.name, why, c.want)
		}
	}
}
