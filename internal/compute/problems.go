package compute

import (
	"errors"
	"fmt"
	"strings"

	"kluis/internal/armid"
	"kluis/internal/fabric"
	"kluis/internal/problem"
)

func isNotFound(err error) bool { return err != nil && problem.KindOf(err) == problem.NotFound }

func notFound(typ string, id armid.ID) *problem.Error {
	return problem.New(problem.NotFound, "ResourceNotFound", "The Resource '%s/%s' under resource group '%s' was not found.", typ, id.Name(), id.ResourceGroup).
		WithTarget(id.String()).WithAdvice("Check subscription, resource group and name.")
}

func locationRequired(id armid.ID) *problem.Error {
	return problem.New(problem.Invalid, "LocationRequired", "The location property is required for this definition.").
		WithTarget(id.String()).WithAdvice("Add a location, such as westeurope.")
}

func locationFixed(id armid.ID, location string) *problem.Error {
	return problem.New(problem.Conflict, "InvalidResourceLocation", "The resource %s exists in location %s; its location cannot be changed.", id.Name(), location).
		WithTarget(id.String()).WithAdvice("Use that location, or another name.")
}

func createOptionNotSupported(id armid.ID, option string) *problem.Error {
	return problem.New(problem.Unsupported, "OperationNotSupported", "%s cannot be created with createOption %.40q here.", id.Name(), option).
		WithTarget(id.String()).WithAdvice("Make the image file first, then register it as a disk with createOption Import and sourceUri file:///PATH; or use Copy with sourceResourceId of a disk or snapshot.")
}

func copySourceRequired(id armid.ID) *problem.Error {
	return problem.New(problem.Invalid, "InvalidParameter", "creationData.sourceResourceId of %s is not the id of a disk or a snapshot.", id.Name()).
		WithTarget("creationData.sourceResourceId").WithAdvice("Name the disk or snapshot that is to be copied.")
}

func copySourceMissing(id, source armid.ID) *problem.Error {
	return problem.New(problem.Invalid, "InvalidParameter", "%s cannot be made: its source %s does not exist.", id.Name(), source.Name()).
		WithTarget(source.String()).WithAdvice("Check the id in creationData.sourceResourceId.")
}

func copySizeFixed(id armid.ID, gib int64) *problem.Error {
	return problem.New(problem.Unsupported, "OperationNotSupported", "%s is a copy of a disk of %d GiB, and a copy cannot be larger or smaller here.", id.Name(), gib).
		WithTarget("diskSizeGB").WithAdvice("Leave diskSizeGB out.")
}

func copyInProgress(id armid.ID) *problem.Error {
	return problem.New(problem.Conflict, "OperationNotAllowed", "%s is being copied, or was deleted just now while it was.", id.Name()).
		WithTarget(id.String()).WithAdvice("Try again in a moment.")
}

// copyProblem says why an image could not be copied.
func copyProblem(source armid.ID, err error) error {
	if image, ok := errors.AsType[*fabric.ImageError](err); ok && image.Kind == fabric.NoSpace {
		return problem.New(problem.Conflict, "InsufficientStorage", "There is no room for a copy of %s.", source.Name()).
			WithTarget(source.String()).WithAdvice("Make room in the folder for restored disks (--restore-dir), or give it a larger file system.").WithCause(err)
	}
	return imageUnreadable(source, err)
}

func notMadeYet(id armid.ID) *problem.Error {
	return problem.New(problem.Conflict, "OperationNotAllowed", "%s is still being created.", id.Name()).
		WithTarget(id.String()).WithAdvice("Wait until its provisioningState is Succeeded.")
}

func incrementalNotSupported(id armid.ID) *problem.Error {
	return problem.New(problem.Unsupported, "OperationNotSupported", "The snapshot %s cannot be incremental: here each is a whole one.", id.Name()).
		WithTarget("properties.incremental").WithAdvice("Leave incremental out. For what changes from day to day, protect the virtual machine: recovery points hold only that.")
}

func invalidSource(d Disk, err error) *problem.Error {
	return problem.New(problem.Invalid, "InvalidParameter", "creationData.sourceUri of disk %s is not valid: %v.", d.ID.Name(), err).
		WithTarget("creationData.sourceUri").WithAdvice("Give file:///PATH of an image below a folder that the server allows (--allow-images).")
}

func imageTaken(d Disk, path string) *problem.Error {
	return problem.New(problem.Conflict, "DiskImageInUse", "The image %s already is another disk.", path).
		WithTarget(d.ID.String()).WithAdvice("Use that disk, or delete it first; deleting an imported disk keeps its image.")
}

func imageFixed(id armid.ID, source string) *problem.Error {
	return problem.New(problem.Conflict, "PropertyChangeNotAllowed", "%s exists with the image %s, which cannot be changed.", id.Name(), source).
		WithTarget("creationData").WithAdvice("Register the other image under another name.")
}

func diskExists(id armid.ID) *problem.Error {
	return problem.New(problem.Conflict, "DiskAlreadyExists", "The disk %s exists already.", id.Name()).
		WithTarget(id.String()).WithAdvice("Delete it, or restore into another resource group.")
}

func diskAttached(d Disk, vm string) *problem.Error {
	return problem.New(problem.Conflict, "OperationNotAllowed", "The disk %s is attached to the virtual machine %s.", d.ID.Name(), vm).
		WithTarget(d.ID.String()).WithAdvice("Delete or change that virtual machine first; its disks stay.")
}

func diskMissing(vm, disk armid.ID) *problem.Error {
	return problem.New(problem.Invalid, "InvalidParameter", "The disk %s that virtual machine %s names does not exist.", disk.Name(), vm.Name()).
		WithTarget(disk.String()).WithAdvice("Register the disk first, in the resource group that its id says.")
}

func diskTwice(vm, disk armid.ID) *problem.Error {
	return problem.New(problem.Invalid, "InvalidParameter", "The virtual machine %s names the disk %s twice.", vm.Name(), disk.Name()).
		WithTarget(disk.String()).WithAdvice("Attach each disk once.")
}

func osDiskRequired(vm armid.ID) *problem.Error {
	return problem.New(problem.Invalid, "InvalidParameter", "The virtual machine %s has no storageProfile.osDisk.managedDisk.", vm.Name()).
		WithTarget("storageProfile.osDisk").WithAdvice("Register the OS disk, then name its id.")
}

func attachOnly(vm armid.ID, option string) *problem.Error {
	return problem.New(problem.Unsupported, "OperationNotSupported",
		"The virtual machine %s asks for a disk with createOption %.40q; only disks that exist can be attached here.", vm.Name(), option).
		WithTarget("storageProfile").WithAdvice("Register each disk first, then use createOption Attach with managedDisk.id.")
}

func invalidLun(vm armid.ID, lun int) *problem.Error {
	return problem.New(problem.Invalid, "InvalidParameter", "The LUN %d of virtual machine %s is used twice or is not between 0 and 63.", lun, vm.Name()).
		WithTarget("storageProfile.dataDisks").WithAdvice("Give each data disk a LUN of its own.")
}

func encryptionIncomplete(id armid.ID) *problem.Error {
	return problem.New(problem.Invalid, "InvalidParameter", "The encryption settings of %s are enabled but name no diskEncryptionKey.", id.Name()).
		WithTarget(id.String()).WithAdvice("Name the secret that opens the disk (secretUrl, sourceVault), and the key that wraps it (keyEncryptionKey).")
}

func invalidEncryption(id armid.ID, err error) *problem.Error {
	return problem.New(problem.Invalid, "InvalidParameter", "The encryption settings of %s are not valid: %v.", id.Name(), err).
		WithTarget(id.String()).WithAdvice("Give the URL with its version and the id of the key vault it is in.")
}

// imageProblem says what is wrong with the file of an import.
func imageProblem(err error) error {
	image, ok := errors.AsType[*fabric.ImageError](err)
	if !ok {
		return err
	}
	kind, code, advice := problem.Invalid, "InvalidDiskImage", "Give a raw, qcow2, vhd or vhdx image without a backing file."
	switch image.Kind {
	case fabric.Missing:
		code, advice = "DiskImageNotFound", "Check the path: it is one on the server."
	case fabric.NotAllowed:
		kind, code, advice = problem.Denied, "DiskImageNotAllowed", "Move the file into an allowed folder, or start the server with --allow-images for its folder."
	case fabric.InUse:
		kind, code, advice = problem.Conflict, "DiskImageInUse", "Stop whatever writes to the file."
	case fabric.Unreadable, fabric.Truncated:
		code, advice = "DiskImageUnreadable", "Check the file's permissions and whether it is whole: qemu-img check."
	}
	return problem.New(kind, code, "The file %s cannot be a disk: it %s.", image.Path, image.Kind).WithTarget(image.Path).WithAdvice("%s", advice).WithCause(err)
}

// imageUnreadable says why the image of a disk or snapshot cannot be read now, and not where it lies.
func imageUnreadable(id armid.ID, err error) error {
	image, ok := errors.AsType[*fabric.ImageError](err)
	if !ok {
		return err
	}
	code, advice := "DiskImageUnreadable", "Check the file that is the disk's sourceUri, and its permissions."
	switch image.Kind {
	case fabric.InUse:
		code, advice = "DiskImageInUse", "Stop whatever writes to the disk: shut the machine down."
	case fabric.Changed, fabric.Truncated:
		code, advice = "DiskImageChanged", "Begin to read anew: what was read before and what would be read now are not of one disk."
	case fabric.Missing:
		code, advice = "DiskImageNotFound", "Put the image file back where the disk's sourceUri says."
	}
	return problem.New(problem.Conflict, code, "The image of %s cannot be read: it %s.", id.Name(), image.Kind).WithTarget(id.String()).WithAdvice("%s", advice).WithCause(err)
}

func invalidPatch(id armid.ID, err error) *problem.Error {
	return problem.New(problem.Invalid, "InvalidRequestContent", "The change of %s cannot be read: %v.", id.Name(), err).
		WithTarget(id.String()).WithAdvice("Send a JSON object with the members that are to change.")
}

func runsNoMachines(id armid.ID, action string) *problem.Error {
	return problem.New(problem.Unsupported, "OperationNotSupported",
		"The virtual machine %s consists of image files at rest, and the fabric 'images' runs no machines: it cannot do %s.", id.Name(), action).
		WithTarget(id.String()).WithAdvice("Run a hypervisor of yours on the files: the sourceUri of each disk says where they are.")
}

func extensionIncomplete(id armid.ID) *problem.Error {
	return problem.New(problem.Invalid, "InvalidParameter", "The extension %s has no publisher or no type.", id.Name()).
		WithTarget(id.String()).WithAdvice("Say whose extension it is and which: properties.publisher and properties.type.")
}

func invalidAccess(id armid.ID, parameter, why string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidParameter", "Access to %s cannot be granted: %s is not valid, %s.", id.Name(), parameter, why).
		WithTarget(parameter).WithAdvice("Ask for access Read, for up to 60 days.")
}

func accessNotSupported(id armid.ID, what string) *problem.Error {
	return problem.New(problem.Unsupported, "OperationNotSupported", "Access to %s is granted for reading, as a VHD; %s is not supported here.", id.Name(), what).
		WithTarget(id.String()).WithAdvice("Ask for access Read with fileFormat VHD.")
}

func diskShared(id armid.ID) *problem.Error {
	return problem.New(problem.Conflict, "OperationNotAllowed", "%s has an active shared access signature.", id.Name()).
		WithTarget(id.String()).WithAdvice("Revoke it first (endGetAccess; kluis disk access revoke), or wait until it expires.")
}

func operationNotFound(id string) *problem.Error {
	return problem.New(problem.NotFound, "NotFound", "There is no operation %.60s, or it was over long ago.", id).
		WithAdvice("Ask for the resource itself.")
}

func accessDenied() *problem.Error {
	return problem.New(problem.Denied, "AuthenticationFailed", "Server failed to authenticate the request: the signature of this URL is not valid, or no longer.").
		WithAdvice("Grant access to the disk anew (beginGetAccess; kluis disk access grant).")
}

func hostFixed(vm VM) *problem.Error {
	return problem.New(problem.Conflict, "PropertyChangeNotAllowed", "The host of the virtual machine %s cannot be changed.", vm.ID.Name()).
		WithTarget("properties.host").WithAdvice("Leave properties.host as it is, or out of the request.")
}

func disksOfHost(vm VM) *problem.Error {
	return problem.New(problem.Conflict, "OperationNotAllowed", "Which disks the virtual machine %s has is decided on its host %s, and cannot be changed here.",
		vm.ID.Name(), vm.Properties.Host.ID.Name()).
		WithTarget("storageProfile").WithAdvice("Attach or detach the disk on the host (virsh attach-disk, virsh detach-disk); it is seen here at once.")
}

func foundOnHost(m machineRow) *problem.Error {
	return problem.New(problem.Conflict, "OperationNotAllowed", "The virtual machine %s was found on the host %s and not created here; it is deleted there.", m.vm.ID.Name(), m.host).
		WithTarget(m.vm.ID.String()).WithAdvice("On the host: virsh undefine %s. Or keep it there and hide it here: put <kluis:vm xmlns:kluis=\"urn:kluis:vm:1\" ignore=\"yes\"/> into its metadata.", m.uuid)
}

func noSuchHost(vm VM) *problem.Error {
	return problem.New(problem.Invalid, "HostNotFound", "The virtual machine %s asks for the host %s, which there is not.", vm.ID.Name(), vm.Properties.Host.ID).
		WithTarget("properties.host").WithAdvice("Take the id of a host from the list: GET …/providers/Microsoft.Compute/hostGroups. Or leave properties.host out, for a virtual machine that is image files at rest.")
}

func hostAway(vm VM, host string) *problem.Error {
	return problem.New(problem.Unavailable, "HostUnavailable", "The host %s of the virtual machine %s does not answer.", host, vm.ID.Name()).
		WithTarget(vm.ID.String()).WithAdvice("Look at libvirtd there and at the way to it, and try again.")
}

func notRunnable(vm VM, disk diskRow, host string) *problem.Error {
	why := "its format is " + disk.image.Format + ", and raw and qcow2 are run"
	if disk.host != "" {
		why = "it belongs to a machine of the host " + disk.host
	}
	return problem.New(problem.Conflict, "OperationNotAllowed", "The disk %s cannot be one of the virtual machine %s on the host %s: %s.", disk.ID.Name(), vm.ID.Name(), host, why).
		WithTarget(disk.ID.String()).WithAdvice("Restore the disk, or import a copy of its image.")
}

func vmExists(id armid.ID) *problem.Error {
	return problem.New(problem.Conflict, "VirtualMachineAlreadyExists", "The virtual machine %s exists by now.", id.Name()).
		WithTarget(id.String()).WithAdvice("Use that one, or another name.")
}

func nameTaken(id armid.ID) *problem.Error {
	return problem.New(problem.Conflict, "ResourceNameTaken", "The name %s is taken in the resource group %s.", id.Name(), id.ResourceGroup).
		WithTarget(id.String()).WithAdvice("Give the machine another name on its host.")
}

func readOnHost(r diskRow) *problem.Error {
	return problem.New(problem.Unsupported, "OperationNotSupported", "The disk %s belongs to a machine of the host %s; its bytes are not read at a URL.", r.ID.Name(), r.host).
		WithTarget(r.ID.String()).WithAdvice("Back the virtual machine up, and restore or export the disk from a recovery point.")
}

func staysOnHost(m machineRow, action string) *problem.Error {
	return problem.New(problem.Unsupported, "OperationNotSupported", "The virtual machine %s stays on its host %s: it cannot do %s.", m.vm.ID.Name(), m.host, action).
		WithTarget(m.vm.ID.String()).WithAdvice("Migrate it with the host's own tools: virsh migrate.")
}

func hostGone(m machineRow, action string) *problem.Error {
	return problem.New(problem.Conflict, "HostNotConfigured", "The virtual machine %s was found on the host %s, which this server does not look after any more: it cannot do %s.", m.vm.ID.Name(), m.host, action).
		WithTarget(m.vm.ID.String()).WithAdvice("Start the server with --hosts %s=URI.", m.host)
}

// hostProblem says what a host had against something that was asked of a machine.
func hostProblem(m machineRow, action string, err error) error {
	host, ok := errors.AsType[*fabric.HostError](err)
	if !ok {
		return fmt.Errorf("%s %s on host %s: %w", action, m.vm.ID.Name(), m.host, err)
	}
	target := m.vm.ID.String()
	switch host.Kind {
	case fabric.Away:
		return problem.New(problem.Unavailable, "HostUnavailable", "The host %s of the virtual machine %s does not answer.", m.host, m.vm.ID.Name()).
			WithTarget(target).WithAdvice("Look at libvirtd there and at the way to it, and try again.").WithCause(err)
	case fabric.Gone:
		return problem.New(problem.NotFound, "ResourceNotFound", "The host %s does not have the virtual machine %s any more.", m.host, m.vm.ID.Name()).
			WithTarget(target).WithAdvice("List the virtual machines again.").WithCause(err)
	case fabric.Busy:
		return problem.New(problem.Conflict, "OperationNotAllowed", "The virtual machine %s is being backed up on its host %s.", m.vm.ID.Name(), m.host).
			WithTarget(target).WithAdvice("Try again when the backup is over (kluis job list), or cancel it.").WithCause(err)
	}
	advice := "Mend what the host complains of; its log has more (journalctl -u libvirtd, /var/log/libvirt/qemu)."
	if strings.Contains(err.Error(), "Permission denied") {
		advice = "QEMU runs as a user of its own there, who must get to the disks: keep them in a folder that everybody may pass through (kluis serve --restore-dir /var/lib/libvirt/images/kluis)."
	}
	return problem.New(problem.Conflict, "HostRefused", "The host %s did not do %s of the virtual machine %s: %v.", m.host, action, m.vm.ID.Name(), host.Err).
		WithTarget(target).WithAdvice("%s", advice).WithCause(err)
}

func noDiskKeys(vm armid.ID) *problem.Error {
	return problem.New(problem.Unsupported, "OperationNotSupported", "The disks of the virtual machine %s are encrypted, and this server has no key vault.", vm.Name()).
		WithTarget(vm.String()).WithAdvice("Start the virtual machine on its host, with a volume for its keys.")
}

// diskKeyMissing says why a VM cannot start: the key vault's own reason, for which disk, and what mends it.
func diskKeyMissing(vm armid.ID, disk DiskEncryption, err error) *problem.Error {
	code, kind, reason, advice := "KeyVaultSecretUnwrapFailed", problem.Conflict, err.Error(), "Name the secret and the key that belong together in the disk's encryptionSettingsCollection."
	if p := problem.Of(err); p != nil {
		code, reason, advice = p.Code, p.Message, p.Advice
		if len(p.Details) > 0 {
			code = p.Details[0].Code
		}
	}
	return problem.New(kind, code, "The virtual machine %s was not started, because the key of its disk %s could not be had: %s", vm.Name(), disk.Name, reason).
		WithTarget(disk.SecretURL).WithAdvice("%s Then start the virtual machine again.", advice).WithCause(err)
}
