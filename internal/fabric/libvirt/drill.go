package libvirt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	lv "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"kluis/internal/fabric"
	"kluis/internal/nbd"
)

// trial is a drill at work: an NBD server shows the recovery point's disks to a machine that exists only as long as
// our connection, whose writes go to overlays in a folder that is removed afterwards.
type trial struct {
	h    *Host
	what fabric.Drill
	dir  string
	d    lv.Domain

	server *nbd.Server
	served chan error
	made   bool // the machine is there

	interfaces int     // that it has
	caller     *caller // of its port; nil if none is asked
}

// Drill boots a machine of a recovery point, apart from everything. An error means that it could not be tried; a
// machine that does not boot is a result.
func (h *Host) Drill(ctx context.Context, what fabric.Drill) (r fabric.DrillResult, err error) {
	if !h.local {
		return r, h.fault(what.Name, fabric.Refused, errors.New("a drill reads its disks from a socket of this machine, and the host is another one"))
	}
	id, err := parseUUID(what.UUID)
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, what.Limit)
	defer cancel()
	t := &trial{h: h, what: what, d: lv.Domain{Name: what.Name, UUID: id}}
	defer func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, t.end(late))
	}()
	if err := t.serve(); err != nil {
		return r, err
	}
	if err := t.start(ctx); err != nil {
		return r, h.refusal(t.d, err)
	}
	started := h.o.Now()
	if r.Reason = t.await(ctx); r.Reason != "" {
		return r, nil
	}
	r.Boot = h.o.Now().Sub(started)
	h.keys.wipe(what.UUID)
	if len(what.Check) > 0 {
		r.Output, r.Reason = t.check(ctx)
	}
	r.Passed = r.Reason == ""
	return r, nil
}

// serve offers the disks on a socket that QEMU may open.
func (t *trial) serve() (err error) {
	if t.dir, err = t.h.makeLive(t.what.UUID); err != nil {
		return err
	}
	listener, err := net.Listen("unix", t.socket())
	if err != nil {
		return fmt.Errorf("offer the disks of a drill: %w", err)
	}
	if err := giveToQEMU(t.socket()); err != nil {
		return errors.Join(err, listener.Close())
	}
	t.server, t.served = nbd.NewServer(nbd.ServerOptions{Logger: t.h.o.Log}), make(chan error, 1)
	go func() { t.served <- t.server.Serve(listener) }()
	for _, d := range t.what.Disks {
		if err := t.server.Offer(nbd.Export{Name: d.Target, Disk: d.Content}); err != nil {
			return err
		}
	}
	return nil
}

func (t *trial) socket() string  { return filepath.Join(t.dir, "nbd") }
func (t *trial) console() string { return filepath.Join(t.dir, "console") }

// start makes overlays and the machine, which ends with our connection if not before.
func (t *trial) start(ctx context.Context) error {
	var disks []fabric.DiskSpec
	for _, d := range t.what.Disks {
		overlay := filepath.Join(t.dir, d.Target+".qcow2")
		base := "nbd+unix:///" + d.Target + "?socket=" + t.socket() // libvirt takes the path as it stands
		if out, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, overlay).CombinedOutput(); err != nil {
			return fmt.Errorf("make an overlay of disk %s: %w: %s", d.Target, err, bytes.TrimSpace(out))
		}
		disks = append(disks, fabric.DiskSpec{Path: overlay, Format: "qcow2", Target: d.Target})
	}
	spec := fabric.MachineSpec{UUID: t.what.UUID, Name: t.what.Name, Disks: disks, State: t.what.State}
	definition, err := t.definition(ctx, spec)
	if err != nil {
		return err
	}
	if err := t.h.writeFiles(spec); err != nil {
		return err
	}
	if len(t.what.Keys) > 0 {
		// The volume counts as that of a machine that starts until we remove it: the inventory knows nothing of drills.
		path, err := t.h.keys.make(t.what.UUID, t.what.Keys)
		if err != nil {
			return err
		}
		if definition, err = withKeyVolume(definition, path); err != nil {
			return err
		}
	}
	err = t.h.do(ctx, startTimeout, func(c *lv.Libvirt) error {
		_, err := c.DomainCreateXML(definition, lv.DomainStartPaused|lv.DomainStartAutodestroy)
		return err
	})
	t.made = err == nil || !isRefusal(err) // a call without an answer may have made it
	if err != nil {
		return err
	}
	return t.release(ctx)
}

// release lets the machine run, once it is certain that it reaches nobody.
func (t *trial) release(ctx context.Context) error {
	if err := t.confined(ctx); err != nil {
		return err
	}
	if t.what.Port > 0 {
		port, err := t.forwarded(ctx)
		if err != nil {
			return err
		}
		t.caller = &caller{port: port, text: t.what.PortText, now: t.h.o.Now, accepted: t.accepted}
	}
	return t.h.do(ctx, callTimeout, func(c *lv.Libvirt) error { return c.DomainResume(t.d) })
}

// definition is the machine as it was, without what would let it touch anything.
func (t *trial) definition(ctx context.Context, spec fabric.MachineSpec) (string, error) {
	d, _, err := t.h.machineOf(spec)
	if err != nil {
		return "", err
	}
	if hasNVRAM(d) && (spec.State == nil || spec.State.NVRAM == nil) {
		setNVRAM(d, filepath.Join(t.dir, "VARS.fd")) // what libvirt makes is to go with the folder
	}
	interfaces, err := t.interfacesOf(ctx, d)
	if err != nil {
		return "", err
	}
	t.interfaces = len(interfaces)
	isolate(d, interfaces, t.what.Port)
	d.Title, d.Description = "", "A restore drill of Kluis; it is thrown away."
	d.Metadata = &libvirtxml.DomainMetadata{XML: "<kluis:vm xmlns:kluis='urn:kluis:vm:1' ignore='yes'/>"}
	port := uint(0)
	d.Devices.Serials = []libvirtxml.DomainSerial{{Source: &libvirtxml.DomainChardevSource{File: &libvirtxml.DomainChardevSourceFile{Path: t.console()}}, Target: &libvirtxml.DomainSerialTarget{Port: &port}}}
	return d.Marshal()
}

// await waits for the signs that the machine has booted, and says why they do not come; empty when all came.
func (t *trial) await(ctx context.Context) string {
	missing := t.signs(ctx)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		state, stateErr := t.h.state(ctx, t.d)
		if lv.IsNotFound(stateErr) || stateErr == nil && state != fabric.Running {
			return "The machine stopped by itself." + t.lastWords()
		}
		missing = slices.DeleteFunc(missing, func(s sign) bool { return s.came(ctx) })
		if len(missing) == 0 {
			return ""
		}
		select {
		case <-ctx.Done():
			why := ""
			for _, s := range missing {
				why += s.absence() + " "
			}
			return strings.TrimSpace(why) + t.lastWords()
		case <-tick.C:
		}
	}
}

// sign is something that a machine which has booted shows.
type sign struct {
	came    func(context.Context) bool
	absence func() string // says that it did not come
}

// signs are those that are waited for: what was asked for, else that the agent answers, and that too if it is to run a check.
func (t *trial) signs(ctx context.Context) (all []sign) {
	if text := t.what.Console; text != "" {
		all = append(all, sign{func(context.Context) bool { return t.shown(text) }, func() string {
			return fmt.Sprintf("The console did not show %q within %s.", text, t.what.Limit)
		}})
	}
	if t.caller != nil {
		all = append(all, sign{t.caller.answered, func() string { return t.caller.absence(t.what.Port, t.what.Limit) }})
	}
	if len(all) == 0 || len(t.what.Check) > 0 {
		a := agent{t.h, t.d}
		if err := a.prepare(ctx); err != nil {
			t.h.o.Log.Debug("prepare for the agent of a drill", "machine", t.d.Name, "error", err) // it may have none
		}
		all = append(all, sign{func(ctx context.Context) bool { return a.ping(ctx) == nil }, func() string {
			return fmt.Sprintf("The guest agent did not answer within %s.", t.what.Limit)
		}})
	}
	return all
}

// shown reports whether a text is on the console.
func (t *trial) shown(text string) bool {
	console, err := os.ReadFile(t.console())
	return err == nil && bytes.Contains(console, []byte(text))
}

// lastWords are the end of what the machine wrote on its console.
func (t *trial) lastWords() string {
	text, err := os.ReadFile(t.console())
	text = bytes.TrimSpace(bytes.ToValidUTF8(text, nil))
	if err != nil || len(text) == 0 {
		return ""
	}
	lines := strings.Split(string(text), "\n")
	last := strings.Join(lines[max(0, len(lines)-3):], " | ")
	return " Its console ends with: " + last[max(0, len(last)-500):]
}

// check runs the program in the guest.
func (t *trial) check(ctx context.Context) (output, reason string) {
	end, err := (agent{t.h, t.d}).run(ctx, t.what.Check[0], t.what.Check[1:]...)
	switch {
	case err != nil:
		return "", "The check could not be run: " + err.Error() + "."
	case !end.ok():
		return end.Output, fmt.Sprintf("The check ended with code %d.", end.Code)
	}
	return end.Output, ""
}

// end throws all of it away.
func (t *trial) end(ctx context.Context) error {
	var errs []error
	if t.caller != nil {
		t.caller.hangUp()
	}
	if t.made {
		err := t.h.do(ctx, callTimeout, func(c *lv.Libvirt) error { return c.DomainDestroy(t.d) })
		if err != nil && !lv.IsNotFound(err) && !isCode(err, lv.ErrOperationInvalid) {
			errs = append(errs, fmt.Errorf("end the machine of a drill: %w", err))
		}
	}
	t.h.keys.remove(t.what.UUID)
	t.h.dropFiles(fabric.MachineSpec{UUID: t.what.UUID, State: t.what.State})
	if t.server != nil {
		errs = append(errs, t.server.Close())
		if err := <-t.served; !errors.Is(err, nbd.ErrServerClosed) {
			errs = append(errs, err)
		}
	}
	if t.dir != "" {
		errs = append(errs, os.RemoveAll(t.dir))
	}
	return errors.Join(errs...)
}
