package compute

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"

	"kluis/internal/armid"
)

// deployAction is the right to a key vault that it takes to name its secrets and keys in a disk's settings: whoever starts
// the VM then has what they open in a guest of his.
const deployAction = "Microsoft.KeyVault/vaults/deploy/action"

// mayName refuses new encryption settings that name key vaults of this subscription whose keys the caller may not give to a
// VM. What stands there already may be put back by whoever may change the rest.
func (s *Service) mayName(ctx context.Context, old, now []EncryptionSettings) error {
	if reflect.DeepEqual(old, now) {
		return nil
	}
	for _, e := range now {
		var vaults []armid.ID
		if e.DiskEncryptionKey != nil {
			vaults = append(vaults, e.DiskEncryptionKey.SourceVault.ID)
		}
		if e.KeyEncryptionKey != nil {
			vaults = append(vaults, e.KeyEncryptionKey.SourceVault.ID)
		}
		for _, vault := range vaults {
			if vault.Name() == "" || !strings.EqualFold(vault.Subscription, s.o.Subscription.Subscription) {
				continue // of no key vault here
			}
			if err := s.o.Authorizer.Authorize(ctx, deployAction, vault); err != nil {
				return err
			}
		}
	}
	return nil
}

// named are the settings in a disk's document.
func (d Disk) named() []EncryptionSettings {
	if c := d.Properties.EncryptionSettings; c != nil {
		return c.Settings
	}
	return nil
}

// named are the settings in a VM's document.
func (v VM) named() []EncryptionSettings {
	if e := v.Properties.StorageProfile.OSDisk.EncryptionSettings; e != nil {
		return []EncryptionSettings{*e}
	}
	return nil
}

// withSettings is a document that names keys.
type withSettings interface {
	json.Marshaler
	named() []EncryptionSettings
}

// mayPatch is mayName for a change of a document. One that cannot be merged is refused by whoever merges it.
func mayPatch[T withSettings](ctx context.Context, s *Service, old T, id armid.ID, body json.RawMessage) error {
	merged, err := patched(old, id, body)
	if err == nil {
		err = s.mayName(ctx, old.named(), merged.named())
	} else {
		err = nil
	}
	return err
}
