// Package live_test holds the stories of VMs that run: a real server, real guests under libvirt, and everything in
// between that can die.
package live_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kluis/internal/armid"
	"kluis/internal/client"
	"kluis/internal/secret"
	"kluis/test/guest"
	"kluis/test/stage"
)

func TestMain(m *testing.M) {
	code := m.Run()
	guest.End()
	if binaryFolder != "" {
		_ = os.RemoveAll(binaryFolder)
	}
	os.Exit(code)
}

var (
	binaryFolder string
	binary       = sync.OnceValues(func() (string, error) {
		var err error
		if binaryFolder, err = os.MkdirTemp("", "kluis-live-bin-"); err != nil {
			return "", err
		}
		return stage.Build(context.Background(), binaryFolder)
	})
)

// world is a server that looks after this machine's libvirt, and a guest on it that is protected.
type world struct {
	t *testing.T
	*stage.Server
	g      *guest.Guest
	image  string // the guest's disk that is encrypted
	system string // the one from which it boots, if it does
	live   string
	group  string // the resource group of host and guest
	vm     armid.ID
	disk   armid.ID
	keys   stage.Keys
	vault  armid.ID
	item   client.Item

	points int // how many were in the store when the last one was there
}

// newWorld starts all of it. The guest's file /data/w is there to be written.
func newWorld(t *testing.T, kind string) *world {
	return newWorldOn(t, kind, guest.URI, guest.Config{})
}

// newWorldOn is a world on a libvirt daemon, with a guest that is more than usual. There may be another daemon, to which it can
// move.
func newWorldOn(t *testing.T, kind, uri string, more guest.Config, there ...string) *world {
	t.Helper()
	lab := guest.Shared(t).On(uri)
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	name := guest.Name(kind)
	w := &world{t: t, group: name, live: filepath.Join(lab.Dir, name+"-live")}
	restored := filepath.Join(lab.Dir, name+"-restored")
	if err := errors.Join(os.Mkdir(restored, 0o711), os.Chmod(restored, 0o711)); err != nil { // QEMU is another user
		t.Fatal(err)
	}
	w.startGuest(lab, name, more)
	hosts := name + "=" + uri
	for _, uri := range there {
		hosts += "," + name + "-there=" + uri
	}
	server, err := stage.Start(program, t.TempDir(), "KLUIS_HOSTS="+hosts, "KLUIS_HOST_LOCATION="+stage.Location, "KLUIS_LIVE_DIR="+w.live,
		"KLUIS_RESTORE_DIR="+restored, "KLUIS_KEY_DIR="+keyFolder(t), "KLUIS_SCRATCH_RESERVE=1MiB", "KLUIS_LOG_LEVEL=debug")
	if err != nil {
		t.Fatal(err)
	}
	w.Server = server
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			for line := range strings.Lines(server.Log()) {
				if !strings.Contains(line, "msg=request ") { // what was asked is in the test
					t.Log(line)
				}
			}
		}
	})
	w.protect()
	return w
}

// keyFolder is a folder in memory.
func keyFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "kluis-keys-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// startGuest starts the guest before the server, which is to find it.
func (w *world) startGuest(lab *guest.Lab, name string, c guest.Config) {
	w.t.Helper()
	ctx := w.t.Context()
	disk, err := lab.Disk(ctx, name+".qcow2", "qcow2", "256M")
	if err != nil {
		w.t.Fatal(err)
	}
	bek, err := lab.KeyVolume(ctx, name+".bek", passphrase)
	if err != nil {
		w.t.Fatal(err)
	}
	w.image = disk
	c.Name, c.Metadata = name, "<kluis:vm xmlns:kluis='urn:kluis:vm:1' group='"+name+"'/>"
	c.Arguments += " guest.format=1"
	c.Disks = []guest.Disk{{Path: disk, Format: "qcow2"}, {Path: bek, Format: "raw", ReadOnly: true}}
	if c.SecureBoot {
		if w.system, err = lab.SystemDisk(ctx, name+"-os.qcow2", c.Arguments); err != nil {
			w.t.Fatal(err)
		}
		c.Disks = slices.Insert(c.Disks, 0, guest.Disk{Path: w.system, Format: "qcow2"})
	}
	if w.g, err = lab.Define(ctx, c); err != nil {
		w.t.Fatal(err)
	}
	w.g.RemoveAfter(w.t)
	if err := w.g.Start(ctx); err != nil {
		w.t.Fatal(err)
	}
}

const passphrase = "what opens the guest's disk"

// protect waits until the server has found the guest, tells it the disk's key, and protects it.
func (w *world) protect() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	w.vm = w.VMID(w.group, w.g.Name)
	w.disk = w.DiskID(w.group, w.g.Name+"-vda")
	if w.system != "" {
		w.disk = w.DiskID(w.group, w.g.Name+"-vdb")
	}
	err := guest.Eventually(ctx, func() (bool, error) {
		_, err := w.VM(ctx, w.vm)
		if client.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		w.t.Fatalf("the server does not find the guest: %v", err)
	}
	steps := []func() error{
		func() (err error) {
			w.keys, err = w.NewKeys(ctx, w.group, "k"+fmt.Sprint(os.Getpid()))
			return err
		},
		func() error {
			bek, err := w.SetBEK(ctx, w.keys.Vault.Properties.VaultURI, client.BEK{Name: "bek", Key: secret.New([]byte(passphrase)), KEK: w.keys.KEK.ID(), Machine: w.g.Name})
			if err != nil {
				return err
			}
			return w.SetEncryption(ctx, w.vm, w.disk, client.Encryption(w.keys.Vault.ARMID(), bek.ID, w.keys.KEK.ID()))
		},
		func() (err error) {
			w.vault = w.RecoveryVaultID(w.group, "vault")
			_, err = w.PutRecoveryVault(ctx, w.vault, stage.Location, "LocallyRedundant")
			return err
		},
		func() (err error) {
			w.item, err = w.EnableProtection(ctx, w.vault, w.vm, "DefaultPolicy")
			return err
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			w.t.Fatal(err)
		}
	}
}

// begin asks for a backup and returns its job.
func (w *world) begin() string {
	w.t.Helper()
	job, err := w.Backup(w.t.Context(), w.item.ARMID(), "")
	if err != nil {
		w.t.Fatal(err)
	}
	return job
}

// point waits for a backup and returns the recovery point that it made, which is proved.
func (w *world) point(job string) client.Point {
	w.t.Helper()
	p := w.taken(job)
	if p.Properties.Proof == nil || p.Properties.Proof.State != client.Proved {
		w.t.Errorf("point %s is not proved: %+v", p.Name, p.Properties.Proof)
	}
	return p
}

// taken is point for disks that need no proof.
func (w *world) taken(job string) client.Point {
	w.t.Helper()
	j, err := w.WaitJob(w.t.Context(), w.vault, job, nil)
	if err != nil {
		w.t.Fatalf("job %s: %v", job, err)
	}
	p, err := w.RecoveryPoint(w.t.Context(), w.item.ARMID(), j.Properties.Bag("Recovery Point Id"))
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// clean fails if something of a backup is left on the host, or the guest is frozen.
func (w *world) clean() {
	w.t.Helper()
	ctx := w.t.Context()
	if names, err := w.g.Virsh(ctx, "checkpoint-list", "--name", w.g.Name); err != nil || len(strings.Fields(names)) != 1 {
		w.t.Errorf("checkpoints %q %v, want one", strings.Fields(names), err)
	}
	if left, err := os.ReadDir(w.live); err != nil || len(left) > 0 {
		w.t.Errorf("left in the live folder: %v %v", left, err)
	}
	if state, err := w.g.State(ctx); err != nil || state != "running" {
		return
	}
	if job, err := w.g.Virsh(ctx, "domjobinfo", w.g.Name); err != nil || !strings.Contains(job, "None") {
		w.t.Errorf("a job is left: %s %v", job, err)
	}
	if err := w.thawed(ctx); err != nil {
		w.t.Error(err)
	}
}

func (w *world) thawed(ctx context.Context) error {
	status, err := w.g.Agent(ctx, "guest-fsfreeze-status", nil)
	if err == nil && string(status) != `"thawed"` {
		err = fmt.Errorf("the guest is %s", status)
	}
	return err
}

// same stops the guest, backs it up once more and fails unless what a restore writes is what its image holds.
func (w *world) same() {
	w.t.Helper()
	w.stop()
	p := w.point(w.begin())
	if d := p.Properties.Disks[0]; !d.Incremental {
		w.t.Errorf("the last backup read all: %s", d.Rescanned)
	}
	w.equals(p)
}

// stop shuts the guest down and waits until it is off.
func (w *world) stop() {
	w.t.Helper()
	ctx := w.t.Context()
	if _, err := w.g.Virsh(ctx, "shutdown", "--mode", "agent", w.g.Name); err != nil {
		w.t.Fatal(err)
	}
	if err := guest.Eventually(ctx, func() (bool, error) {
		state, err := w.g.State(ctx)
		return state == "shut off", err
	}); err != nil {
		w.t.Fatal(err)
	}
}

// equals fails unless what a restore of a point writes is what the image of the guest holds, which is off.
func (w *world) equals(p client.Point) {
	w.t.Helper()
	restored := w.restore(p)
	raw := filepath.Join(w.t.TempDir(), "raw")
	if out, err := exec.CommandContext(w.t.Context(), "qemu-img", "convert", "-O", "raw", w.image, raw).CombinedOutput(); err != nil {
		w.t.Fatalf("qemu-img convert: %v: %s", err, out)
	}
	if got, want := sumOf(w.t, restored), sumOf(w.t, raw); got != want {
		w.t.Error("the restored disk is not the one that was backed up")
	}
}

// restore restores the disk of a point and returns its file.
func (w *world) restore(p client.Point) string {
	w.t.Helper()
	_, target := w.restoreDisks(p)
	disks, err := w.Disks(w.t.Context(), target)
	if err != nil || len(disks) != 1 {
		w.t.Fatalf("restored %d disks, %v", len(disks), err)
	}
	return strings.TrimPrefix(disks[0].Properties.CreationData.SourceURI, "file://")
}

// restoreDisks restores the disks of a point into a resource group.
func (w *world) restoreDisks(p client.Point) (job client.Job, group armid.ID) {
	w.t.Helper()
	ctx := w.t.Context()
	account := w.StorageAccountID(w.group, "staging")
	_, err := w.PutStorageAccount(ctx, account, stage.Location)
	target, groupErr := w.PutGroup(ctx, w.group+"-restored", stage.Location)
	if err := errors.Join(err, groupErr); err != nil {
		w.t.Fatal(err)
	}
	begun, err := w.RestoreDisks(ctx, w.item, p.Name, client.RestoreRequest{TargetGroup: target.ARMID(), StorageAccount: account, Region: stage.Location})
	if err == nil {
		job, err = w.WaitJob(ctx, w.vault, begun, nil)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return job, target.ARMID()
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// A guest writes while it is backed up, fully and three times in increments. Each point is proved with its own keys,
// and is worth a clean shutdown to its file systems.
func TestBackUpWhileTheGuestWrites(t *testing.T) {
	w := newWorld(t, "story")
	for round := range 4 {
		if _, err := w.g.Begin(t.Context(), "dd if=/dev/urandom of=/data/w bs=1024 count=2048; sync"); err != nil {
			t.Fatal(err)
		}
		p := w.point(w.begin())
		d := p.Properties.Disks[0]
		if p.Properties.Type != "FileSystemConsistent" || p.Properties.FrozenMS <= 0 || d.Incremental != (round > 0) || d.Rescanned != "" {
			t.Errorf("round %d: %s, frozen %d ms, incremental %t, %s", round, p.Properties.Type, p.Properties.FrozenMS, d.Incremental, d.Rescanned)
		}
		w.clean()
	}
	w.same()
	w.forget()
}

// forget deletes the item. Its VM, which is stopped, goes on without any checkpoint.
func (w *world) forget() {
	w.t.Helper()
	ctx := w.t.Context()
	if err := w.DeleteItem(ctx, w.item.ARMID()); err != nil {
		w.t.Fatal(err)
	}
	if err := guest.Eventually(ctx, func() (bool, error) {
		names, err := w.g.Virsh(ctx, "checkpoint-list", "--name", w.g.Name)
		return names == "", err
	}); err != nil {
		w.t.Error(err)
	}
	if said, err := exec.CommandContext(ctx, "qemu-img", "info", "-U", w.image).CombinedOutput(); err != nil || strings.Contains(string(said), "name: kluis-") {
		w.t.Errorf("the image still notes what changes: %v: %s", err, said)
	}
}

// The server is killed in each phase of a backup. The guest is never left frozen; the backup that was cut off is done
// when the server is there again; nothing is left behind; and the next increment is right.
func TestKillTheServer(t *testing.T) {
	w := newWorld(t, "kill")
	w.point(w.begin())
	for _, phase := range w.phases() {
		t.Run(phase.name, func(t *testing.T) {
			if _, err := w.g.Run(t.Context(), "dd if=/dev/urandom of=/data/w bs=1024 count=8192; sync"); err != nil {
				t.Fatal(err)
			}
			job := w.begin()
			seen := w.awaitPhase(job, phase.is)
			if err := w.Kill(); err != nil {
				t.Fatal(err)
			}
			if !seen {
				t.Log("the phase was over before it was seen; the kill came after it")
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := guest.Eventually(ctx, func() (bool, error) { return w.thawed(ctx) == nil, nil }); err != nil {
				t.Error("the guest is left frozen")
			}
			if err := w.Again(); err != nil {
				t.Fatal(err)
			}
			w.point(job)
			w.clean()
		})
	}
	w.same()
}

// phase is a part of a backup in which something can die.
type phase struct {
	name string
	is   func(context.Context) bool
}

// phases are those in which the host has more than the guest at work.
func (w *world) phases() []phase {
	mark := filepath.Join(w.Data, "run", "frozen", w.group)
	job := func(ctx context.Context, kind string) bool {
		is, err := w.g.Virsh(ctx, "domjobinfo", w.g.Name)
		return err == nil && strings.Contains(is, kind)
	}
	return []phase{
		{"freeze", func(context.Context) bool { marks, err := os.ReadDir(mark); return err == nil && len(marks) > 0 }},
		{"transfer", func(ctx context.Context) bool { return job(ctx, "Backup") }},
		{"commit", func(ctx context.Context) bool {
			names, err := w.g.Virsh(ctx, "checkpoint-list", "--name", w.g.Name)
			return err == nil && len(strings.Fields(names)) == 2 && job(ctx, "None")
		}},
		{"checkpoint swap", func(context.Context) bool { return w.committed() > w.points }},
	}
}

// committed counts the recovery points that are in the store, also those that no list has yet.
func (w *world) committed() int {
	w.t.Helper()
	roots, err := filepath.Glob(filepath.Join(w.Data, "store", "stores", "*", "*", "points", "*"))
	if err != nil {
		w.t.Fatal(err)
	}
	return len(roots)
}

// awaitPhase waits until a phase of a job is seen, or the job is over.
func (w *world) awaitPhase(job string, is func(context.Context) bool) (seen bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	over := make(chan struct{})
	go func() {
		_, _ = w.WaitJob(ctx, w.vault, job, nil)
		close(over)
	}()
	for {
		if is(ctx) {
			return true
		}
		select {
		case <-over:
			return false
		default:
		}
	}
}
