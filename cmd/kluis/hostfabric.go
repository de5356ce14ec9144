package main

import (
	"context"
	"errors"
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
	for _, host := range f.hosts {
		if host.Name() == vm.Host {
			return host.Snapshot(ctx, vm, since)
		}
	}
	return nil, &fabric.HostError{Host: vm.Host, Machine: vm.Name, Kind: fabric.Away, Err: errors.New("--hosts does not name it any more")}
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
