package backup

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"unicode/utf16"

	"kluis/internal/compute"
)

// The three documents that a restore leaves beside the disks, in the shapes of Azure Backup: the VM's
// configuration, a deployment template that makes a VM of the restored disks, and, for an encrypted VM,
// what restores its key and secret. None of them holds anything secret: a BEK is in them only as the
// KEK wrapped it, a key and a secret only as the key vault's sealed backup.

// configuration is the VM as it was, with the restored disks in place of its own. As Azure's it is
// UTF-16, little endian, and its properties are flattened to "properties.storageProfile" and so on:
// scripts that read it expect both.
func configuration(vm compute.VM, restored []restoredDisk) ([]byte, error) {
	doc, err := toMap(vm)
	if err != nil {
		return nil, err
	}
	flat := map[string]any{}
	for name, v := range doc {
		if name != "properties" {
			flat[name] = v
		}
	}
	properties, _ := doc["properties"].(map[string]any)
	for name, v := range properties {
		flat["properties."+name] = v
	}
	storage, _ := properties["storageProfile"].(map[string]any)
	for _, r := range restored {
		if disk := diskOf(storage, r.Lun); disk != nil {
			disk["managedDisk"] = map[string]any{"id": r.Disk.ID.String()}
			disk["name"] = r.Disk.ID.Name()
		}
	}
	text, err := json.MarshalIndent(flat, "", "  ")
	if err != nil {
		return nil, err
	}
	return utf16LE(string(text)), nil
}

// diskOf finds a disk in a storage profile by its LUN; -1 is the OS disk.
func diskOf(storage map[string]any, lun int) map[string]any {
	if lun < 0 {
		disk, _ := storage["osDisk"].(map[string]any)
		return disk
	}
	disks, _ := storage["dataDisks"].([]any)
	for _, d := range disks {
		if disk, ok := d.(map[string]any); ok && disk["lun"] == float64(lun) {
			return disk
		}
	}
	return nil
}

func utf16LE(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// template makes the deployment template. Its parameters have the names that Azure's templates have, and
// defaults, so that it can be deployed as it is; a person changes what they like.
func template(vm compute.VM, restored []restoredDisk, p Point) ([]byte, error) {
	doc, err := toMap(vm)
	if err != nil {
		return nil, err
	}
	parameter := func(def, text string) map[string]any {
		return map[string]any{"type": "string", "defaultValue": def, "metadata": map[string]any{"description": text}}
	}
	parameters := map[string]any{
		"VirtualMachineName":          parameter(vm.ID.Name(), "Name of the virtual machine to create."),
		"VirtualNetwork":              parameter("restored", "Virtual network to connect to."),
		"VirtualNetworkResourceGroup": parameter(vm.ID.ResourceGroup, "Resource group of the virtual network."),
		"Subnet":                      parameter("default", "Subnet of the virtual network."),
		"networkInterfacePrefixName":  parameter(vm.ID.Name()+"-nic", "Beginning of the network interface's name."),
		"publicIpAddressName":         parameter(vm.ID.Name()+"-ip", "Name of the public IP address."),
	}
	machine, err := restoredMachine(doc, vm, restored, parameters)
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(map[string]any{
		"$schema":        "https://schema.management.azure.com/schemas/2015-01-01/deploymentTemplate.json#",
		"contentVersion": "1.0.0.0",
		"metadata":       map[string]any{"recoveryPoint": p.ID, "recoveryPointTime": azureTime(p.Time)},
		"parameters":     parameters,
		"variables": map[string]any{
			"networkInterface": "[concat(parameters('networkInterfacePrefixName'), '0')]",
			"subnetId":         "[resourceId(parameters('VirtualNetworkResourceGroup'), 'Microsoft.Network/virtualNetworks/subnets', parameters('VirtualNetwork'), parameters('Subnet'))]",
		},
		"resources": []any{publicAddress(vm), networkInterface(vm), machine},
	}, "", "  ")
}

func publicAddress(vm compute.VM) map[string]any {
	return map[string]any{
		"type": "Microsoft.Network/publicIPAddresses", "apiVersion": "2023-09-01", "location": vm.Location,
		"name":       "[parameters('publicIpAddressName')]",
		"properties": map[string]any{"publicIPAllocationMethod": "Dynamic"},
	}
}

func networkInterface(vm compute.VM) map[string]any {
	return map[string]any{
		"type": "Microsoft.Network/networkInterfaces", "apiVersion": "2023-09-01", "location": vm.Location,
		"name":      "[variables('networkInterface')]",
		"dependsOn": []any{"[resourceId('Microsoft.Network/publicIPAddresses', parameters('publicIpAddressName'))]"},
		"properties": map[string]any{"ipConfigurations": []any{map[string]any{
			"name": "ipconfig1",
			"properties": map[string]any{
				"privateIPAllocationMethod": "Dynamic",
				"subnet":                    map[string]any{"id": "[variables('subnetId')]"},
				"publicIPAddress":           map[string]any{"id": "[resourceId('Microsoft.Network/publicIPAddresses', parameters('publicIpAddressName'))]"},
			},
		}}},
	}
}

// restoredMachine is the VM resource: what it was, with the restored disks attached. What only the
// creation of a fresh VM may say (osProfile) is left out, because the disks already hold it.
func restoredMachine(doc map[string]any, vm compute.VM, restored []restoredDisk, parameters map[string]any) (map[string]any, error) {
	old, _ := doc["properties"].(map[string]any)
	oldStorage, _ := old["storageProfile"].(map[string]any)
	properties := map[string]any{}
	for _, name := range []string{"hardwareProfile", "securityProfile", "licenseType", "diagnosticsProfile"} {
		if v, ok := old[name]; ok {
			properties[name] = v
		}
	}
	storage := map[string]any{}
	dataDisks := []any{}
	for _, r := range restored {
		was := diskOf(oldStorage, r.Lun)
		if was == nil {
			return nil, fmt.Errorf("disk %s is not in the configuration of %s", r.Name, vm.ID.Name())
		}
		disk := map[string]any{"createOption": "Attach", "name": r.Disk.ID.Name(), "managedDisk": map[string]any{"id": r.Disk.ID.String()}}
		for _, name := range []string{"osType", "caching", "encryptionSettings", "lun"} {
			if v, ok := was[name]; ok {
				disk[name] = v
			}
		}
		if r.Lun >= 0 {
			dataDisks = append(dataDisks, disk)
			continue
		}
		parameters["osDiskName"] = map[string]any{"type": "string", "defaultValue": r.Disk.ID.Name(),
			"metadata": map[string]any{"description": "Name of the restored OS disk."}}
		disk["name"] = "[parameters('osDiskName')]"
		disk["managedDisk"] = map[string]any{"id": fmt.Sprintf("[resourceId('%s', 'Microsoft.Compute/disks', parameters('osDiskName'))]", r.Disk.ID.ResourceGroup)}
		storage["osDisk"] = disk
	}
	storage["dataDisks"] = dataDisks
	properties["storageProfile"] = storage
	properties["networkProfile"] = map[string]any{"networkInterfaces": []any{map[string]any{
		"id": "[resourceId('Microsoft.Network/networkInterfaces', variables('networkInterface'))]"}}}
	if vm.Properties.Host != nil {
		parameters["HostId"] = map[string]any{"type": "string", "defaultValue": vm.Properties.Host.ID.String(),
			"metadata": map[string]any{"description": "Host on which the virtual machine is made and started."}}
		properties["host"] = map[string]any{"id": "[parameters('HostId')]"}
	}
	machine := map[string]any{
		"type": vmType, "apiVersion": "2024-03-01", "location": vm.Location,
		"name":       "[parameters('VirtualMachineName')]",
		"dependsOn":  []any{"[resourceId('Microsoft.Network/networkInterfaces', variables('networkInterface'))]"},
		"properties": properties,
	}
	if tags, ok := doc["tags"]; ok {
		machine["tags"] = tags
	}
	return machine, nil
}

// keyAndSecretDetails is one disk's part of the encryption information. The names are Azure's.
type keyAndSecretDetails struct {
	KeyURL                   string `json:"KeyUrl"`
	KeyVaultID               string `json:"KeyVaultId"`
	KeyBackupData            string `json:"KeyBackupData"`
	SecretURL                string `json:"SecretUrl"`
	SecretVaultID            string `json:"SecretVaultId"`
	SecretData               string `json:"SecretData"`
	KeyVaultSecretBackupData string `json:"KeyVaultSecretBackupData"`
	EncryptionMechanism      string `json:"EncryptionMechanism"`
}

// encryptionInfo tells how to restore key and secret. The restored disks carry their settings themselves,
// which Azure calls a single pass. Azure's document knows the OS disk only; the pairs
// of the data disks stand beside it.
func encryptionInfo(keys []KeyBackup) ([]byte, error) {
	type dataDisk struct {
		Lun int
		keyAndSecretDetails
	}
	info := struct {
		OsDiskKeyAndSecretDetails   *keyAndSecretDetails `json:",omitempty"`
		DataDiskKeyAndSecretDetails []dataDisk           `json:",omitempty"`
	}{}
	for _, k := range keys {
		details := keyAndSecretDetails{KeyURL: k.KeyURL, KeyVaultID: k.KeyVault.String(), KeyBackupData: EncodeBackup(k.KeyBlob),
			SecretURL: k.SecretURL, SecretVaultID: k.SecretVault.String(), SecretData: string(k.Wrapped),
			KeyVaultSecretBackupData: EncodeBackup(k.SecretBlob), EncryptionMechanism: "SinglePass"}
		if k.Lun < 0 {
			info.OsDiskKeyAndSecretDetails = &details
		} else {
			info.DataDiskKeyAndSecretDetails = append(info.DataDiskKeyAndSecretDetails, dataDisk{k.Lun, details})
		}
	}
	return json.MarshalIndent(info, "", "  ")
}

// EncodeBackup is how a key vault's backup blob is written in Azure's documents: in base64, and what comes
// out when that is decoded is the text that the key vault's restore takes.
func EncodeBackup(blob []byte) string {
	return base64.StdEncoding.EncodeToString([]byte(base64.RawURLEncoding.EncodeToString(blob)))
}

func toMap(v any) (m map[string]any, err error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return m, json.Unmarshal(b, &m)
}
