package recoveryservices

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"net"
	"strings"
	"text/template"

	"kluis/internal/api/arm"
	"kluis/internal/backup"
	"kluis/internal/problem"
)

// Azure's item level recovery mounts a recovery point on the client's machine, by a script that the client runs.
// Here the disks come over NBD, and the script is for Linux. A mount that is asked for again is another one.

// provision mounts a recovery point. The answer to the operation has the script.
func (d *door) provision(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body mountRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	p := body.Properties
	if named := p.PointID[strings.LastIndexByte(p.PointID, '/')+1:]; named != "" && named != r.ID.Name() {
		return nil, otherPoint(r.ID.Name(), named)
	}
	m, err := d.s.Provision(ctx, backup.MountRequest{Point: r.ID, Disks: p.Disks, Decrypted: p.Decrypt})
	if err != nil {
		return nil, err
	}
	m.Access.Key.Wipe() // a copy, and this answer has none
	item := r.ID.Parent()
	return arm.Accepted(r.URL(item.Child("operationsStatus", m.ID).String()), r.URL(item.Child("operationResults", m.ID).String())), nil
}

// revoke ends the mounts of a recovery point, or one. It is over when it is answered, as a refresh is.
func (d *door) revoke(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body revokeRequest
	if r.HTTP.ContentLength != 0 { // Azure's request has no body
		if err := r.Decode(&body); err != nil {
			return nil, err
		}
	}
	if err := d.s.Revoke(ctx, r.ID, body.Properties.Mount); err != nil {
		return nil, err
	}
	return d.isOver(r), nil
}

// mountStatus is the status of the operation that made a mount. noJob is what to say if there is no mount either.
func (d *door) mountStatus(ctx context.Context, r *arm.Request, noJob error) (*arm.Reply, error) {
	m, properties, err := d.mounted(ctx, r, noJob)
	if err != nil {
		return nil, err
	}
	at := azureTime(m.Created)
	return arm.OK(operationBody{m.ID, m.ID, "Succeeded", at, at, properties}), nil
}

func (d *door) mountResult(ctx context.Context, r *arm.Request, noJob error) (*arm.Reply, error) {
	_, properties, err := d.mounted(ctx, r, noJob)
	if err != nil {
		return nil, err
	}
	return arm.OK(properties), nil
}

func (d *door) mounted(ctx context.Context, r *arm.Request, noJob error) (backup.Mount, *operationMount, error) {
	m, err := d.s.Mount(ctx, vaultOf(r.ID), r.ID.Name())
	if k := problem.KindOf(err); k == problem.NotFound || k == problem.Denied {
		return m, nil, noJob
	}
	if err != nil {
		return m, nil, err
	}
	defer m.Access.Key.Wipe()
	script, err := mountScript(m)
	if err != nil {
		return m, nil, fmt.Errorf("write script of mount %s: %w", m.ID, err)
	}
	// The key goes to whoever asked for the mount, over TLS; the answer is the one place where it is told.
	body := mountBody{ID: m.ID, Expiry: azureTime(m.Expiry), Decrypted: m.Decrypted, Address: m.Access.Address,
		Authority: string(m.Access.Authority), Certificate: string(m.Access.Certificate), Key: string(m.Access.Key.Reveal())}
	for _, disk := range m.Disks {
		body.Disks = append(body.Disks, mountedDisk{disk.Disk, disk.Partition, disk.Export, disk.Size(), disk.Encryption})
	}
	return m, &operationMount{"OperationStatusProvisionILRExtendedInfo",
		recoveryTarget{[]clientScript{{Content: script, Extension: ".sh", OSType: "Linux", Suffix: scriptName(m)}}}, body}, nil
}

// scriptName is what az calls the file: the VM and the recovery point. (It looks for a password behind the 33rd
// character after the underscore; there is none.)
func scriptName(m backup.Mount) string {
	item := m.Point.Parent().Name()
	return item[strings.LastIndexByte(item, ';')+1:] + "_" + m.Point.Name()
}

// mount.sh.tmpl attaches the disks of a mount with QEMU's tools, and mounts what is in them.
//
//go:embed mount.sh.tmpl
var mountTemplate string

var mountScripts = template.Must(template.New("mount.sh").Funcs(template.FuncMap{
	"word":   shellWord,
	"option": func(s string) string { return strings.ReplaceAll(s, ",", ",,") }, // as QEMU escapes them
}).Parse(mountTemplate))

func mountScript(m backup.Mount) ([]byte, error) {
	host, port, err := net.SplitHostPort(m.Access.Address)
	if err != nil {
		return nil, err
	}
	type disk struct{ Name, Export string }
	about := struct {
		Point, Expiry, Host, Port   string
		Authority, Certificate, Key string
		Disks                       []disk
	}{m.Point.Name(), azureTime(m.Expiry), host, port, string(m.Access.Authority), string(m.Access.Certificate), string(m.Access.Key.Reveal()), nil}
	for _, d := range m.Disks {
		name := d.Disk
		if d.Partition > 0 {
			name += fmt.Sprintf(".%d", d.Partition)
		}
		about.Disks = append(about.Disks, disk{name, d.Export})
	}
	var b bytes.Buffer
	err = mountScripts.Execute(&b, about)
	return b.Bytes(), err
}

// shellWord makes one word of s for a shell.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
