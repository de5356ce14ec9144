package compute

import (
	"context"
	"time"

	"kluis/internal/armid"
)

// InstanceView is what a VM is doing now. All VMs here are at rest, so nobody answers for the agent, and
// Azure's word for that is "Not Ready".
type InstanceView struct {
	VMAgent  AgentView      `json:"vmAgent"`
	Disks    []DiskView     `json:"disks,omitempty"`
	Statuses []InstanceCode `json:"statuses"`
}

// AgentView is the state of the agent in a VM.
type AgentView struct {
	Version  string         `json:"vmAgentVersion"`
	Statuses []InstanceCode `json:"statuses"`
}

// DiskView is the state of a disk of a VM. This is where az looks for encryption.
type DiskView struct {
	Name               string               `json:"name"`
	EncryptionSettings []EncryptionSettings `json:"encryptionSettings,omitempty"`
	Statuses           []InstanceCode       `json:"statuses"`
}

// InstanceCode is one thing that is said about an instance.
type InstanceCode struct {
	Code          string    `json:"code"`
	Level         string    `json:"level"`
	DisplayStatus string    `json:"displayStatus"`
	Message       string    `json:"message,omitempty"`
	Time          time.Time `json:"time,omitzero"`
}

func provisioned(at time.Time) InstanceCode {
	return InstanceCode{Code: "ProvisioningState/succeeded", Level: "Info", DisplayStatus: "Provisioning succeeded", Time: at}
}

// InstanceView returns what a VM is doing.
func (s *Service) InstanceView(ctx context.Context, id armid.ID) (InstanceView, error) {
	vm, err := s.VM(ctx, id)
	if err != nil {
		return InstanceView{}, err
	}
	view := InstanceView{
		VMAgent: AgentView{Version: "Unknown", Statuses: []InstanceCode{{Code: "ProvisioningState/Unavailable", Level: "Warning",
			DisplayStatus: "Not Ready", Message: "The VM is not running, so no agent reports.", Time: s.o.Now()}}},
		Statuses: []InstanceCode{provisioned(vm.Properties.TimeCreated), {Code: "PowerState/deallocated", Level: "Info", DisplayStatus: "VM deallocated"}},
	}
	for _, diskID := range vm.DiskIDs() {
		disk, err := s.LookupDisk(ctx, diskID)
		if err != nil {
			return InstanceView{}, err
		}
		d := DiskView{Name: disk.ID.Name(), Statuses: []InstanceCode{provisioned(disk.Properties.TimeCreated)}}
		if settings := vm.settingsOf(disk); settings != nil {
			shown := *settings
			enabled := true
			shown.Enabled = &enabled
			d.EncryptionSettings = []EncryptionSettings{shown}
			d.Statuses = append(d.Statuses, InstanceCode{Code: "EncryptionState/encrypted", Level: "Info", DisplayStatus: "Encryption is enabled on disk"})
		}
		view.Disks = append(view.Disks, d)
	}
	return view, nil
}

// settingsOf are the encryption settings that hold for a disk of the VM, or nil: the disk's own
// (encrypted in a single pass); for the OS disk without any, those of the VM.
func (v VM) settingsOf(disk Disk) *EncryptionSettings {
	settings := disk.settings()
	if settings == nil && v.LunOf(disk.ID) < 0 {
		settings = v.Properties.StorageProfile.OSDisk.EncryptionSettings.enabled()
	}
	return settings
}
