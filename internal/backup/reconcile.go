package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/database"
	"kluis/internal/objects"
	"kluis/internal/recovery"
)

// reconcile makes the rows agree with the recovery stores, which are the truth:
//
//   - A root without a row is a point whose process died between the commit and the transaction. It is
//     adopted.
//   - A row without a root would be a point that can't be restored. It is taken off the list, loudly.
//   - A store without an item is one whose rows are lost, such as after an older copy of the database was
//     brought back. The item is made anew, with protection stopped, and its vault if need be.
//
// What cannot be read is left as it is. Nothing is ever deleted from the bucket here.
func (s *Service) reconcile(ctx context.Context) error {
	var items []Item
	err := s.o.DB.Read(ctx, func(tx *database.Tx) (err error) {
		items, err = selectAllItems(ctx, tx)
		return err
	})
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, item := range items {
		known[item.store] = true
		if item.Deleting {
			continue
		}
		if err := s.reconcileItem(ctx, item); err != nil {
			s.o.Log.Error("recovery points cannot be reconciled with the recovery store; they are listed but perhaps cannot be restored",
				"item", item.ID.String(), "error", err)
		}
	}
	stores, err := s.stores.names(ctx, "")
	if err != nil {
		return err
	}
	for _, name := range stores {
		if known[name] {
			continue
		}
		if err := s.adoptStore(ctx, name); err != nil {
			s.o.Log.Error("a recovery store without a protected item cannot be adopted", "store", name, "error", err)
		}
	}
	return ctx.Err()
}

func (s *Service) reconcileItem(ctx context.Context, item Item) error {
	store, err := s.stores.read(ctx, item.store)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }() // nothing was written
	// The store lists what it can read and names the rest; a point that is damaged is not one that is gone.
	stored, damage := store.Points(ctx)
	if damage != nil {
		s.o.Log.Error("some recovery points cannot be read", "item", item.ID.String(), "error", damage)
	}
	drills, err := s.drills(ctx, item.store)
	if err != nil {
		return err
	}
	roots := map[string]*recovery.Point{}
	for _, p := range stored {
		roots[p.ID] = p
	}
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		item, err := selectItem(ctx, tx, item.ID)
		if err != nil {
			return err
		}
		points, err := selectPoints(ctx, tx, item.ID)
		if err != nil {
			return err
		}
		known := map[string]bool{}
		for _, p := range points {
			known[p.ID] = true
			if roots[p.ID] == nil && damage == nil {
				s.o.Log.Error("recovery point is not in the recovery store and is taken off the list", "point", p.ID, "item", item.ID.String())
				if err := deletePoint(ctx, tx, item.ID, p.ID); err != nil {
					return err
				}
				if err := s.raise(ctx, tx, source{s.o.Now(), "start-" + p.ID, ""}, item.ID, p.ID, pointGone(p)); err != nil {
					return err
				}
			}
		}
		for id, root := range roots {
			if root.Labels[labelItem] != item.ID.Key() || known[id] {
				continue
			}
			if err := adopt(ctx, tx, &item, root, drills); err != nil {
				return err
			}
			s.o.Log.Info("recovery point adopted from the recovery store", "point", id, "item", item.ID.String())
		}
		return nil
	})
}

// adopt lists a point that the store has, with the verdict of its drill if there was one, and notes it on its item.
func adopt(ctx context.Context, tx *database.Tx, item *Item, root *recovery.Point, drills map[string]Drill) error {
	p, err := decodePoint(root)
	if err != nil {
		return err
	}
	if drill, ok := drills[p.ID]; ok {
		p.Drill = &drill
	}
	if err := putPoint(ctx, tx, p); err != nil {
		return err
	}
	if item.State == IRPending || item.State == ProtectionError {
		item.State = Protected
	}
	if p.Time.After(item.LastTime) {
		item.LastPoint, item.LastTime, item.Drift = p.ID, p.Time, driftOf(p)
	}
	return putItem(ctx, tx, *item)
}

// adoptStore makes the item of a store that no row names, from what its points say of themselves.
func (s *Service) adoptStore(ctx context.Context, name string) error {
	store, err := s.stores.read(ctx, name)
	if errors.Is(err, objects.ErrNotExist) || errors.Is(err, recovery.ErrErased) {
		s.o.Log.Warn("a recovery store has no key; it was erased in part, and can be removed", "store", name)
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }() // nothing was written
	roots, damage := store.Points(ctx)
	if len(roots) == 0 {
		return damage // none at all: an item that was being made
	}
	drills, err := s.drills(ctx, name)
	if err != nil {
		return err
	}
	first, err := decodePoint(roots[0])
	if err != nil {
		return err
	}
	vm, _, err := savedMachine(roots[0])
	if err != nil {
		return err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		item, err := s.adoptItem(ctx, tx, first.Item, vm, name)
		if err != nil {
			return err
		}
		for _, root := range roots {
			if err := adopt(ctx, tx, &item, root, drills); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.o.Log.Warn("protected item adopted from its recovery store; its protection is stopped until it gets a policy",
		"item", first.Item.String(), "points", len(roots))
	return damage
}

func (s *Service) adoptItem(ctx context.Context, tx *database.Tx, id armid.ID, vm compute.VM, store string) (Item, error) {
	if other, err := selectItem(ctx, tx, id); err == nil {
		return Item{}, fmt.Errorf("the item %s has another recovery store, %s", id, other.store)
	} else if !isNotFound(err) {
		return Item{}, err
	}
	if _, err := selectVault(ctx, tx, vaultOf(id)); isNotFound(err) {
		folder, _, _ := strings.Cut(store, "/")
		v := RecoveryVault{ID: vaultOf(id), Location: vm.Location, SKU: "Standard", Redundancy: defaultRedundancy, Changed: s.o.Now(), store: folder}
		if err := insertVault(ctx, tx, v); err != nil {
			return Item{}, err
		}
		if err := putDefaultPolicies(ctx, tx, v); err != nil {
			return Item{}, err
		}
	} else if err != nil {
		return Item{}, err
	}
	item := Item{ID: id, VM: vm.ID, VMLocation: vm.Location, State: ProtectionStopped, Created: s.o.Now(), store: store}
	return item, putItem(ctx, tx, item)
}
