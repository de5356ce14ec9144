package libvirt

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	lv "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"kluis/internal/fabric"
)

// checkpointPrefix is how the names of our checkpoints begin. Others are never touched.
const checkpointPrefix = "kluis-"

// token is a fabric.Checkpoint: what must be the same the next time for the bitmap to be believed.
type token struct {
	Name  string               `json:"name"`
	Host  string               `json:"host,omitempty"` // our name for it; a machine may move
	Disks map[string]tokenDisk `json:"disks"`          // by target; those that have a bitmap
}

// tokenDisk is a disk as it was when its bitmap began.
type tokenDisk struct {
	Path string `json:"path"`
	File string `json:"file,omitempty"` // device and inode; empty where they cannot be seen
	Size int64  `json:"size"`
}

func (t token) encode() fabric.Checkpoint {
	if t.Name == "" || len(t.Disks) == 0 {
		return ""
	}
	b, err := json.Marshal(t)
	if err != nil {
		panic(err) // a struct of strings and numbers
	}
	return fabric.Checkpoint(b)
}

// decodeToken reads a checkpoint that we made. One that makes no sense is none: everything is read then.
func decodeToken(c fabric.Checkpoint) (t token) {
	if json.Unmarshal([]byte(c), &t) != nil || !strings.HasPrefix(t.Name, checkpointPrefix) {
		return token{}
	}
	return t
}

// checkpoints are the names of all checkpoints of a machine, the oldest first where libvirt knows it.
func (h *Host) checkpoints(ctx context.Context, d lv.Domain) ([]string, error) {
	all, err := ask(ctx, h, callTimeout, func(c *lv.Libvirt) ([]lv.DomainCheckpoint, error) {
		all, _, err := c.DomainListAllCheckpoints(d, 1, uint32(lv.DomainCheckpointListTopological))
		return all, err
	})
	if err != nil {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	names := make([]string, len(all))
	for i, c := range all {
		names[i] = c.Name
	}
	return names, nil
}

// recall tells the host of the last checkpoint where it does not know it: a bitmap is in its image, and goes with it when the
// machine moves to another host or is defined again, but libvirt's own note of it does not. libvirt looks whether each
// bitmap is there and whole, and refuses otherwise; so what changed can be believed as if nothing had happened. It
// returns the checkpoints that are known then.
func (s *snapshot) recall(ctx context.Context, last token, known []string) ([]string, error) {
	if last.Name == "" || s.peek || slices.Contains(known, last.Name) {
		return known, nil
	}
	text, err := recallXML(last, s.domain)
	if err != nil {
		return nil, err
	}
	err = s.h.do(ctx, callTimeout, func(c *lv.Libvirt) error {
		_, err := c.DomainCheckpointCreateXML(s.d, text, uint32(lv.DomainCheckpointCreateRedefine|lv.DomainCheckpointCreateRedefineValidate))
		return err
	})
	if isRefusal(err) {
		s.h.o.Log.Debug("a checkpoint is gone", "machine", s.d.Name, "checkpoint", last.Name, "error", err)
		return known, nil
	}
	if err != nil {
		return nil, fmt.Errorf("tell the host of checkpoint %s: %w", last.Name, err)
	}
	return append(known, last.Name), nil
}

// keepOnly deletes our checkpoints of a machine, all but one. It must be running, or be held for reading.
func (h *Host) keepOnly(ctx context.Context, d lv.Domain, keep string) error {
	names, err := h.checkpoints(ctx, d)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == keep || !strings.HasPrefix(name, checkpointPrefix) {
			continue
		}
		if err := h.dropCheckpoint(ctx, d, name); err != nil {
			return fmt.Errorf("delete checkpoint %s: %w", name, err)
		}
	}
	return nil
}

// dropCheckpoint deletes a checkpoint, or forgets it where its bitmap is broken or gone.
func (h *Host) dropCheckpoint(ctx context.Context, d lv.Domain, name string) error {
	remove := func(flags lv.DomainCheckpointDeleteFlags) error {
		return h.do(ctx, callTimeout, func(c *lv.Libvirt) error {
			checkpoint, err := c.DomainCheckpointLookupByName(d, name, 0)
			if err != nil {
				return err
			}
			return c.DomainCheckpointDelete(checkpoint, flags)
		})
	}
	err := remove(0)
	if err == nil || isCode(err, lv.ErrNoDomainCheckpoint) {
		return nil
	}
	h.o.Log.Warn("a checkpoint cannot be deleted, and is forgotten", "machine", d.Name, "checkpoint", name, "error", err)
	return remove(lv.DomainCheckpointDeleteMetadataOnly)
}

// distrust says why what changed on a disk since a checkpoint cannot be believed; empty if it can. The
// bitmap itself is looked at by libvirt, when the job begins: one that is broken makes it refuse.
func (t token) distrust(host string, now tokenDisk, target string, listed []string) string {
	if t.Name == "" {
		return "the last recovery point has no checkpoint"
	}
	then, ok := t.Disks[target]
	switch gone := !slices.Contains(listed, t.Name); {
	case gone && t.Host != "" && t.Host != host:
		return fmt.Sprintf("the machine is on host %s now and was on %s, and its checkpoint %s did not come with it", host, t.Host, t.Name)
	case gone:
		return "the host no longer has the checkpoint " + t.Name
	case !ok:
		return "the disk is not part of the last checkpoint"
	case then.Path != now.Path:
		return fmt.Sprintf("its image is %s now and was %s", now.Path, then.Path)
	case then.File != now.File:
		return "its image " + now.Path + " is another file than at the last checkpoint"
	case then.Size != now.Size:
		return fmt.Sprintf("it has %d bytes now and had %d", now.Size, then.Size)
	}
	return ""
}

// checkpointXML describes the checkpoint of a new job: a bitmap in each disk that can have one.
func checkpointXML(name string, domain *libvirtxml.Domain, disks map[string]tokenDisk) (string, error) {
	return describe(name, domain, disks).Marshal()
}

// recallXML describes a checkpoint that was made before. When that was is in its name, and matters to nobody.
func recallXML(t token, domain *libvirtxml.Domain) (string, error) {
	nanoseconds, _ := strconv.ParseInt(strings.TrimPrefix(t.Name, checkpointPrefix), 10, 64)
	c := describe(t.Name, domain, t.Disks)
	c.CreationTime = strconv.FormatInt(nanoseconds/int64(time.Second), 10)
	return c.Marshal()
}

func describe(name string, domain *libvirtxml.Domain, disks map[string]tokenDisk) *libvirtxml.DomainCheckpoint {
	c := &libvirtxml.DomainCheckpoint{Name: name, Description: "The moment of a Kluis recovery point.", Disks: &libvirtxml.DomainCheckpointDisks{}}
	for _, target := range targetsOf(domain) {
		d := libvirtxml.DomainCheckpointDisk{Name: target, Checkpoint: "no"}
		if _, ok := disks[target]; ok {
			d.Checkpoint, d.Bitmap = "bitmap", name
		}
		c.Disks.Disks = append(c.Disks.Disks, d)
	}
	return c
}

// targetsOf are the targets of all disks of a domain that a job must speak of.
func targetsOf(d *libvirtxml.Domain) (targets []string) {
	for _, disk := range d.Devices.Disks {
		if disk.Target != nil && (disk.Device == "" || disk.Device == "disk") {
			targets = append(targets, disk.Target.Dev)
		}
	}
	return targets
}
