package az_test

import "testing"

// A storage account, its keys, and a blob that goes there and comes back, once with a key and once with a token.
func TestStorage(t *testing.T) {
	_, a := story(t, "storage")
	a.prints(`"Succeeded"`, "storage account create -n azstorage -g storage -l westeurope --sku Standard_LRS --query provisioningState")
	a.prints(`["azstorage"]`, "storage account list -g storage --query [].name")
	a.prints(`["key1","key2"]`, "storage account keys list -n azstorage -g storage --query [].keyName")
	key := a.word("storage account keys list -n azstorage -g storage --query [0].value")
	const box = " --account-name azstorage -c box --auth-mode login"
	a.prints(`true`, "storage container create -n box --account-name azstorage --account-key %s --query created", key)
	a.write("there.txt", []byte("to and fro"))
	a.run("storage blob upload -n a.txt -f there.txt --no-progress" + box)
	a.prints(`["a.txt"]`, "storage blob list --account-name azstorage -c box --account-key %s --query [].name", key)
	a.prints(`10`, "storage blob show -n a.txt --query properties.contentLength"+box)
	a.run("storage blob download -n a.txt -f back.txt --no-progress" + box)
	if got := string(a.read("back.txt")); got != "to and fro" {
		t.Errorf("it came back as %q", got)
	}
	a.prints(``, "storage blob delete -n a.txt"+box)
	a.prints(`[]`, "storage blob list"+box)
	a.prints(``, "storage account delete -n azstorage -g storage --yes")
}
