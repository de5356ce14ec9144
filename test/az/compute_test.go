package az_test

import (
	"os/exec"
	"path/filepath"
	"testing"
)

func TestMachines(t *testing.T) {
	h, a := story(t, "machines")
	keys, err := h.NewKeys(t.Context(), "machines", "machines-keys")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.NewMachine(t.Context(), "machines", "db1", keys, "raw"); err != nil {
		t.Fatal(err)
	}
	a.prints(`["db1-0","db1-1"]`, "disk list -g machines --query sort([].name)")
	a.prints(`["db1-0","db1-1"]`, "disk list --query sort([?resourceGroup=='MACHINES'||resourceGroup=='machines'].name)")
	a.prints(`["Attached","Linux",true,["`+keys.KEK.ID()+`"]]`, "disk show -g machines -n db1-0"+
		" --query [diskState,osType,encryptionSettingsCollection.enabled,encryptionSettingsCollection.encryptionSettings[].keyEncryptionKey.keyUrl]")
	a.refuses("ResourceNotFound", "disk show -g machines -n none")
	a.prints(`["db1"]`, "vm list -g machines --query [].name")
	a.prints(`["db1","db1-0",[["db1-1",0]]]`, "vm show -g machines -n db1 --query [name,storageProfile.osDisk.name,storageProfile.dataDisks[].[name,lun]]")
	a.prints(`true`, "vm get-instance-view -g machines -n db1 --query length(instanceView.disks)>`0`")
	a.prints(`[["db1","VM deallocated"]]`, "vm list -d -g machines --query [].[name,powerState]")
	a.refuses("ResourceNotFound", "vm show -g machines -n none")
}

// A disk is made of an image file, changed, and taken away again.
func TestDisk(t *testing.T) {
	h, a := story(t, "disks")
	image := filepath.Join(h.Images, "az.vhd")
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-f", "vpc", "-o", "subformat=fixed,force_size", image, "4M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	a.prints(`["one","Succeeded","Import"]`, "disk create -g disks -n one --source file://%s --query [name,provisioningState,creationData.createOption]", image)
	a.prints(`{"a":"b"}`, "disk update -g disks -n one --set tags.a=b --query tags")
	a.prints(`true`, "disk grant-access -g disks -n one --duration-in-seconds 600 --query starts_with(accessSas,'https://')")
	a.prints(``, "disk revoke-access -g disks -n one")
	a.prints(``, "disk delete -g disks -n one --yes")
	a.prints(`[]`, "disk list -g disks")
	a.refuses("OperationNotSupported", "disk create -g disks -n two --size-gb 1")
}
