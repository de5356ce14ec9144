package libvirt

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"kluis/internal/fabric"
)

// A guest that stays frozen is a guest that is down. So whoever freezes one does it under three nets:
//
//   - the snapshot thaws on every path;
//   - a guard, a process of its own, thaws when this process dies or the guest has been frozen for too
//     long. It holds the other end of a pipe, which the kernel closes whatever way this process ends;
//   - a mark, a file that is made before the freeze and removed after the thaw, makes the next start thaw.
//
// What holds of the file systems holds of the applications: the guard and the next start also run the script that
// lets them go on.

// GuardRequest is what a guard needs to know.
type GuardRequest struct {
	URI     string        `json:"uri"`
	Machine string        `json:"machine"` // its UUID
	Limit   time.Duration `json:"limit"`   // how long it may be frozen
	Agent   time.Duration `json:"agent"`   // how long the agent has to answer
	Mark    string        `json:"mark"`    // removed when the guest is thawed; may be empty
}

// Guard is a guard at work.
type Guard interface {
	// Stand ends it: the guest is thawed. It reports whether the guard had to do so.
	Stand() (thawed bool, err error)
}

// The words between a guard and whom it guards.
const (
	guardReady  = "ready"
	guardThawed = "thawed"
	guardStand  = "stand\n"
)

// StartGuard returns the start of a guard: program with args must run RunGuard on its standard input and output.
func StartGuard(program string, args ...string) func(GuardRequest) (Guard, error) {
	return func(r GuardRequest) (Guard, error) {
		cmd := exec.Command(program, args...)
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, fmt.Errorf("start guard: %w", err)
		}
		g := &childGuard{cmd, in, bufio.NewReader(out)}
		if err := json.NewEncoder(in).Encode(r); err == nil {
			var line string
			if line, err = g.out.ReadString('\n'); err == nil && line == guardReady+"\n" {
				return g, nil
			}
		}
		_ = cmd.Process.Kill()
		return nil, fmt.Errorf("start guard: %w", errors.Join(errors.New("it did not report"), cmd.Wait()))
	}
}

type childGuard struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (g *childGuard) Stand() (thawed bool, err error) {
	_, _ = io.WriteString(g.in, guardStand) // a guard that has ended already reads nothing
	_ = g.in.Close()
	said, err := io.ReadAll(g.out)
	return string(said) == guardThawed+"\n", errors.Join(err, g.cmd.Wait())
}

// RunGuard is the guard itself. It connects before it reports that it is ready, since a guard that cannot
// reach the host guards nothing.
func RunGuard(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	request, err := lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read guard request: %w", err)
	}
	var r GuardRequest
	if err := json.Unmarshal(request, &r); err != nil {
		return fmt.Errorf("read guard request: %w", err)
	}
	h, err := New(Options{Name: "guard", URI: r.URI, LiveDir: "/", AgentTimeout: r.Agent})
	if err != nil {
		return err
	}
	defer func() { _ = h.Close() }()
	d, err := h.domain(ctx, r.Machine)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, guardReady); err != nil {
		return err
	}
	stand := make(chan bool, 1)
	go func() {
		word, err := lines.ReadString('\n')
		stand <- err == nil && word == guardStand
	}()
	late := time.NewTimer(r.Limit)
	defer late.Stop()
	alone := false // whom we guarded is dead
	select {
	case thawed := <-stand:
		if thawed {
			return nil
		}
		alone = true
	case <-late.C:
	}
	if err := (agent{h, d}).thawFor(ctx); err != nil {
		return err
	}
	if alone {
		err = agent{h, d}.resume(ctx)
	}
	// To a dead man saying so is the end of us, and comes last.
	err = errors.Join(err, unmark(r.Mark))
	_, _ = fmt.Fprintln(out, guardThawed)
	return err
}

// mark notes that a guest may be frozen from now on.
func (h *Host) mark(uuid string) (string, error) {
	if h.o.MarkDir == "" {
		return "", nil
	}
	path := h.markOf(uuid)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return "", fmt.Errorf("mark %s as frozen: %w", uuid, err)
	}
	return path, errors.Join(f.Sync(), f.Close())
}

func (h *Host) markOf(uuid string) string { return filepath.Join(h.o.MarkDir, uuid) }

func unmark(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove mark of a frozen guest: %w", err)
	}
	return nil
}

// thawMarked thaws a guest that an earlier process may have left frozen.
func (h *Host) thawMarked(ctx context.Context, d lv.Domain) error {
	if h.o.MarkDir == "" {
		return nil
	}
	path := h.markOf(formatUUID(d.UUID))
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	state, err := h.state(ctx, d)
	if err != nil {
		return err
	}
	if state == fabric.Paused {
		return nil // nobody in it can answer; the mark stays
	}
	if runs(state) {
		h.o.Log.Warn("the guest may have been left frozen; it is thawed", "machine", d.Name)
		a := agent{h, d}
		if err := a.thawFor(ctx); err != nil {
			return err
		}
		if err := a.resume(ctx); err != nil { // no reason to leave the guest without a backup
			h.o.Log.Error("script that follows a backup that was cut off", "machine", d.Name, "error", err)
		}
	}
	return unmark(path)
}

// runs reports whether a guest's processors may run.
func runs(s fabric.PowerState) bool {
	return s == fabric.Running || s == fabric.Paused || s == fabric.ShuttingDown
}
