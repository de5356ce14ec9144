package libvirt

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/fabric"
	"kluis/internal/fabric/fat"
	"kluis/internal/secret"
)

// memory is a folder in memory.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "kluis-test-")
	if err != nil {
		t.Skipf("needs a tmpfs at /dev/shm: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func volumesIn(t *testing.T, dir string) *keyVolumes {
	v := newKeyVolumes(Options{Name: "lab", KeyDir: dir})
	v.log = func(uuid string, err error) { t.Errorf("volume of %s: %v", uuid, err) }
	return v
}

func passphrase() []fabric.KeyFile {
	return []fabric.KeyFile{{Name: "LinuxPassPhraseFileName", Key: secret.New([]byte("correct horse"))}}
}

func holdsKey(t *testing.T, path string) bool {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(b, []byte("correct horse"))
}

// A volume holds keys from the start of its machine until the guest has them, and again when it boots again; when the
// machine is off there is none.
func TestKeyVolumeLife(t *testing.T) {
	v := volumesIn(t, memory(t))
	mark := v.mark()
	path, err := v.make("one", passphrase())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != fat.Size || !holdsKey(t, path) {
		t.Fatalf("%v, %v", info, err)
	}
	v.tend(v.mark(), nil) // it is being started
	v.started("one")
	v.tend(mark, nil) // a list from before the start
	running := []fabric.Machine{{UUID: "one", State: fabric.Running, Agent: fabric.AgentNotReady}}
	v.tend(v.mark(), running)
	if !holdsKey(t, path) {
		t.Error("the key was wiped before the guest had it")
	}
	v.wipe("one")
	if holdsKey(t, path) {
		t.Error("the key is still there")
	}
	if err := v.refill("one", passphrase()); err != nil || !holdsKey(t, path) {
		t.Errorf("no key for a guest that boots again: %v", err)
	}
	if err := v.refill("two", passphrase()); err == nil {
		t.Error("a machine without a volume got keys")
	}
	v.tend(v.mark(), []fabric.Machine{{UUID: "one", State: fabric.Stopped}})
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the volume of a machine that is off: %v", err)
	}
}

// What a process has left that was killed is wiped by the next one.
func TestKeyVolumesOfAnEarlierProcess(t *testing.T) {
	dir := memory(t)
	killed := volumesIn(t, dir)
	paths := map[string]string{}
	for _, uuid := range []string{"off", "booting", "up"} {
		path, err := killed.make(uuid, passphrase())
		if err != nil {
			t.Fatal(err)
		}
		paths[uuid] = path
	}
	v := volumesIn(t, dir)
	v.tend(v.mark(), []fabric.Machine{{UUID: "booting", State: fabric.Running, Agent: fabric.AgentNotReady}, {UUID: "up", State: fabric.Running, Agent: fabric.AgentReady}})
	if _, err := os.Stat(paths["off"]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of a dead start: %v", err)
	}
	if !holdsKey(t, paths["booting"]) || holdsKey(t, paths["up"]) {
		t.Error("a guest that boots needs its key, one that is up does not")
	}
	v.close()
	if holdsKey(t, paths["booting"]) {
		t.Error("the key is still there")
	}
}

// Keys are written into memory only, where nobody else can write.
func TestKeyVolumeRefused(t *testing.T) {
	onDisk := t.TempDir()
	if _, err := volumesIn(t, onDisk).make("one", passphrase()); !errors.Is(err, errNotInMemory) {
		t.Errorf("on a disk: %v", err)
	}
	shared := memory(t)
	if err := os.MkdirAll(filepath.Join(shared, "lab"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(shared, "lab"), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := volumesIn(t, shared).make("one", passphrase()); err == nil || !strings.Contains(err.Error(), "others may write") {
		t.Errorf("in a folder of everybody's: %v", err)
	}
	if _, err := volumesIn(t, "").make("one", passphrase()); err == nil {
		t.Error("without a folder")
	}
	for _, dir := range []string{onDisk, shared} {
		if left, _ := filepath.Glob(dir + "/*/*"); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// The volume is added behind what there is, as a disk that nobody takes for another.
func TestWithKeyVolume(t *testing.T) {
	text, err := withKeyVolume(strings.Replace(domainText, "</domain>", "<seclabel type='none'/></domain>", 1), "/run/k&l/one.bek")
	if err != nil {
		t.Fatal(err)
	}
	d, err := parseDomain(text)
	if err != nil {
		t.Fatal(err)
	}
	disk := d.Devices.Disks[len(d.Devices.Disks)-1]
	if disk.Source.File.File != "/run/k&l/one.bek" || disk.ReadOnly == nil || disk.Target.Bus != "virtio" || disk.Target.Dev != "vdz" || disk.Serial != keySerial {
		t.Errorf("%+v", disk)
	}
	all := disksOf(d)
	if last := all[len(all)-1]; last.Left == "" {
		t.Errorf("the volume for keys would be backed up: %+v", last)
	}
	if _, err := withKeyVolume("<domain/>", "/x"); err == nil {
		t.Error("a definition without devices")
	}
}
