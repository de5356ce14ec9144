package clients_test

import (
	"io"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/lease"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"
)

// TestSharing lets others at blobs without a key of the account: with a user delegation key, with a stored access
// policy, and keeps them away with a lease, as azblob does it.
func TestSharing(t *testing.T) {
	s := start(t)
	endpoint, key := s.newStorageAccount(t, "sharing")
	ctx := t.Context()
	withToken := must[*azblob.Client](t)(azblob.NewClient(endpoint, s.credential, &azblob.ClientOptions{ClientOptions: s.options}))
	must[azblob.CreateContainerResponse](t)(withToken.CreateContainer(ctx, "box", nil))
	must[azblob.UploadBufferResponse](t)(withToken.UploadBuffer(ctx, "box", "b", []byte("content"), nil))
	box := withToken.ServiceClient().NewContainerClient("box")
	one := box.NewBlockBlobClient("b")

	expiry := time.Now().Add(time.Hour).UTC()
	credential := must[*service.UserDelegationCredential](t)(withToken.ServiceClient().GetUserDelegationCredential(ctx,
		service.KeyInfo{Start: new(time.Now().UTC().Format(sas.TimeFormat)), Expiry: new(expiry.Format(sas.TimeFormat))}, nil))
	delegated := must[sas.QueryParameters](t)(sas.BlobSignatureValues{Protocol: sas.ProtocolHTTPS, ExpiryTime: expiry, Permissions: (&sas.BlobPermissions{Read: true}).String(),
		ContainerName: "box", BlobName: "b"}.SignWithUserDelegation(credential))
	reader := must[*blockblob.Client](t)(blockblob.NewClientWithNoCredential(one.URL()+"?"+delegated.Encode(), &blockblob.ClientOptions{ClientOptions: s.options}))
	part := must[blob.DownloadStreamResponse](t)(reader.DownloadStream(ctx, nil))
	if text, err := io.ReadAll(part.Body); err != nil || string(text) != "content" {
		t.Errorf("read with a user delegation SAS: %q, %v", text, err)
	}
	if _, err := reader.Delete(ctx, nil); !bloberror.HasCode(err, bloberror.AuthorizationPermissionMismatch) {
		t.Errorf("a delete with a signature to read: %v", err)
	}

	s.usePolicies(t, box, one, must[*azblob.SharedKeyCredential](t)(azblob.NewSharedKeyCredential("sharing", key)))
	useLeases(t, box, one)

	copied := box.NewBlockBlobClient("copy")
	must[blockblob.StageBlockFromURLResponse](t)(copied.StageBlockFromURL(ctx, "AAAA", reader.URL(), &blockblob.StageBlockFromURLOptions{Range: blob.HTTPRange{Offset: 3, Count: 4}}))
	must[blockblob.CommitBlockListResponse](t)(copied.CommitBlockList(ctx, []string{"AAAA"}, nil))
	must[blockblob.UploadBlobFromURLResponse](t)(box.NewBlockBlobClient("whole").UploadBlobFromURL(ctx, reader.URL(), nil))
	for name, want := range map[string]string{"copy": "tent", "whole": "content"} {
		a := must[blob.DownloadStreamResponse](t)(box.NewBlockBlobClient(name).DownloadStream(ctx, nil))
		if text, err := io.ReadAll(a.Body); err != nil || string(text) != want {
			t.Errorf("%s is %q, %v", name, text, err)
		}
	}
}

// usePolicies reads with a signature that leaves to a stored access policy what it is good for, until that is gone.
func (s *server) usePolicies(t *testing.T, box *container.Client, one *blockblob.Client, key *azblob.SharedKeyCredential) {
	t.Helper()
	ctx := t.Context()
	id := &container.SignedIdentifier{ID: new("readers"), AccessPolicy: &container.AccessPolicy{Expiry: new(time.Now().Add(time.Hour)), Permission: new("r")}}
	must[container.SetAccessPolicyResponse](t)(box.SetAccessPolicy(ctx, &container.SetAccessPolicyOptions{ContainerACL: []*container.SignedIdentifier{id}}))
	if set := must[container.GetAccessPolicyResponse](t)(box.GetAccessPolicy(ctx, nil)); len(set.SignedIdentifiers) != 1 || *set.SignedIdentifiers[0].ID != "readers" || *set.SignedIdentifiers[0].AccessPolicy.Permission != "r" {
		t.Errorf("policies %+v", set.SignedIdentifiers)
	}
	signed := must[sas.QueryParameters](t)(sas.BlobSignatureValues{ContainerName: "box", BlobName: "b", Identifier: "readers"}.SignWithSharedKey(key))
	reader := must[*blockblob.Client](t)(blockblob.NewClientWithNoCredential(one.URL()+"?"+signed.Encode(), &blockblob.ClientOptions{ClientOptions: s.options}))
	must[blob.GetPropertiesResponse](t)(reader.GetProperties(ctx, nil))
	must[container.SetAccessPolicyResponse](t)(box.SetAccessPolicy(ctx, nil))
	if _, err := reader.GetProperties(ctx, nil); !bloberror.HasCode(err, bloberror.AuthenticationFailed) {
		t.Errorf("without its policy: %v", err)
	}
}

func useLeases(t *testing.T, box *container.Client, one *blockblob.Client) {
	t.Helper()
	ctx := t.Context()
	client := must[*lease.BlobClient](t)(lease.NewBlobClient(one, nil))
	held := must[lease.BlobAcquireResponse](t)(client.AcquireLease(ctx, 60, nil))
	if _, err := one.Upload(ctx, readSeeker("other"), nil); !bloberror.HasCode(err, bloberror.LeaseIDMissing) {
		t.Errorf("an upload without the lease: %v", err)
	}
	mine := &blob.AccessConditions{LeaseAccessConditions: &blob.LeaseAccessConditions{LeaseID: held.LeaseID}}
	must[blob.SetMetadataResponse](t)(one.SetMetadata(ctx, nil, &blob.SetMetadataOptions{AccessConditions: mine}))
	must[lease.BlobRenewResponse](t)(client.RenewLease(ctx, nil))
	must[lease.BlobBreakResponse](t)(client.BreakLease(ctx, &lease.BlobBreakOptions{BreakPeriod: new(int32(0))}))
	must[blob.SetMetadataResponse](t)(one.SetMetadata(ctx, nil, nil))

	whole := must[*lease.ContainerClient](t)(lease.NewContainerClient(box, nil))
	must[lease.ContainerAcquireResponse](t)(whole.AcquireLease(ctx, -1, nil))
	if _, err := box.Delete(ctx, nil); !bloberror.HasCode(err, bloberror.LeaseIDMissing) {
		t.Errorf("a delete without the lease: %v", err)
	}
	must[lease.ContainerReleaseResponse](t)(whole.ReleaseLease(ctx, nil))
}
