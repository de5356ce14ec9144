package libvirt

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	lv "github.com/digitalocean/go-libvirt"
)

// agent speaks to the program in the guest. It answers one call at a time, and a call that it does not
// answer keeps the next ones from it: so each has a limit that libvirt itself holds.
type agent struct {
	h *Host
	d lv.Domain
}

// errAgentSilent says that nobody in the guest answers.
var errAgentSilent = errors.New("the guest agent does not answer")

// prepare bounds how long libvirt itself waits for the agent. Without it a freeze has no time limit at all.
func (a agent) prepare(ctx context.Context) error {
	return a.h.do(ctx, callTimeout, func(c *lv.Libvirt) error {
		_, err := c.DomainAgentSetResponseTimeout(a.d, seconds(a.h.o.AgentTimeout), 0)
		return err
	})
}

func seconds(d time.Duration) int32 { return int32(max(1, (d+time.Second-1)/time.Second)) }

// patience is how long we wait for a call to the agent: libvirt's own limit comes first.
func (a agent) patience() time.Duration { return 2*a.h.o.AgentTimeout + callTimeout }

// call sends a command of the QEMU guest agent and decodes what it returns.
func (a agent) call(ctx context.Context, command string, arguments, reply any) error {
	request, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return err
	}
	text, err := ask(ctx, a.h, a.patience(), func(c *lv.Libvirt) (lv.OptString, error) {
		return c.QEMUDomainAgentCommand(a.d, string(request), seconds(a.h.o.AgentTimeout), 0)
	})
	if err != nil {
		return agentError(command, err)
	}
	if len(text) != 1 || reply == nil {
		return nil
	}
	answer := struct {
		Return any `json:"return"`
	}{reply}
	if err := json.Unmarshal([]byte(text[0]), &answer); err != nil {
		return fmt.Errorf("guest agent's answer to %s: %w", command, err)
	}
	return nil
}

// agentError tells an agent that does not answer from one that answers no.
func agentError(command string, err error) error {
	if e, ok := errors.AsType[lv.Error](err); ok {
		switch lv.ErrorNumber(e.Code) {
		case lv.ErrAgentUnresponsive, lv.ErrAgentUnsynced, lv.ErrOperationTimeout:
			return fmt.Errorf("%w: %s", errAgentSilent, e.Message)
		}
	}
	return fmt.Errorf("guest agent, %s: %w", command, err)
}

// ping returns errAgentSilent if nobody answers.
func (a agent) ping(ctx context.Context) error { return a.call(ctx, "guest-ping", nil, nil) }

// freeze brings the guest's file systems to rest and returns how many they are.
func (a agent) freeze(ctx context.Context) (int32, error) {
	n, err := ask(ctx, a.h, a.patience(), func(c *lv.Libvirt) (int32, error) { return c.DomainFsfreeze(a.d, nil, 0) })
	if err != nil {
		return 0, agentError("guest-fsfreeze-freeze", err)
	}
	return n, nil
}

// thaw lets the guest's file systems go on. Thawing what is not frozen does nothing.
func (a agent) thaw(ctx context.Context) error {
	_, err := ask(ctx, a.h, a.patience(), func(c *lv.Libvirt) (int32, error) { return c.DomainFsthaw(a.d, nil, 0) })
	if err != nil {
		return agentError("guest-fsfreeze-thaw", err)
	}
	return nil
}

// thawFor thaws until it worked, or the machine no longer runs, or ctx is over: whether a freeze that failed
// has frozen the guest all the same cannot be known.
func (a agent) thawFor(ctx context.Context) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := a.thaw(ctx)
		if err == nil {
			return nil
		}
		state, stateErr := a.h.state(ctx, a.d)
		if lv.IsNotFound(stateErr) || stateErr == nil && !runs(state) {
			return nil // its file systems are frozen no longer
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("thaw %s: %w", a.d.Name, err)
		case <-time.After(pause):
		}
	}
}

// errNoFile says that the guest has no such file.
var errNoFile = errors.New("the guest has no such file")

// maxGuestFile is how much of a file in the guest is read.
const maxGuestFile = 64 << 10

// readFile reads a small file in the guest.
func (a agent) readFile(ctx context.Context, path string) ([]byte, error) {
	var handle int64
	if err := a.call(ctx, "guest-file-open", map[string]string{"path": path, "mode": "r"}, &handle); err != nil {
		if errors.Is(err, errAgentSilent) || ctx.Err() != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %s", errNoFile, path)
	}
	defer func() {
		_ = a.call(context.WithoutCancel(ctx), "guest-file-close", map[string]int64{"handle": handle}, nil)
	}()
	var read struct {
		Content string `json:"buf-b64"`
	}
	if err := a.call(ctx, "guest-file-read", map[string]int64{"handle": handle, "count": maxGuestFile}, &read); err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(read.Content)
}

// exited is how a program in the guest ended.
type exited struct {
	Code   int
	Signal int
	Output string // what it said, standard error behind standard output; cut if it is long
}

func (e exited) ok() bool { return e.Code == 0 && e.Signal == 0 }

// run runs a program in the guest and waits for its end, at most until ctx is over. The program may go on then.
func (a agent) run(ctx context.Context, program string, args ...string) (exited, error) {
	var started struct {
		PID int64 `json:"pid"`
	}
	if err := a.call(ctx, "guest-exec", map[string]any{"path": program, "arg": args, "capture-output": true}, &started); err != nil {
		return exited{}, err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var s struct {
			Exited   bool   `json:"exited"`
			ExitCode int    `json:"exitcode"`
			Signal   int    `json:"signal"`
			Out      string `json:"out-data"`
			Err      string `json:"err-data"`
		}
		if err := a.call(ctx, "guest-exec-status", map[string]int64{"pid": started.PID}, &s); err != nil {
			return exited{}, err
		}
		if s.Exited {
			return exited{s.ExitCode, s.Signal, said(s.Out) + said(s.Err)}, nil
		}
		select {
		case <-ctx.Done():
			return exited{}, fmt.Errorf("program %s in the guest: %w", program, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// said decodes what a program wrote, at most 2 KiB of it.
func said(b64 string) string {
	b, err := base64.StdEncoding.DecodeString(b64)
	if err != nil {
		return ""
	}
	return string(b[:min(len(b), 2<<10)])
}
