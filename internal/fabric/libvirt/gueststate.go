package libvirt

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	lv "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"kluis/internal/fabric"
)

// What a machine is beside its disks lies in files of its host: the variables of UEFI firmware (boot entries, the keys of
// Secure Boot) and the state of an emulated TPM, which may hold the key of a BitLocker volume. A machine that is restored
// without them may not boot.

const (
	maxNVRAM = 8 << 20
	maxTPM   = 4 << 20
	nvramDir = "/var/lib/libvirt/qemu/nvram"
	tpmDir   = "/var/lib/libvirt/swtpm"
)

// GuestState reads what a machine is beside its disks. What cannot be had is in its notes.
func (h *Host) GuestState(ctx context.Context, uuid string) (fabric.GuestState, error) {
	d, err := h.domain(ctx, uuid)
	if err != nil {
		return fabric.GuestState{}, err
	}
	definition, err := h.xml(ctx, d, lv.DomainXMLInactive)
	if err != nil {
		return fabric.GuestState{}, h.refusal(d, err)
	}
	active, err := h.xml(ctx, d, 0) // where its files are, if it runs
	if err != nil {
		return fabric.GuestState{}, h.refusal(d, err)
	}
	parsed, err := parseDomain(active)
	if err != nil {
		return fabric.GuestState{}, err
	}
	state := fabric.GuestState{Definition: []byte(definition)}
	note := func(what string, err error) {
		if !errors.Is(err, fs.ErrNotExist) || parsed.ID != nil { // before its first start a machine has no such files
			state.Notes = append(state.Notes, fmt.Sprintf("The %s could not be saved: %v.", what, err))
		}
	}
	if path := nvramOf(parsed); path != "" {
		if state.NVRAM, err = h.readFile(path, maxNVRAM); err != nil {
			note("UEFI variables", err)
		}
	}
	if hasTPM(parsed) {
		if state.TPM, err = h.readTPM(uuid); err != nil {
			note("TPM state", err)
		}
	}
	return state, nil
}

// nvramOf is where the UEFI variables of a machine are; empty for one that has none. Where a definition leaves the choice of
// firmware to libvirt, and libvirt does not write down what it chose (9.0 does not, until it starts the machine), the file
// has the machine's name.
func nvramOf(d *libvirtxml.Domain) string {
	switch {
	case !hasNVRAM(d):
		return ""
	case d.OS.NVRam == nil:
		return filepath.Join(nvramDir, d.Name+"_VARS.fd")
	case d.OS.NVRam.Source != nil && d.OS.NVRam.Source.File != nil:
		return d.OS.NVRam.Source.File.File
	}
	return d.OS.NVRam.NVRam
}

func hasNVRAM(d *libvirtxml.Domain) bool {
	if d.OS == nil || d.OS.Loader != nil && d.OS.Loader.Stateless == "yes" {
		return false
	}
	return d.OS.NVRam != nil || d.OS.Firmware == "efi"
}

// setNVRAM says where the UEFI variables of a machine are to be, in the format that they had.
func setNVRAM(d *libvirtxml.Domain, path string) {
	if d.OS.NVRam == nil {
		d.OS.NVRam = &libvirtxml.DomainNVRam{}
	}
	d.OS.NVRam.NVRam, d.OS.NVRam.Source = path, nil
}

func hasTPM(d *libvirtxml.Domain) bool {
	for _, t := range d.Devices.TPMs {
		if t.Backend != nil && t.Backend.Emulator != nil {
			return true
		}
	}
	return false
}

var errElsewhere = errors.New("the host is another machine, whose files are not read here")

func (h *Host) readFile(path string, most int64) ([]byte, error) {
	if !h.local {
		return nil, errElsewhere
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		return nil, fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return b, err
}

// readTPM packs the files of a TPM's state.
func (h *Host) readTPM(uuid string) ([]byte, error) {
	if !h.local {
		return nil, errElsewhere
	}
	root := filepath.Join(tpmDir, uuid)
	var packed bytes.Buffer
	archive := tar.NewWriter(&packed)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || strings.HasPrefix(entry.Name(), ".") { // .lock
			return err
		}
		content, err := h.readFile(path, maxTPM)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a file with which swtpm is about to replace another
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content))}); err != nil {
			return err
		}
		_, err = archive.Write(content)
		return err
	})
	if err != nil {
		return nil, err
	}
	return packed.Bytes(), archive.Close()
}

// writeTPM unpacks a TPM's state for a machine that is about to be defined, for the user as whom swtpm runs.
func writeTPM(uuid string, packed []byte) (err error) {
	dir := filepath.Join(tpmDir, uuid)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write TPM state: %w", err), os.RemoveAll(dir))
		}
	}()
	if err := os.Mkdir(dir, 0o711); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	uid, gid := swtpmUser()
	for archive := tar.NewReader(io.LimitReader(bytes.NewReader(packed), 2*maxTPM)); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := writeOwned(root, header.Name, archive, uid, gid); err != nil {
			return err
		}
	}
}

func writeOwned(root *os.Root, name string, content io.Reader, uid, gid int) error {
	if folder := filepath.Dir(name); folder != "." {
		if err := root.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := root.Chown(folder, uid, gid); err != nil {
			return err
		}
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Chown(uid, gid), f.Close())
}

// swtpmUser is as whom libvirt runs swtpm, by the names that distributions give it; -1 leaves an owner as it is.
func swtpmUser() (uid, gid int) {
	for _, name := range []string{"swtpm", "tss"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			continue
		}
		if gid, err := strconv.Atoi(u.Gid); err == nil {
			return uid, gid
		}
	}
	return -1, -1
}
