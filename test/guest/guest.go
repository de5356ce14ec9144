// Package guest makes small real VMs for tests and for the demo: a Debian kernel with an initramfs that
// unlocks a LUKS2 disk with the passphrase on a BEK VOLUME, as a VM that Azure Disk Encryption has encrypted does, mounts it on
// /data, and runs the QEMU guest agent. They run under libvirt, in software where there is no KVM, and
// boot in some ten seconds. All of a guest is made of packages of Debian that are installed. One that boots by UEFI with
// Secure Boot does it from a disk of its own, as Debian does, has a TPM, and takes half a minute.
//
// A Lab holds kernel and initramfs. A Guest is a domain of it. Guests are looked after through virsh, a
// program that others wrote, so that what is tested does not test itself.
package guest

import (
	"bytes"
	"context"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
	"time"
)

//go:embed rootfs
var rootfs embed.FS

// URI is the libvirt daemon that guests run under.
const URI = "qemu:///system"

// Lab is a folder that QEMU can reach, with a kernel and an initramfs. Disks of guests belong there too.
type Lab struct {
	Dir string
	uri string // of the daemon that guests are defined on
}

// On is the same lab, with guests on another libvirt daemon.
func (l *Lab) On(uri string) *Lab { return &Lab{l.Dir, uri} }

// NewLab makes a lab in a new folder below parent; the system's temporary folder if that is empty.
func NewLab(ctx context.Context, parent string) (_ *Lab, err error) {
	dir, err := os.MkdirTemp(parent, "kluis-lab-")
	if err != nil {
		return nil, err
	}
	l := &Lab{dir, URI}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil { // QEMU is another user
		return nil, err
	}
	script := filepath.Join(dir, "rootfs")
	if err := os.Mkdir(script, 0o755); err != nil {
		return nil, err
	}
	for _, name := range []string{"build", "init", "shutdown", "lease", "firmware", "system"} {
		text, err := rootfs.ReadFile("rootfs/" + name)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(script, name), text, 0o755); err != nil {
			return nil, err
		}
	}
	if out, err := exec.CommandContext(ctx, filepath.Join(script, "build"), dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the guest: %w: %s", err, out)
	}
	return l, nil
}

// Add puts a program into the guests' /bin. It needs no libraries.
func (l *Lab) Add(ctx context.Context, program string) error {
	dir, name := filepath.Split(program)
	// An initramfs may be several archives behind each other.
	add := exec.CommandContext(ctx, "sh", "-c", `mkdir -p "$2/more/bin" && cp "$1/$0" "$2/more/bin/" && cd "$2/more" &&
		find . | cpio -o -H newc -R 0:0 --quiet | gzip -1n >>"$2/initrd.img"`, name, dir, l.Dir)
	if out, err := add.CombinedOutput(); err != nil {
		return fmt.Errorf("add %s to the guest: %w: %s", name, err, out)
	}
	return nil
}

// Close removes the folder. No guest may run.
func (l *Lab) Close() error { return os.RemoveAll(l.Dir) }

// Virsh runs virsh and returns what it says.
func Virsh(ctx context.Context, args ...string) (string, error) { return virsh(ctx, URI, args...) }

func virsh(ctx context.Context, uri string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "virsh", append([]string{"-q", "-c", uri}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("virsh %s: %w: %s", args[0], err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// Disk makes an empty disk image of the lab.
func (l *Lab) Disk(ctx context.Context, name, format, size string) (string, error) {
	path := filepath.Join(l.Dir, name)
	if out, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", format, path, size).CombinedOutput(); err != nil {
		return "", fmt.Errorf("qemu-img create: %w: %s", err, out)
	}
	return path, nil
}

// SystemDisk makes the disk of a guest that boots by UEFI with Secure Boot. What was added to the guests later is not on it.
func (l *Lab) SystemDisk(ctx context.Context, name, arguments string) (string, error) {
	path := filepath.Join(l.Dir, name)
	if out, err := exec.CommandContext(ctx, filepath.Join(l.Dir, "rootfs", "system"), l.Dir, path, kernelArguments+arguments).CombinedOutput(); err != nil {
		return "", fmt.Errorf("make a system disk: %w: %s", err, out)
	}
	return path, nil
}

// kernelArguments are what the kernel of every guest is started with.
const kernelArguments = "console=ttyS0 quiet panic=-1 nokaslr mitigations=off tsc=reliable "

// KeyVolume makes an image of a BEK VOLUME with a passphrase.
func (l *Lab) KeyVolume(ctx context.Context, name, passphrase string) (string, error) {
	path := filepath.Join(l.Dir, name)
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return "", err
	}
	if err := os.Truncate(path, 4<<20); err != nil {
		return "", err
	}
	if out, err := exec.CommandContext(ctx, "/usr/sbin/mkfs.vfat", "-n", "BEK VOLUME", path).CombinedOutput(); err != nil {
		return "", fmt.Errorf("mkfs.vfat: %w: %s", err, out)
	}
	copying := exec.CommandContext(ctx, "mcopy", "-i", path, "-", "::LinuxPassPhraseFileName")
	copying.Stdin = strings.NewReader(passphrase)
	if out, err := copying.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mcopy: %w: %s", err, out)
	}
	return path, nil
}

// Config describes a guest.
type Config struct {
	Name  string
	Disks []Disk // vda, vdb, … in order (a CD-ROM in place of vdc is sdc); the first that is no system disk is the one that it unlocks
	// Arguments of the kernel: guest.format=1 formats a blank first disk, guest.files=N and guest.kb=K say how much is then written;
	// guest.port=N, of a guest with a network interface, brings that up and serves the ports N and N+1.
	Arguments string
	Metadata  string // XML to put into <metadata>
	Devices   string // XML to put behind the other <devices>
	Memory    int    // MiB; if 0, 256, or 512 with SecureBoot: UEFI and what it starts need room of their own
	// SecureBoot is a guest that boots from its first disk, a system disk, which knows the arguments of the kernel; with a TPM.
	SecureBoot bool
}

// Disk is a disk of a guest.
type Disk struct {
	Path, Format string
	ReadOnly     bool
	Shareable    bool // other machines may write to it too
	Block        bool // Path is a block device
	CDROM        bool // an empty drive if Path is empty
}

// Guest is a domain that was defined.
type Guest struct {
	Name   string
	Serial string // the file that holds what it writes on its console
	uri    string
}

// Virsh runs virsh on the daemon that the guest runs under.
func (g *Guest) Virsh(ctx context.Context, args ...string) (string, error) {
	return virsh(ctx, g.uri, args...)
}

// Guest is the domain of a name that somebody else defined.
func (l *Lab) Guest(name string) *Guest {
	return &Guest{name, filepath.Join(l.Dir, name+".serial"), l.uri}
}

// Define makes a domain of a configuration.
func (l *Lab) Define(ctx context.Context, c Config) (*Guest, error) {
	g := l.Guest(c.Name)
	if c.Memory == 0 && c.SecureBoot {
		c.Memory = 512
	} else if c.Memory == 0 {
		c.Memory = 256
	}
	var text bytes.Buffer
	err := domain.Execute(&text, struct {
		Config
		*Guest
		Dir, KernelArguments string
	}{c, g, l.Dir, kernelArguments})
	if err != nil {
		return nil, err
	}
	path := filepath.Join(l.Dir, c.Name+".xml")
	if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
		return nil, err
	}
	_, err = g.Virsh(ctx, "define", path)
	return g, err
}

// Start starts the guest and waits until it has unlocked its disk and its agent answers.
func (g *Guest) Start(ctx context.Context) error {
	if err := os.Remove(g.Serial); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, err := g.Virsh(ctx, "start", g.Name); err != nil {
		return err
	}
	return g.Await(ctx)
}

// Await waits until a guest that was started is ready. It fails with what the guest says if it cannot be.
func (g *Guest) Await(ctx context.Context) error {
	return Eventually(ctx, func() (bool, error) {
		console, err := os.ReadFile(g.Serial)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
		if at := bytes.Index(console, []byte(" FAIL ")); at >= 0 {
			line, _, _ := bytes.Cut(console[at:], []byte("\n"))
			return false, fmt.Errorf("guest %s:%s", g.Name, line)
		}
		if !bytes.Contains(console, []byte(" READY")) {
			return false, nil
		}
		_, err = g.Agent(ctx, "guest-ping", nil)
		return err == nil, nil
	})
}

// Eventually asks until the answer is yes or an error.
func Eventually(ctx context.Context, is func() (bool, error)) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if yes, err := is(); yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Agent sends a command to the guest agent and returns what it returns.
func (g *Guest) Agent(ctx context.Context, command string, arguments map[string]any) (json.RawMessage, error) {
	request, err := json.Marshal(map[string]any{"execute": command, "arguments": arguments})
	if err != nil {
		return nil, err
	}
	if arguments == nil {
		request = []byte(`{"execute":"` + command + `"}`)
	}
	text, err := g.Virsh(ctx, "qemu-agent-command", "--timeout", "10", g.Name, string(request))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Return json.RawMessage `json:"return"`
	}
	return answer.Return, json.Unmarshal([]byte(text), &answer)
}

// Run runs a command of the guest's shell, waits for its end and returns what it says.
func (g *Guest) Run(ctx context.Context, command string) (string, error) {
	pid, err := g.Begin(ctx, command)
	if err != nil {
		return "", err
	}
	out, err := g.Wait(ctx, pid)
	if err != nil {
		err = fmt.Errorf("guest %s: %s: %w", g.Name, command, err)
	}
	return out, err
}

// Wait waits for the end of a command that was begun and returns what it says.
func (g *Guest) Wait(ctx context.Context, pid int64) (string, error) {
	var status struct {
		Exited   bool   `json:"exited"`
		ExitCode int    `json:"exitcode"`
		Out      string `json:"out-data"`
		Err      string `json:"err-data"`
	}
	err := Eventually(ctx, func() (bool, error) {
		text, err := g.Agent(ctx, "guest-exec-status", map[string]any{"pid": pid})
		if err != nil {
			return false, err
		}
		return json.Unmarshal(text, &status) == nil && status.Exited, nil
	})
	if err != nil {
		return "", err
	}
	out, _ := base64.StdEncoding.DecodeString(status.Out)
	if status.ExitCode != 0 {
		errs, _ := base64.StdEncoding.DecodeString(status.Err)
		return string(out), fmt.Errorf("code %d: %s", status.ExitCode, errs)
	}
	return strings.TrimSpace(string(out)), nil
}

// Begin runs a command of the guest's shell and does not wait for it.
func (g *Guest) Begin(ctx context.Context, command string) (pid int64, err error) {
	text, err := g.Agent(ctx, "guest-exec", map[string]any{"path": "/bin/sh", "arg": []string{"-c", command}, "capture-output": true})
	if err != nil {
		return 0, err
	}
	var started struct {
		PID int64 `json:"pid"`
	}
	return started.PID, json.Unmarshal(text, &started)
}

// State is what virsh says of the guest: "running", "shut off", "paused".
func (g *Guest) State(ctx context.Context) (string, error) { return g.Virsh(ctx, "domstate", g.Name) }

// Remove destroys the guest and forgets it. One that is gone is no error.
func (g *Guest) Remove(ctx context.Context) error {
	_, _ = g.Virsh(ctx, "destroy", g.Name)
	_, err := g.Virsh(ctx, "undefine", "--checkpoints-metadata", "--nvram", g.Name)
	if err != nil && strings.Contains(err.Error(), "failed to get domain") {
		return nil
	}
	return err
}

var domain = template.Must(template.New("domain").Funcs(template.FuncMap{
	"target": func(i int, d Disk) string {
		if d.CDROM {
			return "sd" + string(rune('a'+i))
		}
		return "vd" + string(rune('a'+i))
	},
}).Parse(`<domain type='qemu'>
  <name>{{.Config.Name}}</name>
  {{with .Metadata}}<metadata>{{.}}</metadata>{{end}}
  <memory unit='MiB'>{{.Memory}}</memory>
  <vcpu>1</vcpu>
  {{if .SecureBoot}}<os firmware='efi'>
    <type arch='x86_64' machine='q35'>hvm</type>
    <firmware><feature enabled='yes' name='secure-boot'/><feature enabled='yes' name='enrolled-keys'/></firmware>
  </os>
  <features><acpi/><smm state='on'/></features>{{else}}<os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{{.Dir}}/vmlinuz</kernel>
    <initrd>{{.Dir}}/initrd.img</initrd>
    <cmdline>{{.KernelArguments}}{{.Arguments}}</cmdline>
  </os>
  <features><acpi/></features>{{end}}
  <cpu mode='maximum'/>
  <on_poweroff>destroy</on_poweroff>
  <on_crash>destroy</on_crash>
  <devices>
    {{range $i, $d := .Disks}}<disk type='{{if .Block}}block{{else}}file{{end}}' device='{{if .CDROM}}cdrom{{else}}disk{{end}}'>
      <driver name='qemu' type='{{.Format}}' discard='unmap'/>
      {{with .Path}}<source {{if $d.Block}}dev{{else}}file{{end}}='{{.}}'/>{{end}}
      <target dev='{{target $i $d}}' bus='{{if .CDROM}}sata{{else}}virtio{{end}}'/>
      {{if .ReadOnly}}<readonly/>{{end}}{{if .Shareable}}<shareable/>{{end}}
    </disk>
    {{end}}<serial type='file'><source path='{{.Serial}}'/><target port='0'/></serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    {{if .SecureBoot}}<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>{{end}}
    <video><model type='none'/></video>
    {{.Devices}}
  </devices>
</domain>
`))
