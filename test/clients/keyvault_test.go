package clients_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

const group, location = "rg", "westeurope"

func (s *server) arm() *arm.ClientOptions { return &arm.ClientOptions{ClientOptions: s.options} }

// readObjectID reads the caller's object id out of its token.
func (s *server) readObjectID(t *testing.T) string {
	t.Helper()
	token, err := s.credential.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{s.endpoint + "/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	claims, err := base64.RawURLEncoding.DecodeString(strings.Split(token.Token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claim struct{ OID string }
	if err := json.Unmarshal(claims, &claim); err != nil {
		t.Fatal(err)
	}
	return claim.OID
}

// must is for what has to work for the test to go on.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ptrs[T any](values []T) (out []*T) {
	for i := range values {
		out = append(out, &values[i])
	}
	return out
}

func (s *server) vaults(t *testing.T) *armkeyvault.VaultsClient {
	t.Helper()
	groups := must[*armresources.ResourceGroupsClient](t)(armresources.NewResourceGroupsClient(s.subscription, s.credential, s.arm()))
	must[armresources.ResourceGroupsClientCreateOrUpdateResponse](t)(groups.CreateOrUpdate(t.Context(), group, armresources.ResourceGroup{Location: new(location)}, nil))
	return must[*armkeyvault.VaultsClient](t)(armkeyvault.NewVaultsClient(s.subscription, s.credential, s.arm()))
}

// newVault makes a key vault whose content the caller may use, and returns its URL.
func (s *server) newVault(t *testing.T, name string, keys []armkeyvault.KeyPermissions, secrets []armkeyvault.SecretPermissions) string {
	t.Helper()
	vaults := s.vaults(t)
	p, err := vaults.BeginCreateOrUpdate(t.Context(), group, name, armkeyvault.VaultCreateOrUpdateParameters{
		Location: new(location),
		Properties: &armkeyvault.VaultProperties{TenantID: &s.tenant, SKU: &armkeyvault.SKU{Family: new(armkeyvault.SKUFamilyA), Name: new(armkeyvault.SKUNameStandard)},
			SoftDeleteRetentionInDays: new(int32(7)),
			AccessPolicies:            []*armkeyvault.AccessPolicyEntry{{TenantID: &s.tenant, ObjectID: &s.objectID, Permissions: &armkeyvault.Permissions{Keys: ptrs(keys), Secrets: ptrs(secrets)}}}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := must[armkeyvault.VaultsClientCreateOrUpdateResponse](t)(p.PollUntilDone(t.Context(), nil))
	if *v.Properties.VaultURI != "https://"+name+"."+s.suffix+"/" {
		t.Fatalf("the key vault answers at %s", *v.Properties.VaultURI)
	}
	return *v.Properties.VaultURI
}

var (
	everyKey    = []armkeyvault.KeyPermissions{armkeyvault.KeyPermissionsAll}
	everySecret = []armkeyvault.SecretPermissions{armkeyvault.SecretPermissionsAll}
)

func (s *server) keys(t *testing.T, url string) *azkeys.Client {
	t.Helper()
	return must[*azkeys.Client](t)(azkeys.NewClient(url, s.credential, &azkeys.ClientOptions{ClientOptions: s.options}))
}

func (s *server) secrets(t *testing.T, url string) *azsecrets.Client {
	t.Helper()
	return must[*azsecrets.Client](t)(azsecrets.NewClient(url, s.credential, &azsecrets.ClientOptions{ClientOptions: s.options}))
}

// code is Azure's code of a refusal.
func code(err error) string {
	if e, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return e.ErrorCode
	}
	return ""
}

func wantRefusal(t *testing.T, err error, want string) {
	t.Helper()
	if code(err) != want {
		t.Errorf("the refusal is %v, want %s", err, want)
	}
}

func TestAzkeys(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	c := s.keys(t, s.newVault(t, "kv-keys", everyKey, nil))
	digest := sha256.Sum256([]byte("message"))
	kek := must[azkeys.CreateKeyResponse](t)(c.CreateKey(ctx, "kek", azkeys.CreateKeyParameters{Kty: new(azkeys.KeyTypeRSA), KeySize: new(int32(3072)), Tags: map[string]*string{"a": new("b")}}, nil))
	version := kek.Key.KID.Version()
	for _, alg := range []azkeys.EncryptionAlgorithm{azkeys.EncryptionAlgorithmRSA15, azkeys.EncryptionAlgorithmRSAOAEP, azkeys.EncryptionAlgorithmRSAOAEP256} {
		wrapped := must[azkeys.WrapKeyResponse](t)(c.WrapKey(ctx, "kek", version, azkeys.KeyOperationParameters{Algorithm: &alg, Value: digest[:]}, nil))
		opened := must[azkeys.UnwrapKeyResponse](t)(c.UnwrapKey(ctx, "kek", version, azkeys.KeyOperationParameters{Algorithm: &alg, Value: wrapped.Result}, nil))
		if !bytes.Equal(opened.Result, digest[:]) {
			t.Errorf("%s unwraps something else", alg)
		}
	}
	must[azkeys.CreateKeyResponse](t)(c.CreateKey(ctx, "signer", azkeys.CreateKeyParameters{Kty: new(azkeys.KeyTypeEC), Curve: new(azkeys.CurveNameP256)}, nil))
	for name, alg := range map[string]azkeys.SignatureAlgorithm{"kek": azkeys.SignatureAlgorithmPS256, "signer": azkeys.SignatureAlgorithmES256} {
		signed := must[azkeys.SignResponse](t)(c.Sign(ctx, name, "", azkeys.SignParameters{Algorithm: &alg, Value: digest[:]}, nil))
		verified := must[azkeys.VerifyResponse](t)(c.Verify(ctx, name, "", azkeys.VerifyParameters{Algorithm: &alg, Digest: digest[:], Signature: signed.Result}, nil))
		if !*verified.Value {
			t.Errorf("%s does not verify its own signature", alg)
		}
	}
	must[azkeys.CreateKeyResponse](t)(c.CreateKey(ctx, "aes", azkeys.CreateKeyParameters{Kty: new(azkeys.KeyTypeOct), KeySize: new(int32(256))}, nil))
	gcm := must[azkeys.EncryptResponse](t)(c.Encrypt(ctx, "aes", "", azkeys.KeyOperationParameters{Algorithm: new(azkeys.EncryptionAlgorithmA256GCM), Value: []byte("plain"), AdditionalAuthenticatedData: []byte("aad")}, nil))
	plain := must[azkeys.DecryptResponse](t)(c.Decrypt(ctx, "aes", "", azkeys.KeyOperationParameters{Algorithm: new(azkeys.EncryptionAlgorithmA256GCM), Value: gcm.Result,
		IV: gcm.IV, AuthenticationTag: gcm.AuthenticationTag, AdditionalAuthenticatedData: gcm.AdditionalAuthenticatedData}, nil))
	if string(plain.Result) != "plain" {
		t.Errorf("GCM decrypts to %q", plain.Result)
	}

	policy := must[azkeys.UpdateKeyRotationPolicyResponse](t)(c.UpdateKeyRotationPolicy(ctx, "kek", azkeys.KeyRotationPolicy{
		Attributes:      &azkeys.KeyRotationPolicyAttributes{ExpiryTime: new("P1Y")},
		LifetimeActions: []*azkeys.LifetimeAction{{Action: &azkeys.LifetimeActionType{Type: new(azkeys.KeyRotationPolicyActionRotate)}, Trigger: &azkeys.LifetimeActionTrigger{TimeAfterCreate: new("P90D")}}}}, nil))
	if *policy.Attributes.ExpiryTime != "P1Y" || len(policy.LifetimeActions) != 1 {
		t.Errorf("the rotation policy is %+v", policy)
	}
	rotated := must[azkeys.RotateKeyResponse](t)(c.RotateKey(ctx, "kek", nil))
	if rotated.Key.KID.Version() == version || rotated.Attributes.Expires == nil {
		t.Errorf("the rotated key is %+v", rotated.Key)
	}
	versions := 0
	for pager := c.NewListKeyPropertiesVersionsPager("kek", nil); pager.More(); {
		versions += len(must[azkeys.ListKeyPropertiesVersionsResponse](t)(pager.NextPage(ctx)).Value)
	}
	if versions != 2 {
		t.Errorf("the key has %d versions", versions)
	}
	random := must[azkeys.GetRandomBytesResponse](t)(c.GetRandomBytes(ctx, azkeys.GetRandomBytesParameters{Count: new(int32(16))}, nil))
	if len(random.Value) != 16 {
		t.Errorf("%d random bytes", len(random.Value))
	}
	_, err := c.Release(ctx, "kek", version, azkeys.ReleaseParameters{TargetAttestationToken: new("x")}, nil)
	wantRefusal(t, err, "NotSupported")

	backup := must[azkeys.BackupKeyResponse](t)(c.BackupKey(ctx, "kek", nil))
	_, err = c.RestoreKey(ctx, azkeys.RestoreKeyParameters{KeyBackup: backup.Value}, nil)
	wantRefusal(t, err, "Conflict")
	must[azkeys.DeleteKeyResponse](t)(c.DeleteKey(ctx, "kek", nil))
	must[azkeys.RecoverDeletedKeyResponse](t)(c.RecoverDeletedKey(ctx, "kek", nil))
	must[azkeys.DeleteKeyResponse](t)(c.DeleteKey(ctx, "kek", nil))
	must[azkeys.PurgeDeletedKeyResponse](t)(c.PurgeDeletedKey(ctx, "kek", nil))
	_, err = c.GetKey(ctx, "kek", "", nil)
	wantRefusal(t, err, "KeyNotFound")
	restored := must[azkeys.RestoreKeyResponse](t)(c.RestoreKey(ctx, azkeys.RestoreKeyParameters{KeyBackup: backup.Value}, nil))
	if *restored.Key.KID != *rotated.Key.KID || !bytes.Equal(restored.Key.N, rotated.Key.N) {
		t.Errorf("the key came back as %s", *restored.Key.KID)
	}
}

func TestAzsecrets(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	c := s.secrets(t, s.newVault(t, "kv-secrets", nil, everySecret))
	for n := range 30 {
		must[azsecrets.SetSecretResponse](t)(c.SetSecret(ctx, "s"+string(rune('a'+n/10))+string(rune('0'+n%10)), azsecrets.SetSecretParameters{Value: new("value")}, nil))
	}
	listed := 0
	for pager := c.NewListSecretPropertiesPager(nil); pager.More(); {
		listed += len(must[azsecrets.ListSecretPropertiesResponse](t)(pager.NextPage(ctx)).Value)
	}
	if listed != 30 {
		t.Errorf("%d secrets are listed", listed)
	}
	set := must[azsecrets.SetSecretResponse](t)(c.SetSecret(ctx, "bek", azsecrets.SetSecretParameters{Value: new("wrapped"), ContentType: new("Wrapped BEK"), Tags: map[string]*string{"MachineName": new("web1")}}, nil))
	got := must[azsecrets.GetSecretResponse](t)(c.GetSecret(ctx, "bek", set.ID.Version(), nil))
	if *got.Value != "wrapped" || *got.ContentType != "Wrapped BEK" || *got.Tags["MachineName"] != "web1" || *got.Attributes.RecoveryLevel != "CustomizedRecoverable+Purgeable" {
		t.Errorf("the secret is %+v", got.Secret)
	}
	must[azsecrets.UpdateSecretPropertiesResponse](t)(c.UpdateSecretProperties(ctx, "bek", set.ID.Version(), azsecrets.UpdateSecretPropertiesParameters{SecretAttributes: &azsecrets.SecretAttributes{Enabled: new(false)}}, nil))
	_, err := c.GetSecret(ctx, "bek", "", nil)
	wantRefusal(t, err, "Forbidden")
	must[azsecrets.UpdateSecretPropertiesResponse](t)(c.UpdateSecretProperties(ctx, "bek", set.ID.Version(), azsecrets.UpdateSecretPropertiesParameters{SecretAttributes: &azsecrets.SecretAttributes{Enabled: new(true)}}, nil))

	backup := must[azsecrets.BackupSecretResponse](t)(c.BackupSecret(ctx, "bek", nil))
	must[azsecrets.DeleteSecretResponse](t)(c.DeleteSecret(ctx, "bek", nil))
	_, err = c.SetSecret(ctx, "bek", azsecrets.SetSecretParameters{Value: new("x")}, nil)
	wantRefusal(t, err, "Conflict")
	_, err = c.RestoreSecret(ctx, azsecrets.RestoreSecretParameters{SecretBackup: backup.Value}, nil)
	wantRefusal(t, err, "Conflict")
	must[azsecrets.PurgeDeletedSecretResponse](t)(c.PurgeDeletedSecret(ctx, "bek", nil))
	must[azsecrets.RestoreSecretResponse](t)(c.RestoreSecret(ctx, azsecrets.RestoreSecretParameters{SecretBackup: backup.Value}, nil))
	if back := must[azsecrets.GetSecretResponse](t)(c.GetSecret(ctx, "bek", set.ID.Version(), nil)); *back.Value != "wrapped" {
		t.Error("the restored secret has another value")
	}
}

func TestArmkeyvault(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	url := s.newVault(t, "kv-arm", nil, nil)
	vaults := s.vaults(t)
	_, err := s.keys(t, url).GetKey(ctx, "k", "", nil)
	wantRefusal(t, err, "Forbidden")
	entry := &armkeyvault.AccessPolicyEntry{TenantID: &s.tenant, ObjectID: &s.objectID, Permissions: &armkeyvault.Permissions{Keys: ptrs(everyKey)}}
	change := armkeyvault.VaultAccessPolicyParameters{Properties: &armkeyvault.VaultAccessPolicyProperties{AccessPolicies: []*armkeyvault.AccessPolicyEntry{entry}}}
	must[armkeyvault.VaultsClientUpdateAccessPolicyResponse](t)(vaults.UpdateAccessPolicy(ctx, group, "kv-arm", armkeyvault.AccessPolicyUpdateKindAdd, change, nil))
	_, err = s.keys(t, url).GetKey(ctx, "k", "", nil)
	wantRefusal(t, err, "KeyNotFound")

	updated := must[armkeyvault.VaultsClientUpdateResponse](t)(vaults.Update(ctx, group, "kv-arm", armkeyvault.VaultPatchParameters{Tags: map[string]*string{"a": new("b")}}, nil))
	if *updated.Tags["a"] != "b" || *updated.Properties.SoftDeleteRetentionInDays != 7 {
		t.Errorf("after the update: %+v", updated.Properties)
	}
	name := must[armkeyvault.VaultsClientCheckNameAvailabilityResponse](t)(vaults.CheckNameAvailability(ctx, armkeyvault.VaultCheckNameAvailabilityParameters{Name: new("kv-arm"), Type: new("Microsoft.KeyVault/vaults")}, nil))
	if *name.NameAvailable || *name.Reason != armkeyvault.ReasonAlreadyExists {
		t.Errorf("the name is available: %+v", name)
	}
	var names []string
	for pager := vaults.NewListByResourceGroupPager(group, nil); pager.More(); {
		for _, v := range must[armkeyvault.VaultsClientListByResourceGroupResponse](t)(pager.NextPage(ctx)).Value {
			names = append(names, *v.Name)
		}
	}
	if !slices.Equal(names, []string{"kv-arm"}) {
		t.Errorf("the group holds %v", names)
	}

	must[armkeyvault.VaultsClientDeleteResponse](t)(vaults.Delete(ctx, group, "kv-arm", nil))
	deleted := must[armkeyvault.VaultsClientGetDeletedResponse](t)(vaults.GetDeleted(ctx, "kv-arm", location, nil))
	if deleted.Properties.ScheduledPurgeDate == nil {
		t.Errorf("the deleted key vault is %+v", deleted.Properties)
	}
	recovery, err := vaults.BeginCreateOrUpdate(ctx, group, "kv-arm", armkeyvault.VaultCreateOrUpdateParameters{Location: new(location),
		Properties: &armkeyvault.VaultProperties{TenantID: &s.tenant, SKU: &armkeyvault.SKU{Family: new(armkeyvault.SKUFamilyA), Name: new(armkeyvault.SKUNameStandard)}, CreateMode: new(armkeyvault.CreateModeRecover)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if back := must[armkeyvault.VaultsClientCreateOrUpdateResponse](t)(recovery.PollUntilDone(ctx, nil)); *back.Tags["a"] != "b" {
		t.Errorf("the key vault came back as %+v", back.Vault)
	}
	must[armkeyvault.VaultsClientDeleteResponse](t)(vaults.Delete(ctx, group, "kv-arm", nil))
	purge, err := vaults.BeginPurgeDeleted(ctx, "kv-arm", location, nil)
	if err != nil {
		t.Fatal(err)
	}
	must[armkeyvault.VaultsClientPurgeDeletedResponse](t)(purge.PollUntilDone(ctx, nil))
	_, err = vaults.GetDeleted(ctx, "kv-arm", location, nil)
	wantRefusal(t, err, "DeletedVaultNotFound")
}
