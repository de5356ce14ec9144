package compute_test

import (
	"encoding/json"
	"testing"

	"kluis/internal/compute"
	"kluis/internal/database/databasetest"
	"kluis/internal/problem"
)

// What changes a VM or a disk, or asks for their power, needs the right to it, before anything else is looked at.
func TestChangesAreAuthorized(t *testing.T) {
	h := newHost(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/kluis.db"))
	vm, disk := group.Resource(compute.VMType, "none"), group.Resource(compute.DiskType, "none")
	extension := vm.Child("extensions", "e")
	ctx := t.Context()
	for action, do := range map[string]func() error{
		compute.DiskType + "/write":           func() error { _, err := h.ChangeDisk(ctx, disk, json.RawMessage(`{}`)); return err },
		compute.VMType + "/write":             func() error { _, err := h.ChangeVM(ctx, vm, json.RawMessage(`{}`)); return err },
		compute.VMType + "/start/action":      func() error { return h.Run(ctx, vm, "start") },
		compute.VMType + "/deallocate/action": func() error { return h.Stop(ctx, vm, "deallocate", false) },
		compute.ExtensionType + "/write":      func() error { _, _, err := h.PutExtension(ctx, compute.Extension{ID: extension}); return err },
		compute.ExtensionType + "/read":       func() error { _, err := h.Extensions(ctx, vm); return err },
		compute.ExtensionType + "/delete":     func() error { _, err := h.DeleteExtension(ctx, extension); return err },
		"Microsoft.Compute/skus/read":         func() error { return h.None(ctx, "Microsoft.Compute/skus", subscription) },
	} {
		h.denied = action
		if err := do(); !problem.Is(err, "AuthorizationFailed") {
			t.Errorf("without %s: %v", action, err)
		}
	}
}
