package compute

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/problem"
)

// ChangeDisk changes what a document names of a disk, and leaves the rest as it is.
func (s *Service) ChangeDisk(ctx context.Context, id armid.ID, body json.RawMessage) (d Disk, err error) {
	if err := s.o.Authorizer.Authorize(ctx, DiskType+"/write", id); err != nil {
		return Disk{}, err
	}
	was, err := s.LookupDisk(ctx, id)
	if err == nil {
		err = mayPatch(ctx, s, was, id, body)
	}
	if err != nil {
		return Disk{}, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		old, err := selectDisk(ctx, tx, id)
		if err != nil {
			return err
		}
		if d, err = patched(old.Disk, id, body); err != nil {
			return err
		}
		d.ID = old.ID
		if err := d.check(); err != nil {
			return err
		}
		row, err := changed(old, d)
		if err != nil {
			return err
		}
		row.settle(s.o.Now(), s.o.NewID())
		d = row.Disk
		return putDisk(ctx, tx, row)
	})
	return d, err
}

// ChangeVM changes what a document names of a VM, and leaves the rest as it is. A list that is named is replaced:
// a VM lets go of the data disks that are not in a new list.
func (s *Service) ChangeVM(ctx context.Context, id armid.ID, body json.RawMessage) (vm VM, err error) {
	if err := s.o.Authorizer.Authorize(ctx, VMType+"/write", id); err != nil {
		return VM{}, err
	}
	was, err := s.LookupVM(ctx, id)
	if err == nil {
		err = mayPatch(ctx, s, was, id, body)
	}
	if err != nil {
		return VM{}, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		old, err := selectVM(ctx, tx, id)
		if err != nil {
			return err
		}
		if vm, err = patched(old, id, body); err != nil {
			return err
		}
		vm.ID = old.ID
		if err := vm.check(); err != nil {
			return err
		}
		vm.dropReadOnly()
		return s.change(ctx, tx, old, &vm)
	})
	return vm, err
}

// patched is a document with another one merged into it, as RFC 7396 has it. Tags are one value, as everywhere
// in Resource Manager: those that are not named are gone.
func patched[T json.Marshaler](document T, id armid.ID, body json.RawMessage) (result T, err error) {
	old, err := json.Marshal(document)
	if err != nil {
		return result, fmt.Errorf("encode %s: %w", id.Name(), err)
	}
	under, err := decodeObject(old)
	if err != nil {
		return result, fmt.Errorf("decode %s: %w", id.Name(), err)
	}
	over, err := decodeObject(body)
	if err != nil {
		return result, invalidPatch(id, err)
	}
	if over["tags"] != nil {
		delete(under, "tags")
	}
	merged, err := json.Marshal(mergePatch(under, over))
	if err != nil {
		return result, fmt.Errorf("encode %s: %w", id.Name(), err)
	}
	if err := json.Unmarshal(merged, &result); err != nil {
		if problem.Of(err) != nil {
			return result, err
		}
		return result, invalidPatch(id, err)
	}
	return result, nil
}

func decodeObject(b []byte) (object map[string]any, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // what is not understood must not be rounded
	if err := d.Decode(&object); err != nil {
		return nil, err
	}
	if object == nil {
		return nil, errors.New("it is not an object")
	}
	return object, nil
}

func mergePatch(under, over any) any {
	patch, ok := over.(map[string]any)
	if !ok {
		return over
	}
	object, ok := under.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for name, value := range patch {
		if value == nil {
			delete(object, name)
			continue
		}
		object[name] = mergePatch(object[name], value)
	}
	return object
}
