package armid_test

import (
	"strings"
	"testing"

	"kluis/internal/armid"
)

func TestParsePath(t *testing.T) {
	const vault = "/subscriptions/s/resourceGroups/g/providers/Microsoft.RecoveryServices/vaults/v"
	cases := []struct {
		path, id, rest string
	}{
		{"/", "/", ""},
		{"/subscriptions", "/", "subscriptions"},
		{"/subscriptions/s", "/subscriptions/s", ""},
		{"/Subscriptions/S/", "/subscriptions/S", ""},
		{"/subscriptions/s/resourcegroups", "/subscriptions/s", "resourcegroups"},
		{"/subscriptions/s/resourcegroups/G", "/subscriptions/s/resourceGroups/G", ""},
		{"/subscriptions/s/resources", "/subscriptions/s", "resources"},
		{"/subscriptions/s/providers/Microsoft.Compute/disks", "/subscriptions/s/providers/Microsoft.Compute", "disks"},
		{vault, vault, ""},
		{vault + "/backupPolicies/", vault, "backupPolicies"},
		{vault + "/backupFabrics/Azure/protectionContainers/c;d/protectedItems/VM;e/backup",
			vault + "/backupFabrics/Azure/protectionContainers/c;d/protectedItems/VM;e", "backup"},
	}
	for _, c := range cases {
		id, rest, err := armid.ParsePath(c.path)
		if err != nil || id.String() != c.id || rest != c.rest {
			t.Errorf("ParsePath(%q) = %q, %q, %v; want %q, %q", c.path, id, rest, err, c.id, c.rest)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{
		"", "subscriptions/s", "/subscriptions//x", "/subscriptions/s/resourceGroups/..", "/subscriptions/s/a/b",
		"/subscriptions/s/resourceGroups/g/providers/N/t", "/subscriptions/a\x00b", "/subscriptions/a\\b",
		"/subscriptions/" + strings.Repeat("x", 3000),
	} {
		if id, err := armid.Parse(s); err == nil {
			t.Errorf("Parse(%q) = %q, want an error", s, id)
		}
	}
}

func TestWithinAndParent(t *testing.T) {
	vm := armid.Must("/subscriptions/S/resourceGroups/G/providers/Microsoft.Compute/virtualMachines/web")
	if !vm.Within(armid.Must("/subscriptions/s/resourcegroups/g")) || vm.Within(armid.Must("/subscriptions/s/resourceGroups/g2")) ||
		armid.Must("/subscriptions/s/resourceGroups/g22").Within(armid.Must("/subscriptions/s/resourceGroups/g2")) {
		t.Error("Within does not follow the path's segments")
	}
	if got := vm.Parent().String(); got != "/subscriptions/S/resourceGroups/G" {
		t.Errorf("Parent = %q", got)
	}
	if !vm.Is("microsoft.compute/VirtualMachines") || vm.Name() != "web" || vm.NameOf("virtualmachines") != "web" {
		t.Error("type or name is wrong")
	}
}

// A resource that extends another has a type of its own, and stands below what it extends.
func TestExtension(t *testing.T) {
	const vm = "/subscriptions/S/resourceGroups/G/providers/Microsoft.Compute/virtualMachines/web"
	for _, c := range []struct{ id, typ, namespace, extended, parent string }{
		{vm + "/providers/Microsoft.Resources/tags/default", "Microsoft.Resources/tags", "Microsoft.Resources", vm, vm},
		{vm + "/Providers/N.S/a/b/c/d", "N.S/a/c", "N.S", vm, vm + "/Providers/N.S/a/b"},
		{vm, "Microsoft.Compute/virtualMachines", "Microsoft.Compute", "/subscriptions/S/resourceGroups/G", "/subscriptions/S/resourceGroups/G"},
		{"/subscriptions/S/providers/Microsoft.Resources/tags/default", "Microsoft.Resources/tags", "Microsoft.Resources", "/subscriptions/S", "/subscriptions/S"},
	} {
		id := armid.Must(c.id)
		if id.Extends() != strings.Contains(c.extended, "/virtualMachines/") {
			t.Errorf("%s: extends another resource: %v", id, id.Extends())
		}
		if id.Type() != c.typ || id.Namespace() != c.namespace || id.Extended().String() != c.extended || id.Parent().String() != c.parent || id.String() != c.id {
			t.Errorf("%s: type %s, namespace %s, extends %s, parent %s", id, id.Type(), id.Namespace(), id.Extended(), id.Parent())
		}
	}
}

func TestExtensionOf(t *testing.T) {
	for _, scope := range []string{"/subscriptions/s", "/subscriptions/s/resourceGroups/g", "/subscriptions/s/resourceGroups/g/providers/A.B/c/d", "/subscriptions/s/resourceGroups/g/providers/A.B/c/d/providers/E.F/g/h"} {
		id := armid.Must(scope).Extension("Microsoft.Authorization/locks", "l")
		if id.String() != scope+"/providers/Microsoft.Authorization/locks/l" || id.Type() != "Microsoft.Authorization/locks" || id.Extended().String() != scope || !armid.Must(id.String()).Equal(id) {
			t.Errorf("%s: %s, %s, extends %s", scope, id, id.Type(), id.Extended())
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/web")
	f.Add("/subscriptions//x")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := armid.Parse(s)
		if err != nil {
			return
		}
		again, err := armid.Parse(id.String())
		if err != nil || !again.Equal(id) {
			t.Fatalf("%q parses, but its own spelling %q does not parse back: %v", s, id, err)
		}
	})
}
