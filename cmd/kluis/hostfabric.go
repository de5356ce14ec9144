package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"kluis/internal/backup"
	"kluis/internal/fabric"
	"kluis/internal/fabric/libvirt"
)

// hostFabric gives a VM to the host that it is on: image files at rest, or one of libvirt's hosts by name.
type hostFabric struct {
	imageFabric

	hosts hosts
}

var _ backup.Fabric = hostFabric{}

// Snapshot implements backup.Fabric.
func (f hostFabric) Snapshot(ctx context.Context, vm fabric.VM, since fabric.Checkpoint) (fabric.Snapshot, error) {
	if vm.Host == "" {
		return f.imageFabric.Snapshot(ctx, vm, since)
	}
	host, err := f.hosts.on(vm.Host)
	if err != nil {
		return nil, err
	}
	return host.Snapshot(ctx, vm, since)
}

// Settle implements backup.Fabric. Of image files at rest nothing is ever left.
func (f hostFabric) Settle(ctx context.Context, vm fabric.VM, keep fabric.Checkpoint) error {
	if vm.Host == "" {
		return nil
	}
	host, err := f.hosts.on(vm.Host)
	if err != nil {
		return err
	}
	return host.Settle(ctx, vm, keep)
}

// GuestState implements backup.Fabric.
func (f hostFabric) GuestState(ctx context.Context, vm fabric.VM) (*fabric.GuestState, error) {
	if vm.Host == "" {
		return nil, nil
	}
	host, err := f.hosts.on(vm.Host)
	if err != nil {
		return nil, err
	}
	state, err := host.GuestState(ctx, vm.UUID)
	return &state, err
}

// Hosts implements backup.Fabric.
func (f hostFabric) Hosts() []string { return f.hosts.names() }

// Drill implements backup.Fabric.
func (f hostFabric) Drill(ctx context.Context, name string, what fabric.Drill) (r fabric.DrillResult, err error) {
	host, err := f.hosts.on(name)
	if err != nil {
		return r, err
	}
	return host.Drill(ctx, what)
}

// guardWord is the command that a guard runs.
const guardWord = "guard-frozen-guest"

// guardCommand is what a guard runs: a process of its own, which thaws a guest when the server dies while the
// guest is frozen. Nobody types it.
func guardCommand() *cobra.Command {
	return &cobra.Command{
		Use:    guardWord,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return libvirt.RunGuard(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// guards starts this program as a guard.
func guards() (func(libvirt.GuardRequest) (libvirt.Guard, error), error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return libvirt.StartGuard(self, guardWord), nil
}
