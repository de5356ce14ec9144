package fabric

import "errors"

// Machine is a VM as its host has it.
type Machine struct {
	UUID  string // the host's identity for it; it outlives a change of the name
	Name  string
	Group string // the resource group that the host's administrator chose for it; empty if he did not
	State PowerState
	Agent AgentState
	OS    string // "Linux", "Windows", or empty where the host does not know
	CPUs  int
	// Memory is in bytes.
	Memory int64
	Disks  []MachineDisk
	// Definition is what the host needs to know to run it, in the host's own language; without secrets.
	Definition []byte
}

// PowerState says what a machine is doing.
type PowerState string

// The power states.
const (
	Running      PowerState = "running"
	Stopped      PowerState = "stopped"
	Paused       PowerState = "paused" // also one that is starting, or was stopped by an error of its disks
	ShuttingDown PowerState = "shutting down"
	Crashed      PowerState = "crashed"
	Unknown      PowerState = "unknown" // the host is away
)

// AgentState says whether a machine can be asked to put its file systems in order.
type AgentState string

// The agent states.
const (
	AgentReady    AgentState = "ready"
	AgentNotReady AgentState = "not ready" // the host has a channel to it and nobody answers
	AgentNone     AgentState = "none"      // the host has no channel to it
)

// MachineDisk is a disk of a machine as its host has it.
type MachineDisk struct {
	Target string // the host's name for it: "vda"
	Path   string // file or block device on the host; empty for what is neither
	Format string // "raw", "qcow2"
	Size   int64  // what the guest sees, in bytes; 0 if unknown
	Serial string // what the guest sees as its serial number
	// Left says why a backup leaves it out: it is a CD-ROM, shared, read-only or on a network. Empty for a disk that is backed up.
	Left string
}

// GuestState is what a machine is beside its disks, as a recovery point keeps it.
type GuestState struct {
	// Definition is the host's own, without secrets.
	Definition []byte `json:"definition"`
	// NVRAM holds the variables of UEFI firmware; nil for a machine with a BIOS.
	NVRAM []byte `json:"nvram,omitempty"`
	// TPM is the state of a TPM that is emulated, as a tar archive; nil where there is none.
	TPM []byte `json:"tpm,omitempty"`
	// Notes say what could not be had, a sentence each.
	Notes []string `json:"notes,omitempty"`
}

// MachineSpec is a machine that is to be made.
type MachineSpec struct {
	UUID, Name string
	Group      string // its resource group
	OS         string // "Windows", or anything else
	CPUs       int    // 0: as it was
	Memory     int64  // in bytes; 0: as it was
	UEFI       bool   // for one that was not
	Disks      []DiskSpec
	// Networks are what its interfaces are connected to, in the host's words; an empty name is the host's choice.
	Networks []string
	// State is what it was; nil for one that never was.
	State *GuestState
}

// HostKind says what kept a host from what it was asked for.
type HostKind int

// The kinds of HostError.
const (
	Away    HostKind = iota + 1 // it cannot be reached
	Gone                        // it has no such machine
	Busy                        // the machine is at something that cannot be disturbed; it is left for the next time
	Held                        // it keeps the machine for a job that it has lost, until its daemon is started anew without it
	NoRoom                      // what the guest overwrites while it is backed up has no room
	Halted                      // the machine stopped while it was backed up
	Refused                     // it says no
)

var hostKindNames = map[HostKind]string{
	Away: "cannot be reached", Gone: "has no such machine", Busy: "has the machine at work",
	Held: "keeps the machine for a job that it has lost", NoRoom: "has too little room",
	Halted: "stopped the machine", Refused: "refuses",
}

// String says the kind as the end of a sentence about a host.
func (k HostKind) String() string { return hostKindNames[k] }

// HostError is a failure of a host, or of a machine on it.
type HostError struct {
	Host    string
	Machine string // empty if it is the host as a whole
	Kind    HostKind
	Err     error
}

func (e *HostError) Error() string {
	s := "host " + e.Host + " " + e.Kind.String()
	if e.Machine != "" {
		s += " (" + e.Machine + ")"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *HostError) Unwrap() error { return e.Err }

// IsHostKind reports whether err is a HostError of a kind.
func IsHostKind(err error, kind HostKind) bool {
	e, ok := errors.AsType[*HostError](err)
	return ok && e.Kind == kind
}
