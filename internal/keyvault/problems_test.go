package keyvault

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"kluis/internal/armid"
	"kluis/internal/identity"
	"kluis/internal/problem"
)

var update = flag.Bool("update", false, "rewrite golden files")

// All that can be said to a person is in one file, to be read; each says what to do.
func TestProblems(t *testing.T) {
	id := armid.Must("/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/kv-one")
	v := Vault{ID: id, Location: "westeurope"}
	k, s := target{Keys, "kv-one", "kek", ""}, target{Secrets, "kv-one", "bek", ""}
	var text strings.Builder
	for _, p := range []*problem.Error{
		noPrincipal(), accessDenied(identity.Principal{AppID: "app", ObjectID: "object"}, "issuer", secretGet, v),
		deniedByRole(identity.Principal{AppID: "app", ObjectID: "object"}, "issuer", secretGet.action(), s.scope(v), v), notForDiskEncryption(v), vaultNotFound("kv-one"), vaultIsDeleted("kv-one"),
		vaultResourceNotFound(id), deletedVaultNotFound("kv-one"), vaultNameTaken("kv-one"), vaultNameDeleted("kv-one"), vaultPurgeProtected("kv-one"), badVaultName("x"),
		badVault("sku", "sku.name is %q, and must be standard or premium", "gold"), badPolicy("%q is not a permission for keys", "fly"), badPolicyChange("burn"),
		tooManyPolicies(), badParameter("value", "it is too long"), objectNotFound(k), objectNotFound(s), deletedObjectNotFound(s), objectIsDeleted(k), objectInTheWay(s), objectExists(k),
		objectPurgeProtected(s), disabled(secretGet, Secrets), disabled(keyWrap, Keys), notYetValid(keyWrap), expired(keyWrap), operationForbidden(keyUnwrap), unwrapFailed(keyUnwrap), unwrapFailed(keyDecrypt),
		badRotationPolicy("it has two triggers"), badPeriod("attributes.expiryTime", "a year"), releaseUnsupported(), rootFixed(),
		badRecipient("age1x", errors.New("not a recipient")),
		badBlob(), wrongBlob(Keys, Secrets),
	} {
		if p.Advice == "" {
			t.Errorf("%s has no advice", p.Code)
		}
		code := p.Code
		if len(p.Details) > 0 {
			code += " / " + p.Details[0].Code
		}
		fmt.Fprintf(&text, "%s\n\t%s\n\t-> %s\n", code, p.Message, p.Advice)
	}
	const golden = "testdata/problems.golden"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(want) {
		t.Errorf("problems differ from %s (run with -update and read the difference):\n%s", golden, &text)
	}
}
