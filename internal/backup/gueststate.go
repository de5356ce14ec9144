package backup

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"kluis/internal/fabric"
	"kluis/internal/recovery"
)

// What a machine is beside its disks is part of a recovery point: its definition in the host's own language, the variables
// of its firmware and the state of its TPM. Without them what comes back may not boot. A VM at rest has none of it.
const (
	machineDocument = "machine.json" // a fabric.GuestState without the two below
	nvramAttachment = "machine/nvram"
	tpmAttachment   = "machine/tpm" // a tar archive

	maxAttachment = 1 << 20 // what the store takes as one
)

// readGuestState asks the host. What cannot be had, or kept, is told and fails no backup.
func (b *backupRun) readGuestState(ctx context.Context, vm fabric.VM) (err error) {
	if b.guest, err = b.s.o.Fabric.GuestState(ctx, vm); err != nil {
		return fmt.Errorf("read what %s is beside its disks: %w", vm.Name, err)
	}
	if b.guest == nil {
		return nil
	}
	for what, data := range map[string]*[]byte{"UEFI variables": &b.guest.NVRAM, "TPM state": &b.guest.TPM} {
		if len(*data) > maxAttachment {
			b.guest.Notes = append(b.guest.Notes, fmt.Sprintf("The %s could not be saved: they take %d bytes, and a recovery point keeps %d of them.", what, len(*data), maxAttachment))
			*data = nil
		}
	}
	return nil
}

func (b *backupRun) attachGuestState() error {
	if b.guest == nil {
		return nil
	}
	text, err := json.Marshal(fabric.GuestState{Definition: b.guest.Definition, Notes: b.guest.Notes})
	if err != nil {
		return fmt.Errorf("encode %s: %w", machineDocument, err)
	}
	for name, data := range map[string][]byte{machineDocument: text, nvramAttachment: b.guest.NVRAM, tpmAttachment: b.guest.TPM} {
		if data == nil {
			continue
		}
		if err := b.writer.Attach(name, data); err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
	}
	return nil
}

// guestStateOf reads it back; nil where the point has none.
func guestStateOf(root *recovery.Point) (*fabric.GuestState, error) {
	there := root.Attachments()
	if !slices.Contains(there, machineDocument) {
		return nil, nil
	}
	text, err := root.Attachment(machineDocument)
	if err != nil {
		return nil, err
	}
	var state fabric.GuestState
	if err := json.Unmarshal(text, &state); err != nil {
		return nil, fmt.Errorf("decode %s of recovery point %s: %w", machineDocument, root.ID, err)
	}
	for name, to := range map[string]*[]byte{nvramAttachment: &state.NVRAM, tpmAttachment: &state.TPM} {
		if !slices.Contains(there, name) {
			continue
		}
		if *to, err = root.Attachment(name); err != nil {
			return nil, err
		}
	}
	return &state, nil
}
