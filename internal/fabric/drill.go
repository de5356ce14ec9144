package fabric

import (
	"context"
	"io"
	"time"
)

// Drill is a trial of a restore: a machine is made of what a recovery point holds, boots on networks that reach nobody,
// and is thrown away. Its writes go to an overlay; what it is made of is only read. A sign is waited for: its agent answers,
// unless its console or its port are asked for.
type Drill struct {
	UUID, Name string
	State      *GuestState // nil for one of which only the disks are known
	Disks      []DrillDisk
	Keys       []KeyFile     // what it takes its disks' keys from when it boots
	Console    string        // text that its serial console must show
	Port       int           // TCP port that must answer, at the address that its first interface gets by DHCP
	PortText   string        // what that must say, unprompted; empty: that it takes a connection is enough
	Check      []string      // a program in the guest, with its arguments, that must end well; none if empty
	Limit      time.Duration // for all of it
}

// DrillDisk is a disk of a drill's machine.
type DrillDisk struct {
	Target  string // where the machine had it: "vda"
	Content DrillContent
}

// DrillContent is read from many goroutines.
type DrillContent interface {
	io.ReaderAt
	Size() int64
	// NextData returns a range at or after off that may hold anything but zeros; n is 0 if there is none.
	NextData(ctx context.Context, off int64) (start, n int64, err error)
}

// DrillResult says how a drill went.
type DrillResult struct {
	Passed bool
	Reason string        // why not, for a person
	Boot   time.Duration // from the start until the sign that was waited for
	Output string        // of the check; cut if it is long
}
