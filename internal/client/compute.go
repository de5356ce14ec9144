package client

import (
	"context"
	"net/url"

	"kluis/internal/armid"
)

// Disk is a managed disk: an image file that the server knows.
type Disk = Resource[DiskProperties]

// DiskProperties are the settings of a disk.
type DiskProperties struct {
	OSType                       string                        `json:"osType,omitempty"`
	CreationData                 CreationData                  `json:"creationData"`
	DiskSizeGB                   int64                         `json:"diskSizeGB,omitempty"`
	DiskSizeBytes                int64                         `json:"diskSizeBytes,omitempty"`
	DiskState                    string                        `json:"diskState,omitempty"`
	EncryptionSettingsCollection *EncryptionSettingsCollection `json:"encryptionSettingsCollection,omitempty"`
	ProvisioningState            string                        `json:"provisioningState,omitempty"`
}

// CreationData says where the content of a disk comes from.
type CreationData struct {
	CreateOption     string `json:"createOption"`
	SourceURI        string `json:"sourceUri,omitempty"`
	SourceResourceID string `json:"sourceResourceId,omitempty"`
}

// EncryptionSettingsCollection names the keys of an encrypted disk.
type EncryptionSettingsCollection struct {
	Enabled            bool                 `json:"enabled"`
	Version            string               `json:"encryptionSettingsVersion,omitempty"`
	EncryptionSettings []EncryptionSettings `json:"encryptionSettings"`
}

// EncryptionSettings is the pair of BEK and KEK. The KEK is absent where the BEK is not wrapped.
type EncryptionSettings struct {
	Enabled           *bool      `json:"enabled,omitempty"` // on the VM's OS disk only
	DiskEncryptionKey *SecretRef `json:"diskEncryptionKey,omitempty"`
	KeyEncryptionKey  *KeyRef    `json:"keyEncryptionKey,omitempty"`
}

// SecretRef names a BEK.
type SecretRef struct {
	SecretURL   string `json:"secretUrl"`
	SourceVault Ref    `json:"sourceVault"`
}

// KeyRef names a KEK.
type KeyRef struct {
	KeyURL      string `json:"keyUrl"`
	SourceVault Ref    `json:"sourceVault"`
}

// Encryption makes the settings of a disk whose BEK is at secretURL, wrapped by the KEK at keyURL, both
// in one key vault. An empty keyURL makes the settings of an unwrapped BEK.
func Encryption(keyVault armid.ID, secretURL, keyURL string) *EncryptionSettingsCollection {
	vault := Ref{ID: keyVault.String()}
	s := EncryptionSettings{DiskEncryptionKey: &SecretRef{secretURL, vault}}
	if keyURL != "" {
		s.KeyEncryptionKey = &KeyRef{keyURL, vault}
	}
	return &EncryptionSettingsCollection{Enabled: true, Version: "1.1", EncryptionSettings: []EncryptionSettings{s}}
}

// VM is a virtual machine.
type VM = Resource[VMProperties]

// VMProperties are the settings of a VM that a backup cares for.
type VMProperties struct {
	VMID              string          `json:"vmId,omitempty"`
	HardwareProfile   HardwareProfile `json:"hardwareProfile"`
	StorageProfile    StorageProfile  `json:"storageProfile"`
	Host              *Ref            `json:"host,omitempty"` // which runs it; nil for image files at rest
	ProvisioningState string          `json:"provisioningState,omitempty"`
}

// HardwareProfile is the size of a VM.
type HardwareProfile struct {
	VMSize string `json:"vmSize,omitempty"`
}

// StorageProfile is the disks of a VM.
type StorageProfile struct {
	OSDisk    OSDisk     `json:"osDisk"`
	DataDisks []DataDisk `json:"dataDisks"`
}

// OSDisk is the disk a VM boots from.
type OSDisk struct {
	OSType             string              `json:"osType,omitempty"`
	Name               string              `json:"name,omitempty"`
	CreateOption       string              `json:"createOption"`
	Caching            string              `json:"caching,omitempty"`
	ManagedDisk        *Ref                `json:"managedDisk,omitempty"`
	EncryptionSettings *EncryptionSettings `json:"encryptionSettings,omitempty"`
}

// DataDisk is another disk of a VM.
type DataDisk struct {
	LUN          int    `json:"lun"`
	Name         string `json:"name,omitempty"`
	CreateOption string `json:"createOption"`
	Caching      string `json:"caching,omitempty"`
	ManagedDisk  *Ref   `json:"managedDisk,omitempty"`
}

const (
	typeVM   = "Microsoft.Compute/virtualMachines"
	typeDisk = "Microsoft.Compute/disks"
)

// VMID is the id of a VM.
func (c *Client) VMID(group, name string) armid.ID { return c.ResourceID(group, typeVM, name) }

// DiskID is the id of a disk.
func (c *Client) DiskID(group, name string) armid.ID { return c.ResourceID(group, typeDisk, name) }

// ImportDisk makes a disk of an image file that lies under a folder the server allows.
func (c *Client) ImportDisk(ctx context.Context, id armid.ID, location, file, osType string, encryption *EncryptionSettingsCollection) (Disk, error) {
	source := url.URL{Scheme: "file", Path: file}
	return c.PutDisk(ctx, id, Disk{Location: location, Properties: DiskProperties{
		OSType:                       osType,
		CreationData:                 CreationData{CreateOption: "Import", SourceURI: source.String()},
		EncryptionSettingsCollection: encryption,
	}})
}

// PutDisk creates or updates a disk.
func (c *Client) PutDisk(ctx context.Context, id armid.ID, d Disk) (Disk, error) {
	return putResource(ctx, c, id, versionDisks, d)
}

// Disk reads a disk.
func (c *Client) Disk(ctx context.Context, id armid.ID) (Disk, error) {
	return getResource[DiskProperties](ctx, c, id, versionDisks)
}

// Disks lists the disks of a scope.
func (c *Client) Disks(ctx context.Context, scope armid.ID) ([]Disk, error) {
	return listResources[DiskProperties](ctx, c, collection(scope, typeDisk), versionDisks, "")
}

// DeleteDisk deletes a disk.
func (c *Client) DeleteDisk(ctx context.Context, id armid.ID) error {
	return c.delete(ctx, id, versionDisks)
}

// VMOf makes the body of a VM whose disks exist: the OS disk first, then the data disks by LUN. The OS
// disk's encryption settings also stand in the VM, as Azure shows them.
func VMOf(location, osType string, os Disk, data ...Disk) VM {
	var vm VM
	vm.Location = location
	vm.Properties.HardwareProfile.VMSize = "Standard_D2s_v3"
	vm.Properties.StorageProfile.OSDisk = OSDisk{
		OSType: osType, Name: os.Name, CreateOption: "Attach", Caching: "ReadWrite", ManagedDisk: &Ref{os.ID},
	}
	if e := os.Properties.EncryptionSettingsCollection; e != nil && e.Enabled && len(e.EncryptionSettings) > 0 {
		settings := e.EncryptionSettings[0]
		settings.Enabled = &e.Enabled
		vm.Properties.StorageProfile.OSDisk.EncryptionSettings = &settings
	}
	vm.Properties.StorageProfile.DataDisks = []DataDisk{}
	for lun, d := range data {
		vm.Properties.StorageProfile.DataDisks = append(vm.Properties.StorageProfile.DataDisks,
			DataDisk{LUN: lun, Name: d.Name, CreateOption: "Attach", ManagedDisk: &Ref{d.ID}})
	}
	return vm
}

// PutVM creates or updates a VM.
func (c *Client) PutVM(ctx context.Context, id armid.ID, vm VM) (VM, error) {
	return putResource(ctx, c, id, versionCompute, vm)
}

// VM reads a VM.
func (c *Client) VM(ctx context.Context, id armid.ID) (VM, error) {
	return getResource[VMProperties](ctx, c, id, versionCompute)
}

// VMs lists the VMs of a scope.
func (c *Client) VMs(ctx context.Context, scope armid.ID) ([]VM, error) {
	return listResources[VMProperties](ctx, c, collection(scope, typeVM), versionCompute, "")
}

// DeleteVM deletes a VM; its disks stay.
func (c *Client) DeleteVM(ctx context.Context, id armid.ID) error {
	return c.delete(ctx, id, versionCompute)
}
