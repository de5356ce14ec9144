package libvirt

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	lv "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"kluis/internal/fabric"
)

// How long a guest has to shut down before its machine is switched off, and how often it is looked whether it has.
const (
	shutdownTime = 90 * time.Second
	shutdownLook = 250 * time.Millisecond
	agentSeconds = 5
)

// Start starts a machine; one that runs is left alone. With keys it gets a BEK VOLUME: not in its definition, which is
// what it is started from the next time by whomever, but in this one start.
func (h *Host) Start(ctx context.Context, uuid string, keys []fabric.KeyFile) error {
	d, err := h.domain(ctx, uuid)
	if err != nil {
		return err
	}
	state, err := h.state(ctx, d)
	if err == nil && state == fabric.Paused && h.isLive(uuid) {
		// It may be that it is only held to be read, and then it ends with its backup.
		return h.fault(d.Name, fabric.Busy, errors.New("it is being backed up; start it when that is over"))
	}
	if err != nil || state != fabric.Stopped && state != fabric.Crashed {
		return err
	}
	if len(keys) == 0 {
		return h.refusal(d, h.do(ctx, startTimeout, func(c *lv.Libvirt) error { _, err := c.DomainCreateWithFlags(d, 0); return err }))
	}
	if !h.local {
		return h.refusal(d, errors.New("its keys would leave this machine: only one on the server's own host is started with them"))
	}
	saved, err := ask(ctx, h, callTimeout, func(c *lv.Libvirt) (int32, error) { return c.DomainHasManagedSaveImage(d, 0) })
	if err != nil {
		return h.refusal(d, err)
	}
	if saved != 0 {
		return h.refusal(d, errors.New("its memory was saved (virsh managedsave): start it with virsh start, or drop what was saved"))
	}
	return h.refusal(d, h.startWithKeys(ctx, d, uuid, keys))
}

// startTimeout is for what makes the host start a process.
const startTimeout = 2 * time.Minute

func (h *Host) startWithKeys(ctx context.Context, d lv.Domain, uuid string, keys []fabric.KeyFile) error {
	definition, err := h.xml(ctx, d, lv.DomainXMLInactive|lv.DomainXMLSecure)
	if err != nil {
		return err
	}
	path, err := h.keys.make(uuid, keys)
	if err != nil {
		return err
	}
	definition, err = withKeyVolume(definition, path)
	if err == nil {
		err = h.do(ctx, startTimeout, func(c *lv.Libvirt) error { _, err := c.DomainCreateXML(definition, 0); return err })
	}
	if err != nil {
		h.keys.remove(uuid)
		return err
	}
	h.keys.started(uuid)
	return nil
}

// Rekey gives the keys to a machine that boots again without having been off.
func (h *Host) Rekey(ctx context.Context, uuid string, keys []fabric.KeyFile) error {
	d, err := h.domain(ctx, uuid)
	if err != nil {
		return err
	}
	return h.refusal(d, h.keys.refill(uuid, keys))
}

// withKeyVolume adds a read-only disk to a definition as libvirt has written it. libvirt finds it a place on its bus
// behind the disks that have theirs, so that no disk changes its name in the guest.
func withKeyVolume(definition, path string) (string, error) {
	d, err := parseDomain(definition)
	if err != nil {
		return "", err
	}
	at := strings.LastIndex(definition, "</devices>")
	if at < 0 {
		return "", errors.New("the definition has no devices")
	}
	target, bus, err := freeTarget(d)
	if err != nil {
		return "", err
	}
	var source bytes.Buffer
	if err := xml.EscapeText(&source, []byte(path)); err != nil {
		return "", err
	}
	disk := fmt.Sprintf("<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s'/><target dev='%s' bus='%s'/><readonly/><serial>%s</serial></disk>",
		&source, target, bus, keySerial)
	return definition[:at] + disk + definition[at:], nil
}

// freeTarget is a target that no disk has, on the bus of the first disk, to which the guest has a driver.
func freeTarget(d *libvirtxml.Domain) (target, bus string, err error) {
	bus = "virtio"
	first := true
	var taken []string
	for _, x := range d.Devices.Disks {
		if x.Target == nil {
			continue
		}
		if first && x.Target.Bus != "" && (x.Device == "" || x.Device == "disk") {
			bus, first = x.Target.Bus, false
		}
		taken = append(taken, x.Target.Dev)
	}
	prefix, letters := "sd", "abcdefghijklmnopqrstuvwxyz"
	switch bus {
	case "virtio":
		prefix, letters = "vd", "zyxwvutsrqponmlkjihgfedcba" // far from what somebody attaches by hand
	case "ide":
		prefix, letters = "hd", "abcd"
	}
	for _, letter := range letters {
		if name := prefix + string(letter); !slices.Contains(taken, name) {
			return name, bus, nil
		}
	}
	return "", "", fmt.Errorf("its bus %s has no place for the volume for keys", bus)
}

// Stop asks the guest to shut down, and switches the machine off if it does not within its time.
func (h *Host) Stop(ctx context.Context, uuid string) error {
	d, err := h.domain(ctx, uuid)
	if err != nil {
		return err
	}
	state, err := h.state(ctx, d)
	if err != nil {
		return err
	}
	if state == fabric.Running {
		err := h.do(ctx, callTimeout, func(c *lv.Libvirt) error {
			_, _ = c.DomainAgentSetResponseTimeout(d, agentSeconds, 0) // where there is no agent the button is pressed
			return c.DomainShutdownFlags(d, lv.DomainShutdownGuestAgent|lv.DomainShutdownAcpiPowerBtn)
		})
		if err != nil {
			h.o.Log.Debug("ask a guest to shut down", "machine", d.Name, "error", err)
		} else if off, err := h.awaitOff(ctx, d); off || err != nil {
			return err
		}
	}
	return h.Destroy(ctx, uuid)
}

// awaitOff waits for a machine to be off, for as long as a guest has to shut down.
func (h *Host) awaitOff(ctx context.Context, d lv.Domain) (off bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, shutdownTime)
	defer cancel()
	for {
		state, err := h.state(ctx, d)
		if err == nil && (state == fabric.Stopped || state == fabric.Crashed) || lv.IsNotFound(err) {
			h.keys.remove(formatUUID(d.UUID))
			return true, nil
		}
		if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		pause(ctx, shutdownLook)
	}
}

// Destroy switches a machine off; one that is off is left alone.
func (h *Host) Destroy(ctx context.Context, uuid string) error {
	d, err := h.domain(ctx, uuid)
	if err != nil {
		return err
	}
	err = h.do(ctx, startTimeout, func(c *lv.Libvirt) error { return c.DomainDestroyFlags(d, lv.DomainDestroyDefault) })
	if isCode(err, lv.ErrOperationInvalid) {
		err = nil // it is off
	}
	if err == nil {
		h.keys.remove(uuid)
	}
	return h.refusal(d, err)
}

func isCode(err error, code lv.ErrorNumber) bool {
	e, ok := errors.AsType[lv.Error](err)
	return ok && e.Code == uint32(code)
}

// refusal is what the host says to something that was asked of a machine.
func (h *Host) refusal(d lv.Domain, err error) error {
	if err == nil {
		return nil
	}
	if _, known := errors.AsType[*fabric.HostError](err); known {
		return err
	}
	return h.fault(d.Name, fabric.Refused, err)
}
