package backup

import (
	"context"
	"slices"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/database"
	"kluis/internal/job"
	"kluis/internal/keyvault"
	"kluis/internal/problem"
)

// ItemState is the protection state of an item, in Azure's words.
type ItemState string

// The states. An item is IRPending ("initial replica") until its first recovery point.
const (
	IRPending         ItemState = "IRPending"
	Protected         ItemState = "Protected"
	ProtectionError   ItemState = "ProtectionError"
	ProtectionStopped ItemState = "ProtectionStopped"
)

// Item is a protected item: a VM in a vault, under a policy. It is stored as this document.
type Item struct {
	ID         armid.ID      `json:"id"`
	VM         armid.ID      `json:"vm"`
	VMLocation string        `json:"vmLocation"`
	Policy     armid.ID      `json:"policy"` // zero when protection is stopped
	Disks      DiskSelection `json:"disks,omitzero"`
	State      ItemState     `json:"state"`
	Created    time.Time     `json:"created"`
	LastBackup time.Time     `json:"lastBackup,omitzero"` // when the last backup ended, well or not
	LastStatus string        `json:"lastStatus,omitempty"`
	LastPoint  string        `json:"lastPoint,omitempty"` // id of the newest recovery point
	LastTime   time.Time     `json:"lastTime,omitzero"`   // when it was taken
	Problem    *job.Problem  `json:"problem,omitempty"`   // why the last backup failed or warned
	Drift      []Drift       `json:"drift,omitempty"`     // found in the newest recovery point
	Collected  time.Time     `json:"collected,omitzero"`  // when space was last given back
	Left       time.Time     `json:"left,omitzero"`       // when something was last left to be given back
	Deferred   Deferral      `json:"deferred,omitzero"`   // set while its backup data is deleted and can still be undeleted
	Deleting   bool          `json:"deleting,omitempty"`  // its backup data is being erased, which can't be undone

	store   string    // name of its recovery store
	next    time.Time // next scheduled backup
	collect time.Time // when space is next given back; zero when there is none
	purge   time.Time // when its backup data is next to be erased; zero when it is not
}

// Vault is the id of the vault the item belongs to.
func (i Item) Vault() armid.ID { return vaultOf(i.ID) }

// vaultOf returns the vault of anything inside one.
func vaultOf(id armid.ID) armid.ID {
	id.Segments = id.Segments[:min(1, len(id.Segments))]
	return id
}

// ItemID returns the id under which a VM is protected in a vault. Azure writes the names in lower case.
func ItemID(vault, vm armid.ID) armid.ID {
	name := "iaasvmcontainerv2;" + strings.ToLower(vm.ResourceGroup) + ";" + strings.ToLower(vm.Name())
	return vault.Child("backupFabrics", "Azure").Child("protectionContainers", "IaasVMContainer;"+name).Child("protectedItems", "VM;"+name)
}

// canonicalItem returns the id in the one spelling under which items are stored: clients write the
// prefixes of container and item in several ways.
func canonicalItem(id armid.ID) (armid.ID, error) {
	parts := strings.Split(id.NameOf("protectedItems"), ";")
	if !strings.EqualFold(vaultOf(id).Type(), vaultType) || len(parts) < 3 {
		return armid.ID{}, invalidItemName(id)
	}
	if strings.EqualFold(parts[len(parts)-3], "iaasvmcontainer") {
		return armid.ID{}, classicNotSupported(id)
	}
	group, name := parts[len(parts)-2], parts[len(parts)-1]
	if group == "" || name == "" {
		return armid.ID{}, invalidItemName(id)
	}
	return ItemID(vaultOf(id), armid.ID{Subscription: id.Subscription, ResourceGroup: group}.Resource(vmType, name)), nil
}

const itemActions = vaultType + "/backupFabrics/protectionContainers/protectedItems"

// Protect enables backup of a VM, or gives an item another policy, or resumes protection. Everything
// that would make a backup of the VM fail is checked before, so that what is enabled also works. The job
// is the one people look for among the jobs; it is over at once.
func (s *Service) Protect(ctx context.Context, id, vm, policy armid.ID) (Item, job.Job, error) {
	return s.ProtectDisks(ctx, id, vm, policy, nil)
}

// ProtectDisks is Protect of a selection of the VM's disks; nil leaves the item's selection as it is.
func (s *Service) ProtectDisks(ctx context.Context, id, vm, policy armid.ID, disks *DiskSelection) (Item, job.Job, error) {
	if err := s.o.Authorizer.Authorize(ctx, itemActions+"/write", vaultOf(id)); err != nil {
		return Item{}, job.Job{}, err
	}
	id, err := canonicalItem(id)
	if err != nil {
		return Item{}, job.Job{}, err
	}
	machine, encryption, err := s.checkProtectable(ctx, vaultOf(id), vm)
	if err != nil {
		return Item{}, job.Job{}, err
	}
	if !ItemID(vaultOf(id), vm).Equal(id) {
		return Item{}, job.Job{}, itemNotOfVM(id, vm)
	}
	if disks != nil {
		if err := disks.check(machine); err != nil {
			return Item{}, job.Job{}, err
		}
	}
	made, err := s.makeStore(ctx, id)
	if err != nil {
		return Item{}, job.Job{}, err
	}
	var item Item
	var done job.Job
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		p, err := selectPolicy(ctx, tx, policy)
		if err != nil {
			return err
		}
		if !vaultOf(policy).Equal(vaultOf(id)) {
			return policyOfOtherVault(policy, vaultOf(id))
		}
		item, err = selectItem(ctx, tx, id)
		switch {
		case isNotFound(err):
			if err := s.roomForItem(ctx, tx, vaultOf(id)); err != nil {
				return err
			}
			item = Item{ID: id, VM: machine.ID, VMLocation: machine.Location, State: IRPending, Created: s.o.Now(), store: made}
		case err != nil:
			return err
		case item.Deleting:
			return itemBeingDeleted(item)
		case item.SoftDeleted():
			return itemSoftDeleted(item)
		case item.State == ProtectionStopped && item.LastPoint != "":
			item.State = Protected
		case item.State == ProtectionStopped:
			item.State = IRPending
		}
		if disks != nil {
			item.Disks = *disks
		}
		if err := item.Disks.allowed(machine.ID, encryption, p); err != nil {
			return err
		}
		item.Policy, item.next = p.ID, p.Body.Next(s.o.Now())
		if err := putItem(ctx, tx, item); err != nil {
			return err
		}
		done, err = s.o.Jobs.Record(ctx, tx, job.Spec{Kind: "ConfigureBackup", Scope: item.Vault().Key(), Entity: item.ID.Key(),
			Details: map[string]string{"VM Name": machine.ID.Name(), "Policy Name": p.ID.Name()}, Correlation: s.o.Correlation(ctx)})
		return err
	})
	if made != "" && (err != nil || item.store != made) {
		if eraseErr := s.stores.erase(context.WithoutCancel(ctx), made); eraseErr != nil {
			s.o.Log.Warn("an empty recovery store is left behind", "store", made, "error", eraseErr)
		}
	}
	if err == nil && made == "" {
		s.applyPolicy(ctx, item)
	}
	return item, done, err
}

// roomForItem refuses one protected item more than a vault may have. Soft-deleted ones are still in it.
func (s *Service) roomForItem(ctx context.Context, tx *database.Tx, vault armid.ID) error {
	n, err := countItems(ctx, tx, vault)
	if err == nil && n >= s.o.Limits.Items {
		err = tooManyItems(vault, s.o.Limits.Items)
	}
	return err
}

// makeStore makes a recovery store for an item that is not there yet, and returns its name. The store comes
// first: an item without one would be half done, a store without an item is an empty folder.
func (s *Service) makeStore(ctx context.Context, id armid.ID) (string, error) {
	_, err := s.lookupItem(ctx, id)
	if err == nil || !isNotFound(err) {
		return "", err
	}
	v, err := s.lookupVault(ctx, vaultOf(id))
	if err != nil {
		return "", err
	}
	name := v.store + "/" + s.o.NewID()
	return name, s.stores.create(ctx, name)
}

// Check says whether a VM can be protected in a vault, as the notice before 'Enable backup' does: nil,
// or what is in the way and what to do about it.
func (s *Service) Check(ctx context.Context, vault, vm armid.ID) error {
	if err := s.o.Authorizer.Authorize(ctx, itemActions+"/read", vault); err != nil {
		return err
	}
	_, _, err := s.checkProtectable(ctx, vault, vm)
	return err
}

func (s *Service) checkProtectable(ctx context.Context, vault, vm armid.ID) (compute.VM, []compute.DiskEncryption, error) {
	if vm.Is(classicVMType) {
		return compute.VM{}, nil, classicNotSupported(vm)
	}
	if !vm.Is(vmType) {
		return compute.VM{}, nil, notAVirtualMachine(vm)
	}
	v, err := s.lookupVault(ctx, vault)
	if err != nil {
		return compute.VM{}, nil, err
	}
	if !strings.EqualFold(vm.Subscription, v.ID.Subscription) {
		return compute.VM{}, nil, otherSubscription(vm, v)
	}
	machine, err := s.o.Machines.VM(ctx, vm)
	if isNotFound(err) {
		return compute.VM{}, nil, vmNotFound(vm)
	}
	if err != nil {
		return compute.VM{}, nil, err
	}
	if !strings.EqualFold(machine.Location, v.Location) {
		return compute.VM{}, nil, otherLocation(machine, v)
	}
	if err := s.checkUnprotected(ctx, v, vm); err != nil {
		return compute.VM{}, nil, err
	}
	encryption, err := s.checkKeys(ctx, machine.ID)
	return machine, encryption, err
}

// checkUnprotected refuses a VM that another vault protects: two schedules of snapshots would disturb
// each other.
func (s *Service) checkUnprotected(ctx context.Context, v RecoveryVault, vm armid.ID) error {
	return s.o.DB.Read(ctx, func(tx *database.Tx) error {
		item, err := selectItemOf(ctx, tx, vm)
		switch {
		case isNotFound(err):
			return nil
		case err != nil:
			return err
		case item.SoftDeleted() && !item.Deleting:
			return itemSoftDeleted(item)
		case item.Vault().Equal(v.ID):
			return nil
		}
		return alreadyProtected(vm, item)
	})
}

// checkKeys looks whether each encrypted disk of a VM has both BEK and KEK, whether their key vaults
// exist, and whether Backup Management Service may read them there. It returns the disks' keys.
func (s *Service) checkKeys(ctx context.Context, vm armid.ID) ([]compute.DiskEncryption, error) {
	encryption, err := s.o.Machines.Encryption(ctx, vm)
	if err != nil {
		return nil, err
	}
	var own []compute.DiskEncryption
	for _, e := range encryption {
		if e.KeyURL == "" {
			return nil, bekAlone(vm, e)
		}
		outside, err := s.liesOutside(vm, e)
		if err != nil {
			return nil, err
		}
		if !outside {
			own = append(own, e)
		} else if err := s.checkOutside(ctx, vm, e.KeyURL, e.SecretURL); err != nil {
			return nil, err
		}
	}
	for _, vault := range keyVaults(own) {
		missing, err := s.o.Keys.Missing(ctx, vault, s.o.ServiceObject, keyvault.AzureBackupTemplate())
		if isNotFound(err) {
			return nil, keyVaultGoneForBackup(vm, vault)
		}
		if err != nil {
			return nil, err
		}
		if !missing.IsZero() {
			return nil, keyVaultPermissions(vm, vault, missing)
		}
	}
	return encryption, nil
}

// keyVaults returns each key vault once, in the order of the disks.
func keyVaults(encryption []compute.DiskEncryption) []armid.ID {
	var vaults []armid.ID
	for _, e := range encryption {
		for _, v := range []armid.ID{e.SecretVault, e.KeyVault} {
			if !slices.ContainsFunc(vaults, v.Equal) {
				vaults = append(vaults, v)
			}
		}
	}
	return vaults
}

// Item returns a protected item.
func (s *Service) Item(ctx context.Context, id armid.ID) (Item, error) {
	if err := s.o.Authorizer.Authorize(ctx, itemActions+"/read", vaultOf(id)); err != nil {
		return Item{}, err
	}
	return s.lookupItem(ctx, id)
}

func (s *Service) lookupItem(ctx context.Context, id armid.ID) (item Item, err error) {
	if id, err = canonicalItem(id); err != nil {
		return Item{}, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		item, err = selectItem(ctx, tx, id)
		return err
	})
	return item, err
}

// ItemOf returns the item that protects a VM, in whatever vault.
func (s *Service) ItemOf(ctx context.Context, vm armid.ID) (item Item, err error) {
	if err := s.o.Authorizer.Authorize(ctx, vmType+"/read", vm); err != nil {
		return Item{}, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		item, err = selectItemOf(ctx, tx, vm)
		return err
	})
	return item, err
}

// Items returns the protected items of a vault, by id.
func (s *Service) Items(ctx context.Context, vault armid.ID) ([]Item, error) {
	return s.ItemsAfter(ctx, vault, "", all)
}

// ItemsAfter returns so many items of a vault that come after a place (PlaceOfItem).
func (s *Service) ItemsAfter(ctx context.Context, vault armid.ID, after string, most int) (items []Item, err error) {
	if err := s.o.Authorizer.Authorize(ctx, itemActions+"/read", vault); err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		if _, err := selectVault(ctx, tx, vault); err != nil {
			return err
		}
		items, err = selectItemsAfter(ctx, tx, vault, after, most)
		return err
	})
	return items, err
}

// Protectable returns the VMs in the vault's subscription and location that nothing protects.
func (s *Service) Protectable(ctx context.Context, vault armid.ID) ([]compute.VM, error) {
	v, err := s.Vault(ctx, vault)
	if err != nil {
		return nil, err
	}
	machines, err := s.o.Machines.VMs(ctx, armid.Subscription(v.ID.Subscription))
	if err != nil {
		return nil, err
	}
	var items []Item
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		items, err = selectAllItems(ctx, tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(machines, func(m compute.VM) bool {
		return !strings.EqualFold(m.Location, v.Location) ||
			slices.ContainsFunc(items, func(i Item) bool { return i.VM.Equal(m.ID) })
	}), nil
}

// Stop ends the schedule of an item and keeps its recovery points for ever.
func (s *Service) Stop(ctx context.Context, id armid.ID) (done job.Job, err error) {
	if err := s.o.Authorizer.Authorize(ctx, itemActions+"/write", vaultOf(id)); err != nil {
		return job.Job{}, err
	}
	if id, err = canonicalItem(id); err != nil {
		return job.Job{}, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		item, err := selectItem(ctx, tx, id)
		if err != nil {
			return err
		}
		if item.SoftDeleted() {
			return itemSoftDeleted(item)
		}
		item.State, item.Policy, item.next = ProtectionStopped, armid.ID{}, time.Time{}
		if err := putItem(ctx, tx, item); err != nil {
			return err
		}
		done, err = s.o.Jobs.Record(ctx, tx, job.Spec{Kind: "DisableBackup", Scope: item.Vault().Key(), Entity: item.ID.Key(),
			Details: map[string]string{"VM Name": item.VM.Name(), "Policy Name": ""}, Correlation: s.o.Correlation(ctx)})
		return err
	})
	return done, err
}

func isNotFound(err error) bool { return err != nil && problem.KindOf(err) == problem.NotFound }
