package client

import (
	"context"
	"strings"

	"kluis/internal/armid"
)

// Host is a libvirt host whose machines the server looks after.
type Host = Resource[HostProperties]

// HostProperties are what is known of a host.
type HostProperties struct {
	VirtualMachines []Ref        `json:"virtualMachines"`
	InstanceView    InstanceView `json:"instanceView"`
}

// Answers reports whether the host can be reached.
func (p HostProperties) Answers() bool {
	for _, s := range p.InstanceView.Statuses {
		if strings.EqualFold(s.Code, "HealthState/available") {
			return true
		}
	}
	return false
}

const typeHostGroup = "Microsoft.Compute/hostGroups"

// Hosts lists the hosts.
func (c *Client) Hosts(ctx context.Context) (all []Host, err error) {
	groups, err := listResources[struct{}](ctx, c, collection(c.Subscription(), typeHostGroup), versionCompute, "")
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		hosts, err := listResources[HostProperties](ctx, c, g.ID+"/hosts", versionCompute, "")
		if err != nil {
			return nil, err
		}
		all = append(all, hosts...)
	}
	return all, nil
}

// HostID is the id of a host by its name.
func (c *Client) HostID(name string) armid.ID {
	return c.ResourceID(name, typeHostGroup, "kluis").Child("hosts", name)
}
