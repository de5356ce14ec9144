package libvirt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	lv "github.com/digitalocean/go-libvirt"

	"kluis/internal/fabric"
)

// While a job runs, what the guest overwrites is kept in scratch files, which grow with what it writes, up
// to the size of its disks. A full scratch file system stops the guest. So there must be room before, and
// the room is watched: below the reserve the backup ends, and not the guest.

// roomFor makes sure that there is the reserve and, beyond it, room for a tenth of the disks to be overwritten.
func (h *Host) roomFor(ctx context.Context, size int64) error {
	free, known, err := h.free(ctx)
	if err != nil {
		return err
	}
	if want := h.o.ScratchReserve + size/10; known && free < want {
		return h.tight(free, want)
	}
	return nil
}

// tight says that there is too little room for scratch files.
func (h *Host) tight(free, want int64) error {
	return h.fault("", fabric.NoRoom, fmt.Errorf("the folder %s has %d bytes free and the backup of a running machine wants %d", h.o.LiveDir, free, want))
}

// free says how many bytes are free where the scratch files lie. On a host elsewhere that is known only
// where the live folder is a storage pool of libvirt's.
func (h *Host) free(ctx context.Context) (n int64, known bool, err error) {
	if h.local {
		var s syscall.Statfs_t
		if err := syscall.Statfs(h.o.LiveDir, &s); err != nil {
			return 0, false, fmt.Errorf("room in the live folder %s: %w", h.o.LiveDir, err)
		}
		return int64(s.Bavail) * s.Bsize, true, nil
	}
	available, err := ask(ctx, h, callTimeout, func(c *lv.Libvirt) (uint64, error) {
		pool, err := c.StoragePoolLookupByTargetPath(h.o.LiveDir)
		if err != nil {
			return 0, err
		}
		if err := c.StoragePoolRefresh(pool, 0); err != nil {
			return 0, err
		}
		_, _, _, available, err := c.StoragePoolGetInfo(pool)
		return available, err
	})
	if isCode(err, lv.ErrNoStoragePool) {
		return 0, false, nil
	}
	return int64(available), err == nil, err
}

// makeScratch makes a job's scratch files. libvirt would have QEMU make them; but QEMU 7.2 fails an assertion, and
// with it the guest is gone, when it is asked for its disks (virsh domblkinfo, domstats, anybody's monitoring) while it opens
// an image that it makes (block/qcow2.c, qcow2_get_specific_info). It is also done before the guest stands still,
// and not while it does. On a host elsewhere we can make no files: there at least we do not ask meanwhile.
func (s *snapshot) makeScratch(ctx context.Context) error {
	if !s.h.local {
		return nil
	}
	for _, d := range s.disks {
		if d.size == 0 {
			return s.h.fault(s.d.Name, fabric.Refused, fmt.Errorf("it does not say how large disk %s is", d.target))
		}
		path := s.scratch(d.target)
		if out, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", path, strconv.FormatInt(d.size, 10)).CombinedOutput(); err != nil {
			return fmt.Errorf("make the scratch file of disk %s: %w: %s", d.target, err, bytes.TrimSpace(out))
		}
		if err := giveToQEMU(path); err != nil {
			return fmt.Errorf("make the scratch file of disk %s: %w", d.target, err)
		}
	}
	return nil
}

// qemuUsers are the names of whom QEMU runs as, on Debian and on others.
var qemuUsers = []string{"libvirt-qemu", "qemu"}

// makeLive makes a folder for one job's socket and scratch files, in which QEMU may write and nobody else
// may look: whoever opens the socket reads the disks. On a host elsewhere the live folder itself is used.
func (h *Host) makeLive(uuid string) (string, error) {
	if !h.local {
		return h.o.LiveDir, nil
	}
	if _, err := os.Stat(h.o.LiveDir); errors.Is(err, os.ErrNotExist) {
		// Whoever runs QEMU must come through, whatever our umask is.
		if err := errors.Join(os.MkdirAll(h.o.LiveDir, 0o711), os.Chmod(h.o.LiveDir, 0o711)); err != nil {
			return "", fmt.Errorf("make live folder: %w", err)
		}
	}
	dir := h.liveOf(uuid)
	if err := os.Mkdir(dir, 0o770); err != nil {
		return "", fmt.Errorf("make live folder: %w", err)
	}
	if err := giveToQEMU(dir); err != nil {
		return "", errors.Join(fmt.Errorf("make live folder %s: %w", dir, err), os.Remove(dir))
	}
	return dir, nil
}

// liveOf is the folder of a machine's job. A socket's path must not have more than 107 bytes.
func (h *Host) liveOf(uuid string) string {
	return filepath.Join(h.o.LiveDir, strings.ReplaceAll(uuid, "-", ""))
}

// longestLiveDir leaves room for what is added to it.
const longestLiveDir = 107 - len("/0123456789abcdef0123456789abcdef/nbd")

// giveToQEMU lets QEMU write into a folder, a file, or to a socket: by owner where we may change it, or else by the group
// that the live folder hands down.
func giveToQEMU(path string) error {
	if os.Geteuid() != 0 {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Mode().IsRegular() {
			return os.Chmod(path, 0o660)
		}
		return os.Chmod(path, info.Mode()&os.ModeSetgid|0o770) // what was handed down is handed on
	}
	for _, name := range qemuUsers {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return err
		}
		return os.Chown(path, uid, -1)
	}
	return fmt.Errorf("there is no user %s on this machine", qemuUsers[0])
}
