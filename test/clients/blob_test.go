package clients_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
)

// newStorageAccount makes a storage account and returns its URL and first key.
func (s *server) newStorageAccount(t *testing.T, name string) (endpoint, key string) {
	t.Helper()
	groups := must[*armresources.ResourceGroupsClient](t)(armresources.NewResourceGroupsClient(s.subscription, s.credential, s.arm()))
	must[armresources.ResourceGroupsClientCreateOrUpdateResponse](t)(groups.CreateOrUpdate(t.Context(), group, armresources.ResourceGroup{Location: new(location)}, nil))
	var account struct {
		Properties struct{ PrimaryEndpoints struct{ Blob string } }
	}
	path := "/subscriptions/" + s.subscription + "/resourceGroups/" + group + "/providers/Microsoft.Storage/storageAccounts/" + name
	s.call(t, "PUT", path, map[string]any{"location": location, "kind": "StorageV2", "sku": map[string]any{"name": "Standard_LRS"}}, &account)
	var keys struct{ Keys []struct{ Value string } }
	s.call(t, "POST", path+"/listKeys", nil, &keys)
	if len(keys.Keys) != 2 {
		t.Fatalf("the account has %d keys", len(keys.Keys))
	}
	return account.Properties.PrimaryEndpoints.Blob, keys.Keys[0].Value
}

// TestBlobs uploads and reads blobs as azblob does it: with a key, with a token, with signatures.
func TestBlobs(t *testing.T) {
	s := start(t)
	endpoint, key := s.newStorageAccount(t, "blobs")
	credential := must[*azblob.SharedKeyCredential](t)(azblob.NewSharedKeyCredential("blobs", key))
	options := &azblob.ClientOptions{ClientOptions: s.options}
	withKey := must[*azblob.Client](t)(azblob.NewClientWithSharedKeyCredential(endpoint, credential, options))
	withToken := must[*azblob.Client](t)(azblob.NewClient(endpoint, s.credential, options))
	ctx := t.Context()

	must[azblob.CreateContainerResponse](t)(withKey.CreateContainer(ctx, "box", &azblob.CreateContainerOptions{Metadata: map[string]*string{"colour": new("red")}}))
	large := make([]byte, 9<<20+17)
	_, _ = rand.Read(large)
	must[azblob.UploadStreamResponse](t)(withKey.UploadStream(ctx, "box", "folder/large ü", bytes.NewReader(large), &azblob.UploadStreamOptions{BlockSize: 2 << 20, Concurrency: 3,
		HTTPHeaders: &blob.HTTPHeaders{BlobContentType: new("application/x-disk")}, Metadata: map[string]*string{"Made": new("here")}}))
	must[azblob.UploadBufferResponse](t)(withToken.UploadBuffer(ctx, "box", "small", []byte("small"), nil))

	got := make([]byte, len(large))
	n, err := withToken.DownloadBuffer(ctx, "box", "folder/large ü", got, &azblob.DownloadBufferOptions{BlockSize: 1 << 20})
	if err != nil || n != int64(len(large)) || !bytes.Equal(got, large) {
		t.Errorf("downloaded %d bytes: %v", n, err)
	}
	one := withKey.ServiceClient().NewContainerClient("box").NewBlockBlobClient("folder/large ü")
	p := must[blob.GetPropertiesResponse](t)(one.GetProperties(ctx, nil))
	if *p.ContentLength != int64(len(large)) || *p.ContentType != "application/x-disk" || len(p.Metadata) != 1 {
		t.Errorf("properties %+v", p)
	}
	blocks := must[blockblob.GetBlockListResponse](t)(one.GetBlockList(ctx, blockblob.BlockListTypeAll, nil))
	if len(blocks.CommittedBlocks) != 5 || len(blocks.UncommittedBlocks) != 0 {
		t.Errorf("%d blocks are committed, %d are not", len(blocks.CommittedBlocks), len(blocks.UncommittedBlocks))
	}
	part := must[blob.DownloadStreamResponse](t)(one.DownloadStream(ctx, &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: 2<<20 - 3, Count: 6}, RangeGetContentMD5: new(true)}))
	if text, err := io.ReadAll(part.Body); err != nil || !bytes.Equal(text, large[2<<20-3:2<<20+3]) || len(part.ContentMD5) != 16 {
		t.Errorf("a range over two blocks: %v", err)
	}
	if _, err := one.Upload(ctx, readSeeker("x"), &blockblob.UploadOptions{AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: new(azcore.ETagAny)}}}); !bloberror.HasCode(err, bloberror.BlobAlreadyExists) {
		t.Errorf("a second blob of the same name: %v", err)
	}
	box := withKey.ServiceClient().NewContainerClient("box")
	var names []string
	for pager := box.NewListBlobsHierarchyPager("/", &container.ListBlobsHierarchyOptions{MaxResults: new(int32(1))}); pager.More(); {
		page := must[container.ListBlobsHierarchyResponse](t)(pager.NextPage(ctx))
		for _, p := range page.Segment.BlobPrefixes {
			names = append(names, *p.Name)
		}
		for _, b := range page.Segment.BlobItems {
			names = append(names, *b.Name)
		}
	}
	if !slices.Equal(names, []string{"folder/", "small"}) {
		t.Errorf("the list is %q", names)
	}
	copied := box.NewBlobClient("copy")
	must[blob.CopyFromURLResponse](t)(copied.CopyFromURL(ctx, must[string](t)(one.GetSASURL(sas.BlobPermissions{Read: true}, time.Now().Add(time.Hour), nil)), nil))
	if _, err := box.SetAccessPolicy(ctx, &container.SetAccessPolicyOptions{Access: new(container.PublicAccessTypeBlob)}); err == nil || !strings.Contains(err.Error(), "UnsupportedOperation") {
		t.Errorf("public access: %v", err)
	}
	must[azblob.DeleteBlobResponse](t)(withKey.DeleteBlob(ctx, "box", "copy", nil))
	s.useSignatures(t, options, box, one)
}

// useSignatures reads with signatures that azblob makes, and not with others.
func (s *server) useSignatures(t *testing.T, options *azblob.ClientOptions, box *container.Client, one *blockblob.Client) {
	t.Helper()
	ctx := t.Context()
	toRead := must[string](t)(one.GetSASURL(sas.BlobPermissions{Read: true}, time.Now().Add(time.Hour), &blob.GetSASURLOptions{StartTime: new(time.Now().Add(-time.Hour))}))
	reader := must[*blockblob.Client](t)(blockblob.NewClientWithNoCredential(toRead, &blockblob.ClientOptions{ClientOptions: s.options}))
	must[blob.GetPropertiesResponse](t)(reader.GetProperties(ctx, nil))
	if _, err := reader.Delete(ctx, nil); !bloberror.HasCode(err, bloberror.AuthorizationPermissionMismatch) {
		t.Errorf("a delete with a signature to read: %v", err)
	}
	toWrite := must[string](t)(box.GetSASURL(sas.ContainerPermissions{Create: true, List: true}, time.Now().Add(time.Hour), nil))
	writer := must[*container.Client](t)(container.NewClientWithNoCredential(toWrite, (*container.ClientOptions)(options)))
	must[blockblob.UploadResponse](t)(writer.NewBlockBlobClient("created").Upload(ctx, readSeeker("x"), nil))
	if _, err := writer.NewBlockBlobClient("created").Upload(ctx, readSeeker("y"), nil); err == nil || !strings.Contains(err.Error(), "UnauthorizedBlobOverwrite") {
		t.Errorf("an overwrite with a signature to create: %v", err)
	}
	expired := must[string](t)(one.GetSASURL(sas.BlobPermissions{Read: true}, time.Now().Add(-time.Hour), nil))
	late := must[*blockblob.Client](t)(blockblob.NewClientWithNoCredential(expired, &blockblob.ClientOptions{ClientOptions: s.options}))
	if _, err := late.DownloadStream(ctx, nil); !bloberror.HasCode(err, bloberror.AuthenticationFailed) {
		t.Errorf("a signature that has expired: %v", err)
	}
	var refused *azcore.ResponseError
	wrong := must[*azblob.SharedKeyCredential](t)(azblob.NewSharedKeyCredential("blobs", "d3Jvbmc="))
	stranger := must[*azblob.Client](t)(azblob.NewClientWithSharedKeyCredential("https://"+strings.Split(strings.TrimPrefix(box.URL(), "https://"), "/")[0]+"/", wrong, options))
	if _, err := stranger.DownloadStream(ctx, "box", "small", nil); !errors.As(err, &refused) || refused.StatusCode != 403 {
		t.Errorf("another key: %v", err)
	}
}

type body struct{ *strings.Reader }

func (body) Close() error { return nil }

func readSeeker(text string) io.ReadSeekCloser { return body{strings.NewReader(text)} }

// call sends a request to Resource Manager that no client here has a method for.
func (s *server) call(t *testing.T, method, path string, in, out any) {
	t.Helper()
	client := must[*arm.Client](t)(arm.NewClient("kluis", "v1.0.0", s.credential, s.arm()))
	r := must[*policy.Request](t)(runtime.NewRequest(t.Context(), method, s.endpoint+path+"?api-version=2022-09-01"))
	if in != nil {
		if err := runtime.MarshalAsJSON(r, in); err != nil {
			t.Fatal(err)
		}
	}
	a := must[*http.Response](t)(client.Pipeline().Do(r))
	if !runtime.HasStatusCode(a, http.StatusOK, http.StatusCreated) {
		t.Fatal(runtime.NewResponseError(a))
	}
	if err := runtime.UnmarshalAsJSON(a, out); err != nil {
		t.Fatal(err)
	}
}
