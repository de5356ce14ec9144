package compute

import (
	"context"

	"kluis/internal/armid"
)

// Run is for what needs a VM that runs: its start, a restart, a move to another host. action is the last word of
// the right to it. Image files at rest are run by nobody, and this says so.
func (s *Service) Run(ctx context.Context, id armid.ID, action string) error {
	if err := s.o.Authorizer.Authorize(ctx, VMType+"/"+action+"/action", id); err != nil {
		return err
	}
	vm, err := s.LookupVM(ctx, id)
	if err != nil {
		return err
	}
	return runsNoMachines(vm.ID, action)
}

// Stop is for what leaves a VM without a host: to power it off, or to deallocate it. A VM of image files is so already.
func (s *Service) Stop(ctx context.Context, id armid.ID, action string) error {
	if err := s.o.Authorizer.Authorize(ctx, VMType+"/"+action+"/action", id); err != nil {
		return err
	}
	_, err := s.LookupVM(ctx, id)
	return err
}

// None is nil if the caller may know that there is no resource of a type: sizes to choose from, sets of machines.
func (s *Service) None(ctx context.Context, typ string, scope armid.ID) error {
	return s.o.Authorizer.Authorize(ctx, typ+"/read", scope)
}
