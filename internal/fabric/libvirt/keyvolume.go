package libvirt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kluis/internal/fabric"
	"kluis/internal/fabric/fat"
)

// A guest that boots takes the keys of its disks from a FAT volume labelled BEK VOLUME, as Azure's guests do. The volume
// is a file in memory: below a folder that is tmpfs or ramfs, of mode 0600, owned by whoever QEMU runs as because
// libvirt makes it so. It holds keys only from the start until the guest's agent answers, or until keyTime is over; then
// it is overwritten. The empty volume stays with the machine, so that a guest that boots again without having been
// off finds the keys where they were (Rekey), and goes when the machine is off.

const (
	keyLabel = "BEK VOLUME"
	// keySerial is by what a guest and we know the volume's disk.
	keySerial = "kluis-bek"
	keyTime   = 10 * time.Minute
)

// keyVolumes are the volumes of a host's machines, by UUID.
type keyVolumes struct {
	dir string // empty: there is no place for any
	log func(uuid string, err error)

	mu      sync.Mutex
	volumes map[string]*keyVolume
	changes int // counts starts
}

func newKeyVolumes(o Options) *keyVolumes {
	v := &keyVolumes{volumes: map[string]*keyVolume{}, log: func(uuid string, err error) {
		o.Log.Error("volume for keys", "host", o.Name, "machine", uuid, "error", err)
	}}
	if o.KeyDir != "" {
		v.dir = filepath.Join(o.KeyDir, o.Name)
	}
	return v
}

// keyVolume is the volume of one machine. Its file is open because QEMU's user owns it later.
type keyVolume struct {
	path     string
	file     *os.File
	timer    *time.Timer // wipes it
	starting bool        // its machine is being started
	change   int         // which of the changes it was last
	tended   bool        // what is in it will be wiped, or is
}

// errNotInMemory says that a folder for keys is none.
var errNotInMemory = errors.New("it is not in memory (tmpfs or ramfs)")

// check makes the folder and refuses one whose files would be on a disk, or in which others could put theirs.
func (v *keyVolumes) check() error {
	if v.dir == "" {
		return errors.New("there is no folder for keys (key-dir)")
	}
	for _, dir := range []string{filepath.Dir(v.dir), v.dir} {
		if err := makeFolder(dir); err != nil {
			return err
		}
	}
	var own unix.Stat_t
	if err := unix.Lstat(v.dir, &own); err != nil {
		return fmt.Errorf("look at the folder for keys %s: %w", v.dir, err)
	}
	if own.Mode&unix.S_IFMT != unix.S_IFDIR || int(own.Uid) != os.Geteuid() || own.Mode&0o022 != 0 {
		return fmt.Errorf("the folder for keys %s cannot be used: others may write to it", v.dir)
	}
	var s unix.Statfs_t
	if err := unix.Statfs(v.dir, &s); err != nil {
		return fmt.Errorf("look at the folder for keys %s: %w", v.dir, err)
	}
	if t := s.Type; t != unix.TMPFS_MAGIC && t != unix.RAMFS_MAGIC {
		return fmt.Errorf("the folder for keys %s cannot be used: %w", v.dir, errNotInMemory)
	}
	return nil
}

// makeFolder makes a folder through which QEMU, another user, gets to a file whose name it knows.
func makeFolder(dir string) error {
	err := os.Mkdir(dir, 0o711)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = os.Chmod(dir, 0o711) // whatever our umask is
	}
	if err != nil {
		return fmt.Errorf("make the folder for keys: %w", err)
	}
	return nil
}

func (v *keyVolumes) pathOf(uuid string) string { return filepath.Join(v.dir, uuid+".bek") }

// make writes the volume of a machine that is to start, and returns its path.
func (v *keyVolumes) make(uuid string, files []fabric.KeyFile) (path string, err error) {
	if err := v.check(); err != nil {
		return "", err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.removeLocked(uuid)
	path = v.pathOf(uuid)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return "", fmt.Errorf("make the volume for keys: %w", err)
	}
	v.changes++
	v.volumes[uuid] = &keyVolume{path: path, file: f, starting: true, change: v.changes}
	if err := v.fillLocked(uuid, files); err != nil {
		v.removeLocked(uuid)
		return "", err
	}
	return path, nil
}

// started notes that the machine of a volume runs.
func (v *keyVolumes) started(uuid string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if volume := v.volumes[uuid]; volume != nil {
		v.changes++
		volume.starting, volume.change = false, v.changes
	}
}

// refill writes the keys into the volume of a machine that boots again.
func (v *keyVolumes) refill(uuid string, files []fabric.KeyFile) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.volumes[uuid] == nil {
		return errors.New("it has no volume for keys; stop and start it")
	}
	return v.fillLocked(uuid, files)
}

func (v *keyVolumes) fillLocked(uuid string, files []fabric.KeyFile) error {
	var contents []fat.File
	for _, f := range files {
		contents = append(contents, fat.File{Name: f.Name, Content: f.Key.Reveal()})
	}
	image, err := fat.Volume(keyLabel, contents)
	if err != nil {
		return fmt.Errorf("make the volume for keys: %w", err)
	}
	defer clear(image)
	volume := v.volumes[uuid]
	if _, err := volume.file.WriteAt(image, 0); err != nil {
		return fmt.Errorf("write the volume for keys: %w", err)
	}
	volume.wipeAfter(keyTime, func() { v.wipe(uuid) })
	return nil
}

func (k *keyVolume) wipeAfter(d time.Duration, wipe func()) {
	if k.timer != nil {
		k.timer.Stop()
	}
	k.timer, k.tended = time.AfterFunc(d, wipe), true
}

// wipe overwrites the keys of a machine that has them by now. The volume stays.
func (v *keyVolumes) wipe(uuid string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if volume := v.volumes[uuid]; volume != nil {
		v.note(uuid, volume.wipe())
	}
}

func (k *keyVolume) wipe() error {
	k.tended = true
	if k.timer != nil {
		k.timer.Stop()
	}
	if k.file == nil {
		return nil
	}
	if _, err := k.file.WriteAt(make([]byte, fat.Size), 0); err != nil {
		return fmt.Errorf("wipe the volume for keys: %w", err)
	}
	return nil
}

// remove ends the volume of a machine that is off.
func (v *keyVolumes) remove(uuid string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.removeLocked(uuid)
}

func (v *keyVolumes) removeLocked(uuid string) {
	volume := v.volumes[uuid]
	if volume == nil {
		return
	}
	err := volume.wipe()
	if volume.file != nil {
		err = errors.Join(err, volume.file.Close())
	}
	if gone := os.Remove(volume.path); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	v.note(uuid, err)
	delete(v.volumes, uuid)
}

// mark says from which change on a list of machines that is read now is out of date.
func (v *keyVolumes) mark() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changes
}

// tend brings the volumes into agreement with the machines that were listed after a mark: those that are off have none.
// What an earlier process left is taken over; it is wiped at once, except that of a machine that may be about to read it.
func (v *keyVolumes) tend(mark int, machines []fabric.Machine) {
	if v.dir == "" {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.adoptLocked()
	listed := map[string]fabric.Machine{}
	for _, m := range machines {
		listed[m.UUID] = m
	}
	for uuid, volume := range v.volumes {
		m, there := listed[uuid]
		switch {
		case volume.starting || volume.change > mark:
		case !there || m.State == fabric.Stopped || m.State == fabric.Crashed:
			v.removeLocked(uuid)
		case volume.tended:
		case m.Agent == fabric.AgentReady:
			v.note(uuid, volume.wipe())
		default:
			volume.wipeAfter(keyTime, func() { v.wipe(uuid) })
		}
	}
}

// adoptLocked finds the volumes that an earlier process has left. One that cannot be opened any more, because QEMU's
// user owns it and we are not root, is at least no file any more.
func (v *keyVolumes) adoptLocked() {
	left, err := os.ReadDir(v.dir)
	if err != nil {
		return // nothing was ever started
	}
	for _, entry := range left {
		uuid, ok := strings.CutSuffix(entry.Name(), ".bek")
		if !ok || v.volumes[uuid] != nil {
			continue
		}
		path := v.pathOf(uuid)
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
		if err != nil {
			v.note(uuid, errors.Join(fmt.Errorf("wipe the volume for keys of an earlier start: %w", err), os.Remove(path)))
			continue
		}
		v.volumes[uuid] = &keyVolume{path: path, file: f}
	}
}

// close wipes all volumes. Those of machines that run stay, empty.
func (v *keyVolumes) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for uuid, volume := range v.volumes {
		err := volume.wipe()
		if volume.file != nil {
			err = errors.Join(err, volume.file.Close())
		}
		v.note(uuid, err)
	}
	v.volumes = map[string]*keyVolume{}
}

func (v *keyVolumes) note(uuid string, err error) {
	if err != nil {
		v.log(uuid, err)
	}
}
