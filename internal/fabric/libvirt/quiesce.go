package libvirt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kluis/internal/fabric"
)

// calm is a guest whose file systems stand still, or one that nobody could ask to.
type calm struct {
	agent   agent
	level   fabric.Consistency
	frozen  bool
	since   time.Time
	guard   Guard
	mark    string
	scripts scripts
}

// quiesce brings the guest of a machine to rest as well as it can. What keeps it from that makes the point crash
// consistent, with the reason, and is no error.
func (s *snapshot) quiesce(ctx context.Context) (*calm, error) {
	c := &calm{agent: agent{s.h, s.d}, level: fabric.Consistency{Level: fabric.CrashConsistent}}
	state, err := s.h.state(ctx, s.d)
	if err != nil {
		return nil, err
	}
	switch {
	case s.halted:
		c.level.Reason = "The VM was stopped; its disks were read as they were left."
		return c, nil
	case state != fabric.Running:
		c.level.Reason = "The VM is paused, so nobody in it can be asked."
		return c, nil
	case agentOf(s.domain) == fabric.AgentNone:
		c.level.Reason = "The VM has no channel to a guest agent."
		return c, nil
	}
	if err := s.awaitAgent(ctx, c.agent); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		c.level.Reason = "The guest agent does not answer, so the guest's file systems were not frozen: " + err.Error() + "."
		return c, nil
	}
	return c, c.freeze(ctx)
}

// awaitAgent waits until the agent answers. It is not there yet while a guest boots, and a job that begins before
// it came keeps it from ever coming (QEMU 7.2).
func (s *snapshot) awaitAgent(ctx context.Context, a agent) error {
	if err := a.prepare(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.h.o.AgentWait)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		err := a.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// freeze freezes under all nets. An error means that the guest was let go and no backup may begin.
func (c *calm) freeze(ctx context.Context) (err error) {
	h := c.agent.h
	wanted, err := c.agent.scripts(ctx)
	if err != nil {
		return err
	}
	if c.mark, err = h.mark(formatUUID(c.agent.d.UUID)); err != nil {
		return err
	}
	c.scripts = wanted
	defer func() {
		if err != nil {
			err = errors.Join(err, c.scripts.after(context.WithoutCancel(ctx), c.agent), unmark(c.mark))
		}
	}()
	if err := c.scripts.before(ctx, c.agent); err != nil {
		return err
	}
	if h.o.Guard != nil {
		if c.guard, err = h.o.Guard(GuardRequest{URI: h.o.URI, Machine: formatUUID(c.agent.d.UUID), Limit: h.o.FreezeLimit, Agent: h.o.AgentTimeout, Mark: c.mark}); err != nil {
			return err
		}
	}
	c.since = h.o.Now()
	c.frozen = true // from here on it may be
	if c.level.Reason = notFrozen(c.agent.freeze(ctx)); c.level.Reason != "" {
		return nil
	}
	c.level.Level = fabric.FileSystemConsistent
	if c.scripts.ran {
		c.level.Level = fabric.ApplicationConsistent
	}
	if c.scripts.failed != nil {
		c.level.Reason = "The script before the backup failed: " + c.scripts.failed.Error() + "."
	}
	return nil
}

// notFrozen says why a freeze is worth nothing; empty if it is worth something.
func notFrozen(n int32, err error) string {
	switch {
	case err != nil:
		return "The guest's file systems could not be frozen: " + err.Error() + "."
	case n == 0:
		return "The guest agent found no file system to freeze."
	}
	return ""
}

// thawPatience is how long this process goes on trying to thaw. The guard and the mark go on after it.
const thawPatience = 2 * time.Minute

// end lets the guest go on and says what the moment between was worth.
func (c *calm) end(ctx context.Context) (fabric.Consistency, error) {
	if !c.frozen {
		return c.level, nil
	}
	patient, cancel := context.WithTimeout(ctx, thawPatience)
	defer cancel()
	err := c.agent.thawFor(patient)
	c.level.Frozen = c.agent.h.o.Now().Sub(c.since)
	if c.guard != nil && err == nil { // else it goes on, on its own
		late, guardErr := c.guard.Stand()
		if guardErr != nil {
			c.agent.h.o.Log.Error("guard of a frozen guest", "error", guardErr)
		}
		if late {
			c.level.Level = fabric.CrashConsistent
			c.level.Reason = fmt.Sprintf("The guest's file systems were thawed after %s, before the backup had begun.", c.agent.h.o.FreezeLimit)
		}
	}
	scriptErr := c.scripts.after(ctx, c.agent)
	if err == nil {
		err = unmark(c.mark)
	}
	if scriptErr != nil && c.level.Level == fabric.ApplicationConsistent {
		c.level.Reason = "The script that follows the backup failed: " + scriptErr.Error() + "."
	}
	return c.level, err
}
