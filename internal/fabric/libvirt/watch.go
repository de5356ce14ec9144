package libvirt

import (
	"context"
	"fmt"
	"sync"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"kluis/internal/fabric"
)

// How long a watch waits: for the rest of a burst of events, until it lists although nothing was told, and before it
// tries a host again that is away (twice as long each time).
const (
	burst         = 200 * time.Millisecond
	lookAgain     = time.Minute
	firstRetry    = time.Second
	longestRetry  = time.Minute
	reportRetries = 5 * time.Second
	signOfLife    = 10 * time.Second
)

// Watcher is told what goes on on a host.
type Watcher struct {
	// Machines gets all machines of the host, at first and whenever something may have changed. After an error it is
	// called again soon.
	Machines func(ctx context.Context, all []fabric.Machine) error
	// Away is called when the host cannot be reached, once until it can be again.
	Away func(err error)
	// Rebooted is called when a machine begins to boot without having been off.
	Rebooted func(ctx context.Context, uuid string)
}

// Watch tells w what goes on on the host, until ctx ends. It follows libvirt's events, and looks by itself
// now and then, because a connection can be lost without anybody's telling.
func (h *Host) Watch(ctx context.Context, w Watcher) {
	wait, away := firstRetry, false
	for ctx.Err() == nil {
		here, err := h.follow(ctx, w)
		if ctx.Err() != nil {
			return
		}
		if here {
			wait, away = firstRetry, false
		}
		if !away {
			w.Away(err)
			away = true
		}
		h.dropDead(ctx)
		pause(ctx, wait)
		wait = min(2*wait, longestRetry)
	}
}

// follow lists and waits for events, for as long as the host answers. here says that it did.
func (h *Host) follow(ctx context.Context, w Watcher) (here bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	events, stop, err := h.subscribe(ctx)
	if err != nil {
		cancel()
		return false, err
	}
	defer stop() // after cancel
	defer cancel()
	for {
		again, mark := lookAgain, h.keys.mark()
		machines, err := h.Machines(ctx)
		if err != nil {
			return here, err
		}
		here = true
		h.keys.tend(mark, machines)
		if err := w.Machines(ctx, machines); err != nil {
			if ctx.Err() != nil {
				return here, ctx.Err()
			}
			h.o.Log.Error("take in the machines of a host", "host", h.o.Name, "error", err)
			again = reportRetries
		}
		if err := h.await(ctx, w, events, again); err != nil {
			return here, err
		}
	}
}

// await returns when it is time to list: some time after an event, or after all of it.
func (h *Host) await(ctx context.Context, w Watcher, events <-chan any, all time.Duration) error {
	timer := time.NewTimer(all)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case event, open := <-events:
			if !open {
				return h.lost()
			}
			h.heed(ctx, w, event)
			timer.Reset(burst)
		}
	}
}

// heed does what an event asks for beside listing.
func (h *Host) heed(ctx context.Context, w Watcher, event any) {
	switch e := event.(type) {
	case *lv.DomainEventCallbackRebootMsg:
		if w.Rebooted != nil {
			w.Rebooted(ctx, formatUUID(e.Msg.Dom.UUID))
		}
	case *lv.DomainEventCallbackAgentLifecycleMsg:
		if e.State == agentConnected { // the guest is up, and has its keys
			h.keys.wipe(formatUUID(e.Dom.UUID))
		}
	}
}

// watched are the events after which a host may have other machines than before, or the same in another state.
var watched = []lv.DomainEventID{lv.DomainEventIDLifecycle, lv.DomainEventIDAgentLifecycle, lv.DomainEventIDReboot, lv.DomainEventIDDeviceAdded,
	lv.DomainEventIDDeviceRemoved, lv.DomainEventIDDiskChange, lv.DomainEventIDBlockJob, lv.DomainEventIDMetadataChange}

// subscribe returns all watched events in one channel, which is closed when the connection is lost. stop is to be called
// after ctx has ended.
func (h *Host) subscribe(ctx context.Context) (_ <-chan any, stop func(), err error) {
	conn, err := h.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	all := make(chan any)
	var forwarders sync.WaitGroup
	for _, id := range watched {
		events, err := within(ctx, callTimeout, func() (<-chan any, error) { return conn.SubscribeEvents(ctx, id, nil) })
		if err != nil {
			h.o.Log.Debug("events of a host", "host", h.o.Name, "event", id, "error", err)
			continue // an older libvirt does not know it
		}
		forwarders.Go(func() {
			for event := range events { // to its end, or libvirt's side of it would wait for ever
				select {
				case all <- event:
				case <-ctx.Done():
				}
			}
		})
	}
	if !conn.IsConnected() {
		return nil, nil, h.lost()
	}
	ended := make(chan struct{})
	go func() {
		forwarders.Wait()
		close(all)
		close(ended)
	}()
	return all, func() { <-ended }, nil
}

// dropDead lets go of a connection on which nothing comes back any more, so that the next call makes a new one.
func (h *Host) dropDead(ctx context.Context) {
	h.mu.Lock()
	conn := h.conn
	h.mu.Unlock()
	if conn == nil || !conn.IsConnected() {
		return
	}
	if _, err := within(ctx, signOfLife, conn.ConnectGetLibVersion); err == nil || ctx.Err() != nil {
		return
	}
	h.mu.Lock()
	if h.conn == conn {
		h.conn = nil
	}
	h.mu.Unlock()
	go func() { _ = conn.Disconnect() }() // it may wait for an answer, too
}

// agentConnected is libvirt's VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED.
const agentConnected = 1

func (h *Host) lost() error {
	return fmt.Errorf("the connection to the libvirt host %s was lost", h.o.Name)
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
