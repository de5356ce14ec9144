package client

import (
	"context"
	"net/http"

	"kluis/internal/armid"
)

// InstanceView is what a VM is doing now.
type InstanceView struct {
	VMAgent  AgentView        `json:"vmAgent"`
	Disks    []DiskView       `json:"disks"`
	Statuses []InstanceStatus `json:"statuses"`
}

// AgentView is what is known of the agent in a VM.
type AgentView struct {
	Statuses []InstanceStatus `json:"statuses"`
}

// DiskView is what is said of a disk of a VM.
type DiskView struct {
	Name     string           `json:"name"`
	Statuses []InstanceStatus `json:"statuses"`
}

// InstanceStatus is one thing that is said.
type InstanceStatus struct {
	Code          string `json:"code"`
	DisplayStatus string `json:"displayStatus"`
	Message       string `json:"message"`
}

// InstanceView reads what a VM is doing.
func (c *Client) InstanceView(ctx context.Context, vm armid.ID) (v InstanceView, err error) {
	err = c.get(ctx, vm.String()+"/instanceView", versionCompute, nil, &v)
	return v, err
}

// StartVM starts a VM on its host.
func (c *Client) StartVM(ctx context.Context, vm armid.ID) error { return c.power(ctx, vm, "start") }

// RestartVM stops a VM and starts it.
func (c *Client) RestartVM(ctx context.Context, vm armid.ID) error {
	return c.power(ctx, vm, "restart")
}

// DeallocateVM shuts a VM down.
func (c *Client) DeallocateVM(ctx context.Context, vm armid.ID) error {
	return c.power(ctx, vm, "deallocate")
}

// CutVM switches a VM off without asking its guest.
func (c *Client) CutVM(ctx context.Context, vm armid.ID) error {
	resp, err := exchange(ctx, c.armPipeline(), http.MethodPost, c.armURL(vm.String()+"/powerOff", versionCompute, map[string][]string{"skipShutdown": {"true"}}), nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = c.follow(ctx, resp, "")
	return err
}

func (c *Client) power(ctx context.Context, vm armid.ID, action string) error {
	return c.do(ctx, http.MethodPost, vm.String()+"/"+action, versionCompute, nil, nil)
}
