package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"kluis/internal/armid"
	"kluis/internal/client"
	"kluis/test/guest"
)

// The guest that is backed up while it runs.
const (
	livePassphrase = "what opens the disk of the bench"
	liveDisk       = "1G"
	liveFiles      = 8  // of 8 MiB each
	liveWrites     = 64 // MiB that guestwrites writes over
	liveChange     = 8  // MiB between two backups
	liveRate       = "5MB"
)

// liveName is the guest's name. One that was left behind is not in the way.
var liveName = fmt.Sprintf("kluis-bench-%d", os.Getpid())

// machine is a guest and who backs it up.
type machine struct {
	b   *bench
	lab *guest.Lab
	g   *guest.Guest

	kluis, peer steps
	impact      []impact
}

// steps are what one program was measured with.
type steps struct {
	full, increment, restore measured
	first, growth            int64 // bytes stored by the full backup, and by the increment
}

// live measures backups of one machine while it runs, beside virtnbdbackup, and what the guest feels of them.
func (b *bench) live(ctx context.Context) (err error) {
	say("a guest, emulated in software")
	m := &machine{b: b}
	b.machine = m
	if m.lab, err = guest.NewLab(ctx, ""); err != nil { // QEMU must come through to it, and not to where the bench works
		return err
	}
	defer func() { err = errors.Join(err, m.lab.Close()) }()
	defer func() {
		if m.g != nil {
			err = errors.Join(err, m.g.Remove(context.WithoutCancel(ctx)))
		}
	}()
	if err := m.start(ctx); err != nil {
		return err
	}
	for round := range b.rounds {
		say("back up and restore it: round %d of %d", round+1, b.rounds)
		if err := m.round(ctx, round); err != nil {
			return err
		}
	}
	return m.feel(ctx)
}

// start makes the guest and fills its disk.
func (m *machine) start(ctx context.Context) error {
	program := filepath.Join(m.lab.Dir, "guestwrites")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./bench/guestwrites")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build guestwrites: %w\n%s", err, out)
	}
	if err := m.lab.Add(ctx, program); err != nil {
		return err
	}
	disk, err := m.lab.Disk(ctx, "disk.qcow2", "qcow2", liveDisk)
	if err != nil {
		return err
	}
	key, err := m.lab.KeyVolume(ctx, "key", livePassphrase)
	if err != nil {
		return err
	}
	m.g, err = m.lab.Define(ctx, guest.Config{Name: liveName, Arguments: fmt.Sprintf("guest.format=1 guest.files=%d guest.kb=8192", liveFiles),
		Metadata: "<kluis:vm xmlns:kluis='urn:kluis:vm:1' group='bench'/>",
		Disks:    []guest.Disk{{Path: disk, Format: "qcow2"}, {Path: key, Format: "raw", ReadOnly: true}}})
	if err != nil {
		return err
	}
	if err := m.g.Start(ctx); err != nil {
		return err
	}
	_, err = m.g.Run(ctx, fmt.Sprintf("dd if=/dev/urandom of=/data/writes bs=1024 count=%d && sync", liveWrites<<10))
	return err
}

// round lets the two programs, one after the other, back up the machine, a change after it, and restore that.
func (m *machine) round(ctx context.Context, round int) error {
	if err := m.forget(ctx); err != nil {
		return err
	}
	if err := m.roundOfKluis(ctx, round); err != nil {
		return err
	}
	// virtnbdbackup wants to be alone with a machine.
	if err := m.forget(ctx); err != nil {
		return err
	}
	return m.roundOfPeer(ctx)
}

func (m *machine) roundOfKluis(ctx context.Context, round int) (err error) {
	s, err := m.serve(ctx, round)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := m.setUp(ctx, s); err != nil {
		return err
	}
	err = m.steps(ctx, &m.kluis, filepath.Join(s.dir, "store"), func(of *measured, _ string) error {
		return s.measure(ctx, of, "backup", "now", liveName)
	})
	if err != nil {
		return err
	}
	if err := s.run(ctx, nil, "group", "create", "restored"); err != nil {
		return err
	}
	return s.measure(ctx, &m.kluis.restore, "restore", "disks", "--item", liveName, "--point", "latest", "--target-group", "restored", "--storage-account", "staging")
}

func (m *machine) roundOfPeer(ctx context.Context) error {
	dir, out := m.b.path("virtnbdbackup"), m.b.path("virtnbdrestore")
	err := m.steps(ctx, &m.peer, dir, func(of *measured, level string) error { return m.peerBackup(ctx, of, level, dir) })
	if err != nil {
		return err
	}
	if err := m.b.time(ctx, &m.peer.restore, nil, "virtnbdrestore", "-i", dir, "-o", out, "-n", "-L", out+".log"); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(dir), os.RemoveAll(out))
}

func (m *machine) peerBackup(ctx context.Context, of *measured, level, dir string) error {
	return m.b.time(ctx, of, nil, "virtnbdbackup", "-d", liveName, "-l", level, "-o", dir, "-S", m.lab.Dir, "-n")
}

// steps measures a full backup into a folder, and an increment after a change.
func (m *machine) steps(ctx context.Context, of *steps, dir string, backup func(of *measured, level string) error) error {
	if err := grow(&of.first, dir, func() error { return backup(&of.full, "full") }); err != nil {
		return err
	}
	if _, err := m.g.Run(ctx, fmt.Sprintf("dd if=/dev/urandom of=/data/f001 bs=1024 count=%d conv=notrunc && sync", liveChange<<10)); err != nil {
		return err
	}
	return grow(&of.growth, dir, func() error { return backup(&of.increment, "inc") })
}

// forget removes all checkpoints of the machine, when the last job has ended: virtnbdbackup does not wait for that.
func (m *machine) forget(ctx context.Context) error {
	err := guest.Eventually(ctx, func() (bool, error) {
		job, err := guest.Virsh(ctx, "domjobinfo", liveName)
		return strings.Contains(job, "None"), err
	})
	if err != nil {
		return err
	}
	names, err := guest.Virsh(ctx, "checkpoint-list", "--name", liveName)
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(names) {
		if _, err := guest.Virsh(ctx, "checkpoint-delete", liveName, name); err != nil {
			return err
		}
	}
	return nil
}

// grow measures by how much a folder has grown.
func grow(by *int64, dir string, do func() error) error {
	before, err := storedIn(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	after, err := storedIn(dir)
	*by = after - before
	return err
}

// storedIn is what the files of a backup hold. This guest boots from a kernel on its host, as few machines do, and virtnbdbackup
// keeps kernel and initramfs with each backup: they don't count.
func storedIn(dir string) (int64, error) {
	all, err := treeSize(dir)
	for _, pattern := range []string{"vmlinuz*", "initrd*"} {
		found, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, path := range found {
			info, err := os.Stat(path)
			if err != nil {
				return 0, err
			}
			all -= info.Size()
		}
	}
	return all, err
}

// serve starts the server of a round, for the first time or again.
func (m *machine) serve(ctx context.Context, round int, flags ...string) (*server, error) {
	dir := m.b.path(fmt.Sprintf("live-%d", round))
	return m.b.startServer(ctx, dir, "sqlite:"+dir+".db", append(flags, "--hosts", "bench="+guest.URI, "--allow-images", m.lab.Dir, "--live-dir", filepath.Join(m.lab.Dir, "live"), "--key-dir", m.b.path("keys"))...)
}

// setUp protects the machine on a new server.
func (m *machine) setUp(ctx context.Context, s *server) error {
	pass := s.dir + ".pass"
	if err := os.WriteFile(pass, []byte(livePassphrase), 0o600); err != nil {
		return err
	}
	err := guest.Eventually(ctx, func() (bool, error) { return s.run(ctx, nil, "vm", "show", liveName) == nil, nil })
	if err != nil {
		return fmt.Errorf("wait for the machine to be found: %w", err)
	}
	var vault, bek struct{ ID string }
	var key struct{ Key struct{ Kid string } }
	for _, step := range []struct {
		v    any
		args string
	}{
		{&vault, fmt.Sprintf("keyvault create bench-%d", os.Getpid())},
		{&key, "key create kek"},
		{&bek, "secret set bek --wrap-with kek --bek-file " + pass},
		{nil, "vault create bench --redundancy local"},
		{nil, fmt.Sprintf("keyvault grant-backup bench-%d", os.Getpid())},
	} {
		if err := s.run(ctx, step.v, strings.Fields(step.args)...); err != nil {
			return err
		}
	}
	if err := s.encrypt(ctx, vault.ID, bek.ID, key.Key.Kid); err != nil {
		return err
	}
	return s.run(ctx, nil, "item", "enable", liveName)
}

// encrypt tells the server what opens the machine's disk. The command that does it tries the key first, on a disk that nobody
// else has open.
func (s *server) encrypt(ctx context.Context, vault, secret, key string) error {
	admin, err := client.ReadAdmin(filepath.Join(s.dir, "admin.json"))
	if err != nil {
		return err
	}
	c, err := client.New(admin)
	if err != nil {
		return err
	}
	id, err := armid.Parse(vault)
	if err != nil {
		return err
	}
	return c.SetEncryption(ctx, c.VMID("bench", liveName), c.DiskID("bench", liveName+"-vda"), client.Encryption(id, secret, key))
}

// measure measures a command that waits for a job of the server. The memory is the server's: that is where the work is done.
func (s *server) measure(ctx context.Context, m *measured, args ...string) error {
	proc := fmt.Sprintf("/proc/%d/", s.cmd.Process.Pid)
	if err := os.WriteFile(proc+"clear_refs", []byte("5"), 0); err != nil { // the peak begins anew
		return err
	}
	if err := s.b.time(ctx, m, s.env(), append([]string{s.b.kluis}, append(args, "--output", "json")...)...); err != nil {
		return err
	}
	var kib int64
	_, err := fmt.Sscan(lineOf(proc+"status", "VmHWM"), &kib)
	m.runs[len(m.runs)-1].memory = kib << 10
	return err
}
