package compute

import (
	"context"
	"encoding/json"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/compute"
)

func (h handlers) patchVM(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body json.RawMessage
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	vm, err := h.s.ChangeVM(ctx, r.ID, body)
	if err != nil {
		return nil, err
	}
	return arm.OK(vm), nil
}

func (h handlers) patchDisk(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body json.RawMessage
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	disk, err := h.s.ChangeDisk(ctx, r.ID, body)
	if err != nil {
		return nil, err
	}
	return arm.OK(disk), nil
}

// run and stop are the operations on a VM's power.
func (h handlers) run(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if err := h.s.Run(ctx, r.ID, r.Action); err != nil {
		return nil, err
	}
	return arm.OK(nil), nil
}

func (h handlers) stop(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if err := h.s.Stop(ctx, r.ID, r.Action, strings.EqualFold(r.Query.Get("skipShutdown"), "true")); err != nil {
		return nil, err
	}
	return arm.OK(nil), nil
}

// none are the types of which there is never anything, and for which clients ask all the same.
func (h handlers) none() (all []arm.Resource) {
	for _, typ := range []string{"Microsoft.Compute/availabilitySets", "Microsoft.Compute/virtualMachineScaleSets",
		"Microsoft.Compute/skus", "Microsoft.Compute/locations/vmSizes", compute.VMType + "/vmSizes"} {
		all = append(all, arm.Resource{Type: typ, List: func(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
			if err := h.s.None(ctx, typ, r.ID); err != nil {
				return nil, err
			}
			return arm.List(r, []any{}), nil
		}})
	}
	return all
}
