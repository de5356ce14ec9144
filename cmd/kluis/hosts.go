package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/fabric"
	"kluis/internal/fabric/libvirt"
	"kluis/internal/keyservice"
	"kluis/internal/keyvault"
	"kluis/internal/problem"
	"kluis/internal/resources"
	"kluis/internal/secret"
)

// hosts are the libvirt hosts whose machines this server looks after.
type hosts []*libvirt.Host

// hostName is what a host may be called: its resource group has that name.
var hostName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// hostSetting is one host as it is configured.
type hostSetting struct{ name, uri string }

func parseHosts(settings []string) (all []hostSetting, err error) {
	for _, s := range settings {
		name, uri, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("hosts %q is not NAME=URI, such as lab=qemu:///system", s)
		}
		if !hostName.MatchString(name) {
			return nil, fmt.Errorf("hosts: %q is no name of a host: lower-case letters, digits and hyphens, at most 63", name)
		}
		if u, err := url.Parse(uri); err != nil || u.Scheme != "qemu" && !strings.HasPrefix(u.Scheme, "qemu+") {
			return nil, fmt.Errorf("hosts: %q is no URI of a QEMU host, such as qemu:///system or qemu+tls://HOST/system", uri)
		}
		if slices.ContainsFunc(all, func(h hostSetting) bool { return h.name == name }) {
			return nil, fmt.Errorf("hosts: the name %s is there twice", name)
		}
		all = append(all, hostSetting{name, uri})
	}
	return all, nil
}

// openHosts makes the hosts of the configuration. None is connected to yet.
func (c config) openHosts(log *slog.Logger) (all hosts, err error) {
	settings, err := parseHosts(c.Hosts)
	if err != nil {
		return nil, err
	}
	reserve, err := humanize.ParseBytes(c.Reserve)
	if err != nil {
		return nil, fmt.Errorf("scratch-reserve: %w", err)
	}
	ports, err := libvirt.ParsePorts(c.NBDPorts)
	if err != nil {
		return nil, fmt.Errorf("nbd-ports: %w", err)
	}
	guard, err := guards()
	if err != nil {
		return nil, err
	}
	for _, s := range settings {
		h, err := libvirt.New(libvirt.Options{Name: s.name, URI: s.uri, LiveDir: c.LiveDir, Ports: ports, KeyDir: c.KeyDir, ScratchReserve: int64(min(reserve, 1<<62)),
			MarkDir: filepath.Join(c.Data, "run", "frozen", s.name), Guard: guard, Now: time.Now, Log: log})
		if err != nil {
			return nil, err
		}
		all = append(all, h)
	}
	return all, nil
}

// on finds a host. One that is not configured is away.
func (h hosts) on(name string) (*libvirt.Host, error) {
	for _, host := range h {
		if host.Name() == name {
			return host, nil
		}
	}
	return nil, &fabric.HostError{Host: name, Kind: fabric.Away, Err: errors.New("it is not configured")}
}

// Start implements compute.Hosts.
func (h hosts) Start(ctx context.Context, host, uuid string, keys []fabric.KeyFile) error {
	return h.do(host, func(on *libvirt.Host) error { return on.Start(ctx, uuid, keys) })
}

// Rekey implements compute.Hosts.
func (h hosts) Rekey(ctx context.Context, host, uuid string, keys []fabric.KeyFile) error {
	return h.do(host, func(on *libvirt.Host) error { return on.Rekey(ctx, uuid, keys) })
}

// Stop implements compute.Hosts.
func (h hosts) Stop(ctx context.Context, host, uuid string) error {
	return h.do(host, func(on *libvirt.Host) error { return on.Stop(ctx, uuid) })
}

// Destroy implements compute.Hosts.
func (h hosts) Destroy(ctx context.Context, host, uuid string) error {
	return h.do(host, func(on *libvirt.Host) error { return on.Destroy(ctx, uuid) })
}

// Define implements compute.Hosts.
func (h hosts) Define(ctx context.Context, host string, spec fabric.MachineSpec) (m fabric.Machine, err error) {
	err = h.do(host, func(on *libvirt.Host) error { m, err = on.Define(ctx, spec); return err })
	return m, err
}

// Undefine implements compute.Hosts.
func (h hosts) Undefine(ctx context.Context, host, uuid string) error {
	return h.do(host, func(on *libvirt.Host) error { return on.Undefine(ctx, uuid) })
}

func (h hosts) do(name string, what func(*libvirt.Host) error) error {
	host, err := h.on(name)
	if err != nil {
		return err
	}
	return what(host)
}

// hostGroups makes the resource groups of what hosts run.
type hostGroups struct {
	*resources.Service
	location string
}

// EnsureGroup implements compute.HostGroups.
func (g hostGroups) EnsureGroup(ctx context.Context, name string) (string, error) {
	return g.Service.EnsureGroup(ctx, name, g.location)
}

// nics gives the documents of network interfaces the shape that the compute service asks for.
type nics struct{ *resources.Service }

// networkTag is the tag of a network interface that names a network of its VM's host; none leaves the interface out.
const networkTag = "kluis-network"

// NetworkOf implements compute.Networks.
func (n nics) NetworkOf(ctx context.Context, nic armid.ID) (string, error) {
	d, err := n.Document(ctx, nic)
	if err != nil {
		return "", err
	}
	var document struct{ Tags map[string]string }
	if err := json.Unmarshal(d.Body, &document); err != nil {
		return "", fmt.Errorf("read network interface %s: %w", nic.Name(), err)
	}
	return document.Tags[networkTag], nil
}

// diskKeys gives the key vault the shape that the compute service asks for.
type diskKeys struct {
	*keyvault.Service
	outside *keyservice.Services
}

// DiskKey implements compute.DiskKeys. A key vault outside has no property by which it says that it gives keys to machines,
// so none is asked.
func (k diskKeys) DiskKey(ctx context.Context, secretURL, keyURL string) (fileName string, key secret.Bytes, err error) {
	if k.outside.Knows(secretURL) {
		return "", secret.Bytes{}, problem.New(problem.Unsupported, "OperationNotSupported", "The secret lies in a key vault outside this server, whose keys are not handed to virtual machines.").
			WithTarget(secretURL).WithAdvice("Keep key and secret in a key vault of this server, or start the virtual machine on its host, with a volume for its keys.")
	}
	about, key, err := k.Service.DiskKey(ctx, secretURL, keyURL)
	return about.FileName, key, err
}

func (h hosts) names() (names []string) {
	for _, host := range h {
		names = append(names, host.Name())
	}
	return names
}

// watch tells the inventory of VMs what goes on on the hosts, until ctx ends.
func (h hosts) watch(ctx context.Context, vms *compute.Service) {
	var all sync.WaitGroup
	for _, host := range h {
		all.Go(func() {
			host.Watch(ctx, libvirt.Watcher{
				Machines: func(ctx context.Context, machines []fabric.Machine) error {
					return vms.Discover(ctx, host.Name(), machines)
				},
				Away: func(err error) { vms.HostAway(host.Name(), err) },
			})
		})
	}
	all.Wait()
}

func (h hosts) close() error {
	var errs []error
	for _, host := range h {
		errs = append(errs, host.Close())
	}
	return errors.Join(errs...)
}
