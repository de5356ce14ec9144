package libvirt

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"kluis/internal/fabric"
)

// Options say where a host is and what may be used on it.
type Options struct {
	Name string // ours for the host
	// URI as libvirt has it: qemu:///system, qemu+tls://host/system, qemu+ssh://user@host/system.
	URI string
	// LiveDir is a folder on the host that QEMU and, on this machine, Kluis can both reach. Sockets and
	// scratch files lie in it while a backup runs. On this machine it is made if missing.
	LiveDir string
	// Ports are those of a host elsewhere on which QEMU listens while a machine's disks are read.
	Ports Ports
	// ScratchReserve is how many bytes must stay free where LiveDir is: below it a backup ends.
	ScratchReserve int64
	// AgentTimeout is how long the agent has to answer.
	AgentTimeout time.Duration
	// FreezeLimit is how long a guest may stay frozen before the guard thaws it.
	FreezeLimit time.Duration
	// KeyDir is a folder in memory, of this machine, for the volumes from which guests take their keys. Empty: no machine
	// is started with keys.
	KeyDir string
	// AgentWait is how long an agent is waited for that the host has a channel to.
	AgentWait time.Duration
	// MarkDir is a folder of ours for the marks of guests that may be frozen.
	MarkDir string
	// Guard starts a guard of a guest that is to be frozen. Nil: there is none.
	Guard func(GuardRequest) (Guard, error)
	Now   func() time.Time
	Log   *slog.Logger
}

// The limits that hold where Options say nothing.
const (
	defaultReserve      = 1 << 30
	defaultAgentTimeout = 5 * time.Second
	defaultFreezeLimit  = 10 * time.Second
	defaultAgentWait    = time.Minute
	callTimeout         = 30 * time.Second
)

// Host is a libvirt daemon. Its methods may be called by many at once. It connects when it is first
// needed, and again after the connection was lost.
type Host struct {
	o     Options
	uri   *url.URL
	local bool
	keys  *keyVolumes

	// making is held while libvirt has QEMU make scratch files. Whoever then asks QEMU for its disks ends it (makeScratch).
	making sync.RWMutex

	mu   sync.Mutex
	conn *lv.Libvirt
	live map[string]bool // UUIDs of the machines of which this process has a snapshot
	port int             // counts the ports that jobs have asked for
}

// New checks the options. It does not connect.
func New(o Options) (*Host, error) {
	uri, err := url.Parse(o.URI)
	if err != nil {
		return nil, fmt.Errorf("libvirt host %s: %w", o.Name, err)
	}
	if scheme, _, _ := strings.Cut(uri.Scheme, "+"); scheme != "qemu" {
		return nil, fmt.Errorf("libvirt host %s: %q is no URI of a QEMU host; qemu:///system, qemu+tls://HOST/system or qemu+ssh://USER@HOST/system are", o.Name, o.URI)
	}
	if !filepath.IsAbs(o.LiveDir) || strings.ContainsAny(o.LiveDir, "?&#%, ") {
		return nil, fmt.Errorf("libvirt host %s: the live folder %q is no absolute path without blanks and ?&#%%,", o.Name, o.LiveDir)
	}
	if len(o.LiveDir) > longestLiveDir {
		return nil, fmt.Errorf("libvirt host %s: the path of the live folder %s has %d bytes; it may have %d, because sockets lie in it", o.Name, o.LiveDir, len(o.LiveDir), longestLiveDir)
	}
	if o.Ports == (Ports{}) {
		o.Ports = defaultPorts
	}
	if err := o.Ports.check(); err != nil {
		return nil, fmt.Errorf("libvirt host %s: %w", o.Name, err)
	}
	if o.ScratchReserve == 0 {
		o.ScratchReserve = defaultReserve
	}
	if o.AgentTimeout == 0 {
		o.AgentTimeout = defaultAgentTimeout
	}
	if o.FreezeLimit == 0 {
		o.FreezeLimit = defaultFreezeLimit
	}
	if o.AgentWait == 0 {
		o.AgentWait = defaultAgentWait
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MarkDir != "" {
		if err := os.MkdirAll(o.MarkDir, 0o700); err != nil {
			return nil, fmt.Errorf("libvirt host %s: %w", o.Name, err)
		}
	}
	return &Host{o: o, uri: uri, local: uri.Host == "" || strings.HasPrefix(uri.Scheme, "qemu+unix"), live: map[string]bool{}, keys: newKeyVolumes(o)}, nil
}

// Name is our name for the host.
func (h *Host) Name() string { return h.o.Name }

// Local reports whether the host's files are this machine's.
func (h *Host) Local() bool { return h.local }

// Close ends the connection. Machines that were started only to be read end with it.
func (h *Host) Close() error {
	h.keys.close()
	h.mu.Lock()
	conn := h.conn
	h.conn = nil
	h.mu.Unlock()
	if conn == nil || !conn.IsConnected() {
		return nil
	}
	return conn.Disconnect()
}

// connect returns a connection that works.
func (h *Host) connect(ctx context.Context) (*lv.Libvirt, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn != nil && h.conn.IsConnected() {
		return h.conn, nil
	}
	conn, err := within(ctx, callTimeout, func() (*lv.Libvirt, error) { return lv.ConnectToURI(h.uri) })
	if err != nil {
		return nil, h.fault("", fabric.Away, err)
	}
	h.conn = conn
	return conn, nil
}

// within waits for a call for a limited time. The call itself cannot be ended: its answer is dropped.
func within[T any](ctx context.Context, limit time.Duration, call func() (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		v, err := call()
		answered <- answer{v, err}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	var none T
	select {
	case a := <-answered:
		return a.v, a.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	case <-timer.C:
		return none, fmt.Errorf("no answer within %s", limit)
	}
}

// do is within for a call on a connection that answers nothing.
func (h *Host) do(ctx context.Context, limit time.Duration, call func(*lv.Libvirt) error) error {
	_, err := ask(ctx, h, limit, func(c *lv.Libvirt) (struct{}, error) { return struct{}{}, call(c) })
	return err
}

// ask is within for a call on a connection. A connection that was lost is a host that is away.
func ask[T any](ctx context.Context, h *Host, limit time.Duration, call func(*lv.Libvirt) (T, error)) (T, error) {
	conn, err := h.connect(ctx)
	if err != nil {
		var none T
		return none, err
	}
	v, err := within(ctx, limit, func() (T, error) { return call(conn) })
	if err != nil && !conn.IsConnected() {
		return v, h.fault("", fabric.Away, err)
	}
	return v, err
}

// fault is an error of this host.
func (h *Host) fault(machine string, kind fabric.HostKind, err error) error {
	return &fabric.HostError{Host: h.o.Name, Machine: machine, Kind: kind, Err: err}
}

// domain looks a machine up by its UUID.
func (h *Host) domain(ctx context.Context, uuid string) (lv.Domain, error) {
	id, err := parseUUID(uuid)
	if err != nil {
		return lv.Domain{}, err
	}
	d, err := ask(ctx, h, callTimeout, func(c *lv.Libvirt) (lv.Domain, error) { return c.DomainLookupByUUID(id) })
	if lv.IsNotFound(err) {
		return d, h.fault(uuid, fabric.Gone, nil)
	}
	return d, err
}

func parseUUID(s string) (id lv.UUID, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("%q is no UUID", s)
	}
	return lv.UUID(b), nil
}

func formatUUID(id lv.UUID) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16])
}
