package libvirt

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

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
	if t.Host != "" && t.Host != host {
		return fmt.Sprintf("the machine is on host %s now and was on %s", host, t.Host)
	}
	if !slices.Contains(listed, t.Name) {
		return "the host no longer has the checkpoint " + t.Name
	}
	then, ok := t.Disks[target]
	switch {
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
func checkpointXML(name string, domain *libvirtxml.Domain, bitmaps map[string]bool) (string, error) {
	c := libvirtxml.DomainCheckpoint{Name: name, Description: "The moment of a Kluis recovery point.", Disks: &libvirtxml.DomainCheckpointDisks{}}
	for _, target := range targetsOf(domain) {
		kind := "no"
		if bitmaps[target] {
			kind = "bitmap"
		}
		c.Disks.Disks = append(c.Disks.Disks, libvirtxml.DomainCheckpointDisk{Name: target, Checkpoint: kind})
	}
	return c.Marshal()
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
