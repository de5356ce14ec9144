package compute

import (
	"context"
	"time"

	"kluis/internal/armid"
	"kluis/internal/fabric"
)

// InstanceView is what a VM is doing now, as its host says. For a VM at rest nobody answers for the agent, and Azure's
// word for that is "Not Ready".
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
	if err := s.o.Authorizer.Authorize(ctx, VMType+"/read", id); err != nil {
		return InstanceView{}, err
	}
	m, hosted, err := s.machine(ctx, id)
	if err != nil {
		return InstanceView{}, err
	}
	vm := m.vm
	if !hosted {
		m.power, m.deallocated = fabric.Stopped, true
	} else if !s.presence.answers(m.host) {
		m.power, m.agent = fabric.Unknown, ""
	}
	view := InstanceView{VMAgent: AgentView{Version: "Unknown", Statuses: []InstanceCode{agentCode(m, s.o.Now())}},
		Statuses: []InstanceCode{provisioned(vm.Properties.TimeCreated), powerCode(m)}}
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
	for _, left := range m.left {
		view.Disks = append(view.Disks, DiskView{Name: left.Target, Statuses: []InstanceCode{{Code: "DiskState/leftOut", Level: "Info",
			DisplayStatus: "Not backed up", Message: "The host's disk " + left.Target + " is no resource, and no backup has it: " + left.Reason + "."}}})
	}
	return view, nil
}

// powerCode says what a machine is doing in Azure's words, and in words like them for what Azure's VMs never do.
func powerCode(m machineRow) InstanceCode {
	code := func(state, message string) InstanceCode {
		return InstanceCode{Code: "PowerState/" + state, Level: "Info", DisplayStatus: "VM " + state, Message: message}
	}
	switch m.power {
	case fabric.Running:
		return code("running", "")
	case fabric.ShuttingDown:
		return code("stopping", "")
	case fabric.Paused:
		return code("paused", "The host has stopped its processors: it is starting, or somebody or an error of a disk paused it.")
	case fabric.Crashed:
		return code("stopped", "It crashed.")
	case fabric.Stopped:
		if m.deallocated {
			return code("deallocated", "")
		}
		return code("stopped", "")
	}
	return code("unknown", "The host "+m.host+" does not answer.")
}

// agentCode says what is known of the agent, which is the truth only while the machine runs.
func agentCode(m machineRow, now time.Time) InstanceCode {
	code := InstanceCode{Code: "ProvisioningState/Unavailable", Level: "Warning", DisplayStatus: "Not Ready", Time: now}
	switch {
	case m.power == fabric.Unknown:
		code.Message = "The host " + m.host + " does not answer."
	case m.power != fabric.Running:
		code.Message = "The VM is not running, so no agent reports."
	case m.agent == fabric.AgentReady:
		return InstanceCode{Code: "ProvisioningState/succeeded", Level: "Info", DisplayStatus: "Ready", Message: "Guest Agent is running", Time: now}
	case m.agent == fabric.AgentNotReady:
		code.Message = "The VM has a channel for the agent, and nobody answers on it: install qemu-guest-agent in the guest, or wait for it to boot."
	default:
		code.Message = "The VM has no channel for the agent: add the channel org.qemu.guest_agent.0 to its definition."
	}
	return code
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
