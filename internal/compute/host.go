package compute

import (
	"context"
	"encoding/json"
	"slices"
	"sync"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/fabric"
)

// A VM that is not image files at rest runs on a dedicated host, in Azure's word. A host is configured and not made by
// a request, so it can be read and nothing else; it lies in the resource group of its name, in the one host group there.

// The types of the resources that hosts are.
const (
	HostGroupType = "Microsoft.Compute/hostGroups"
	HostType      = HostGroupType + "/hosts"
)

const hostGroupName = "kluis"

// configured reports whether this server looks after a host. One that was taken out of the configuration leaves its VMs.
func (s *Service) configured(host string) bool { return slices.Contains(s.o.HostNames, host) }

// hostID is the id of a host of this server.
func (s *Service) hostID(name string) armid.ID {
	return s.hostGroupID(name).Child("hosts", name)
}

func (s *Service) hostGroupID(host string) armid.ID {
	return s.o.Subscription.Group(host).Resource(HostGroupType, hostGroupName)
}

// Host is a host and what runs on it.
type Host struct {
	ID       armid.ID
	Location string
	Answers  bool
	VMs      []armid.ID
}

// MarshalJSON writes the document.
func (h Host) MarshalJSON() ([]byte, error) {
	machines := []Ref{}
	for _, id := range h.VMs {
		machines = append(machines, Ref{id})
	}
	state := InstanceCode{Code: "HealthState/available", Level: "Info", DisplayStatus: "Host available"}
	if !h.Answers {
		state = InstanceCode{Code: "HealthState/unavailable", Level: "Error", DisplayStatus: "Host unavailable", Message: "The host does not answer; what its machines do is not known."}
	}
	return json.Marshal(map[string]any{"id": h.ID, "name": h.ID.Name(), "type": HostType, "location": h.Location, "sku": map[string]any{"name": "libvirt"},
		"properties": map[string]any{"platformFaultDomain": 0, "autoReplaceOnFailure": false, "virtualMachines": machines, "provisioningState": "Succeeded",
			"instanceView": map[string]any{"statuses": []InstanceCode{state}}}})
}

// HostGroup is the group of one host.
type HostGroup struct {
	ID       armid.ID
	Location string
	Hosts    []armid.ID
}

// MarshalJSON writes the document.
func (g HostGroup) MarshalJSON() ([]byte, error) {
	hosts := []Ref{}
	for _, id := range g.Hosts {
		hosts = append(hosts, Ref{id})
	}
	return json.Marshal(map[string]any{"id": g.ID, "name": g.ID.Name(), "type": HostGroupType, "location": g.Location,
		"properties": map[string]any{"platformFaultDomainCount": 1, "supportAutomaticPlacement": false, "hosts": hosts}})
}

// Host returns a host.
func (s *Service) Host(ctx context.Context, id armid.ID) (Host, error) {
	if err := s.o.Authorizer.Authorize(ctx, HostType+"/read", id); err != nil {
		return Host{}, err
	}
	for _, name := range s.o.HostNames {
		if s.hostID(name).Equal(id) {
			return s.readHost(ctx, name)
		}
	}
	return Host{}, notFound(HostType, id)
}

// HostGroup returns the group of a host.
func (s *Service) HostGroup(ctx context.Context, id armid.ID) (HostGroup, error) {
	groups, err := s.HostGroups(ctx, id)
	if err == nil && len(groups) == 0 {
		err = notFound(HostGroupType, id)
	}
	if err != nil {
		return HostGroup{}, err
	}
	return groups[0], nil
}

// HostGroups returns the groups of hosts within a scope, by id.
func (s *Service) HostGroups(ctx context.Context, scope armid.ID) (all []HostGroup, err error) {
	if err := s.o.Authorizer.Authorize(ctx, HostGroupType+"/read", scope); err != nil {
		return nil, err
	}
	hosts, err := s.hostsIn(ctx, scope)
	for _, h := range hosts {
		all = append(all, HostGroup{ID: h.ID.Parent(), Location: h.Location, Hosts: []armid.ID{h.ID}})
	}
	return all, err
}

// Hosts returns the hosts of a host group.
func (s *Service) Hosts(ctx context.Context, group armid.ID) ([]Host, error) {
	if err := s.o.Authorizer.Authorize(ctx, HostType+"/read", group); err != nil {
		return nil, err
	}
	return s.hostsIn(ctx, group)
}

func (s *Service) hostsIn(ctx context.Context, scope armid.ID) (all []Host, err error) {
	for _, name := range slices.Sorted(slices.Values(s.o.HostNames)) {
		if !s.hostGroupID(name).Within(scope) {
			continue
		}
		h, err := s.readHost(ctx, name)
		if err != nil {
			return nil, err
		}
		all = append(all, h)
	}
	return all, nil
}

func (s *Service) readHost(ctx context.Context, name string) (Host, error) {
	location, err := s.o.HostGroups.EnsureGroup(ctx, name)
	if err != nil {
		return Host{}, err
	}
	h := Host{ID: s.hostID(name), Location: location, Answers: s.presence.answers(name)}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		machines, err := selectMachinesOn(ctx, tx, name)
		for _, m := range machines {
			h.VMs = append(h.VMs, m.vm.ID)
		}
		return err
	})
	return h, err
}

// presence is which hosts answer, what they last listed, and which machines are being made on them. What a host said is believed only while
// it answers, so neither outlives the process.
type presence struct {
	mu    sync.Mutex
	here  map[string]bool
	begun map[string]progress // by host and UUID
	lists map[string][]fabric.Machine
}

// progress is how far the making of a machine is.
type progress int

const (
	begun   progress = iota + 1 // what the host says of it does not count yet
	defined                     // the host may say that it is not there, in a list that it made before
)

func newPresence() *presence {
	return &presence{here: map[string]bool{}, begun: map[string]progress{}, lists: map[string][]fabric.Machine{}}
}

// arrive reports whether the host did not answer before.
func (p *presence) arrive(host string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.here[host]
	p.here[host] = true
	return !was
}

func (p *presence) leave(host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.here[host] = false
	delete(p.lists, host)
}

func (p *presence) answers(host string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.here[host]
}

func (p *presence) begin(host, uuid string)  { p.note(host, uuid, begun) }
func (p *presence) made(host, uuid string)   { p.note(host, uuid, defined) }
func (p *presence) forget(host, uuid string) { p.note(host, uuid, 0) }

func (p *presence) note(host, uuid string, how progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun[host+" "+uuid] = how; how == 0 {
		delete(p.begun, host+" "+uuid)
	}
}

func (p *presence) making(host, uuid string) progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.begun[host+" "+uuid]
}
