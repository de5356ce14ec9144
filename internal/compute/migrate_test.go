package compute_test

import (
	"errors"
	"slices"
	"testing"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/fabric"
)

// A machine that moves to another host is the same VM with the same disks there. While both hosts have it, it is the
// first one's.
func TestMachineMoves(t *testing.T) {
	coming := machine(uuidOne, "web", "vda", "vdb")
	coming.State = fabric.Paused
	off := machine(uuidOne, "web", "vda", "vdb")
	off.State = fabric.Stopped
	for name, c := range map[string]struct {
		move func(*host)
		want string // the host on which it is in the end
	}{
		"while it runs": {func(h *host) {
			h.discover("dc2", coming)
			h.discover("lab")
			h.discover("dc2", machine(uuidOne, "web", "vda", "vdb"))
		}, "dc2"},
		"and its first host is heard of last": {func(h *host) {
			h.discover("dc2", coming)
			h.discover("dc2", machine(uuidOne, "web", "vda", "vdb"))
			h.discover("lab")
		}, "dc2"},
		"and back": {func(h *host) {
			h.discover("dc2", coming)
			h.discover("lab")
			h.discover("lab", coming)
			h.discover("dc2")
		}, "lab"},
		"not, for it is only defined there": {func(h *host) {
			h.discover("dc2", off)
			h.discover("lab", machine(uuidOne, "web", "vda", "vdb"))
		}, "lab"},
		"for its host is gone": {func(h *host) {
			h.HostAway("lab", errors.New("no power"))
			h.discover("dc2", machine(uuidOne, "web", "vda", "vdb"))
		}, "dc2"},
		"not, for nobody knows what its host does": {func(h *host) {
			h.HostAway("lab", errors.New("no network"))
			h.discover("dc2", off)
		}, "lab"},
	} {
		t.Run(name, func(t *testing.T) {
			databasetest.Each(t, func(t *testing.T, db *database.DB) {
				h := newHost(t, db)
				h.discover("lab", machine(uuidOne, "web", "vda", "vdb"))
				before := h.names()
				c.move(h)
				if after := h.names(); !slices.Equal(before, after) {
					t.Errorf("there are %q, and were %q", after, before)
				}
				vm := onHost("lab", "web")
				on, uuid, _, err := h.Placement(t.Context(), vm)
				if err != nil || on != c.want || uuid != uuidOne {
					t.Errorf("it is %s on %s, %v; want %s", uuid, on, err, c.want)
				}
				if id := h.mustVM(vm).Properties.Host.ID; id.Name() != c.want {
					t.Errorf("its host is %s", id)
				}
			})
		})
	}
}
