package fabric

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
