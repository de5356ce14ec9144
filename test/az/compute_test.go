package az_test

import "testing"

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
	a.refuses("ResourceNotFound", "vm show -g machines -n none")
}
