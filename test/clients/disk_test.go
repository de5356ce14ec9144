package clients_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/pageblob"
)

// newDisk registers a disk of 24 MiB with data in its second and its last MiB, and returns its bytes.
func (s *server) newDisk(t *testing.T, name string) (content []byte) {
	t.Helper()
	content = make([]byte, 24<<20)
	_, _ = rand.Read(content[1<<20 : 2<<20])
	_, _ = rand.Read(content[23<<20:])
	path := filepath.Join(s.images, name)
	f := must[*os.File](t)(os.Create(path))
	defer f.Close()
	for _, off := range []int64{1 << 20, 23 << 20} {
		must[int](t)(f.WriteAt(content[off:off+1<<20], off))
	}
	groups := must[*armresources.ResourceGroupsClient](t)(armresources.NewResourceGroupsClient(s.subscription, s.credential, s.arm()))
	must[armresources.ResourceGroupsClientCreateOrUpdateResponse](t)(groups.CreateOrUpdate(t.Context(), group, armresources.ResourceGroup{Location: new(location)}, nil))
	poll[armcompute.DisksClientCreateOrUpdateResponse](t)(s.disks(t).BeginCreateOrUpdate(t.Context(), group, name, armcompute.Disk{Location: new(location),
		Properties: &armcompute.DiskProperties{OSType: new(armcompute.OperatingSystemTypesLinux),
			CreationData: &armcompute.CreationData{CreateOption: new(armcompute.DiskCreateOptionImport), SourceURI: new("file://" + path)}}}, nil))
	return content
}

func (s *server) disks(t *testing.T) *armcompute.DisksClient {
	t.Helper()
	return must[*armcompute.DisksClient](t)(armcompute.NewDisksClient(s.subscription, s.credential, s.arm()))
}

// readVHD reads what a URL offers as azblob does it, whole and in ranges at once, and returns the disk in it.
func (s *server) readVHD(t *testing.T, sas string) []byte {
	t.Helper()
	ctx := t.Context()
	client := must[*pageblob.Client](t)(pageblob.NewClientWithNoCredential(sas, &pageblob.ClientOptions{ClientOptions: s.options}))
	p := must[blob.GetPropertiesResponse](t)(client.GetProperties(ctx, nil))
	if *p.BlobType != blob.BlobTypePageBlob || *p.ContentLength%512 != 0 {
		t.Errorf("properties %+v", p)
	}
	file := must[*os.File](t)(os.Create(filepath.Join(t.TempDir(), "disk.vhd")))
	defer file.Close()
	if n, err := client.DownloadFile(ctx, file, &blob.DownloadFileOptions{BlockSize: 1 << 20, Concurrency: 4}); err != nil || n != *p.ContentLength {
		t.Fatalf("downloaded %d bytes of %d: %v", n, *p.ContentLength, err)
	}
	whole := must[[]byte](t)(os.ReadFile(file.Name()))

	// Who reads the pages alone has everything.
	sparse := make([]byte, len(whole))
	for pager := client.NewGetPageRangesPager(&pageblob.GetPageRangesOptions{MaxResults: new(int32(1))}); pager.More(); {
		page := must[pageblob.GetPageRangesResponse](t)(pager.NextPage(ctx))
		for _, r := range page.PageRange {
			part := must[blob.DownloadStreamResponse](t)(client.DownloadStream(ctx, &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: *r.Start, Count: *r.End - *r.Start + 1}}))
			copy(sparse[*r.Start:], must[[]byte](t)(io.ReadAll(part.Body)))
		}
	}
	if !bytes.Equal(sparse, whole) {
		t.Error("the pages are not the disk")
	}
	return whole[:len(whole)-512]
}

// TestDiskAccess reads a disk by the URL that Azure's compute client gets for it.
func TestDiskAccess(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	content := s.newDisk(t, "data")
	granted := poll[armcompute.DisksClientGrantAccessResponse](t)(s.disks(t).BeginGrantAccess(ctx, group, "data",
		armcompute.GrantAccessData{Access: new(armcompute.AccessLevelRead), DurationInSeconds: new(int32(600))}, nil))
	if got := s.readVHD(t, *granted.AccessSAS); !bytes.Equal(got, content) {
		t.Error("what was read is not the disk")
	}
	disk := must[armcompute.DisksClientGetResponse](t)(s.disks(t).Get(ctx, group, "data", nil))
	if *disk.Properties.DiskState != armcompute.DiskStateActiveSAS {
		t.Errorf("the disk is %s", *disk.Properties.DiskState)
	}
	poll[armcompute.DisksClientRevokeAccessResponse](t)(s.disks(t).BeginRevokeAccess(ctx, group, "data", nil))
	client := must[*blob.Client](t)(blob.NewClientWithNoCredential(*granted.AccessSAS, &blob.ClientOptions{ClientOptions: s.options}))
	if _, err := client.GetProperties(ctx, nil); !bloberror.HasCode(err, bloberror.AuthenticationFailed) {
		t.Errorf("after the end: %v", err)
	}
	poll[armcompute.DisksClientDeleteResponse](t)(s.disks(t).BeginDelete(ctx, group, "data", nil))
}

// TestSnapshots keeps a disk, reads the snapshot, makes a disk of it, and a VM of the disk, as armcompute does it.
func TestSnapshots(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	content := s.newDisk(t, "data")
	snapshots := must[*armcompute.SnapshotsClient](t)(armcompute.NewSnapshotsClient(s.subscription, s.credential, s.arm()))
	disk := must[armcompute.DisksClientGetResponse](t)(s.disks(t).Get(ctx, group, "data", nil))
	kept := poll[armcompute.SnapshotsClientCreateOrUpdateResponse](t)(snapshots.BeginCreateOrUpdate(ctx, group, "kept", armcompute.Snapshot{Location: new(location),
		Properties: &armcompute.SnapshotProperties{CreationData: &armcompute.CreationData{CreateOption: new(armcompute.DiskCreateOptionCopy), SourceResourceID: disk.ID}}}, nil))
	if *kept.Properties.ProvisioningState != "Succeeded" || *kept.Properties.DiskSizeBytes != int64(len(content)) {
		t.Errorf("the snapshot is %+v", kept.Properties)
	}
	if err := os.WriteFile(filepath.Join(s.images, "data"), make([]byte, len(content)), 0o600); err != nil {
		t.Fatal(err)
	}
	granted := poll[armcompute.SnapshotsClientGrantAccessResponse](t)(snapshots.BeginGrantAccess(ctx, group, "kept",
		armcompute.GrantAccessData{Access: new(armcompute.AccessLevelRead), DurationInSeconds: new(int32(600))}, nil))
	if got := s.readVHD(t, *granted.AccessSAS); !bytes.Equal(got, content) {
		t.Error("the snapshot is not the disk of its moment")
	}
	poll[armcompute.SnapshotsClientRevokeAccessResponse](t)(snapshots.BeginRevokeAccess(ctx, group, "kept", nil))

	again := poll[armcompute.DisksClientCreateOrUpdateResponse](t)(s.disks(t).BeginCreateOrUpdate(ctx, group, "again", armcompute.Disk{Location: new(location),
		Properties: &armcompute.DiskProperties{CreationData: &armcompute.CreationData{CreateOption: new(armcompute.DiskCreateOptionCopy), SourceResourceID: kept.ID}}}, nil))
	if *again.Properties.OSType != armcompute.OperatingSystemTypesLinux {
		t.Errorf("the disk is %+v", again.Properties)
	}
	machines := must[*armcompute.VirtualMachinesClient](t)(armcompute.NewVirtualMachinesClient(s.subscription, s.credential, s.arm()))
	poll[armcompute.VirtualMachinesClientCreateOrUpdateResponse](t)(machines.BeginCreateOrUpdate(ctx, group, "vm", armcompute.VirtualMachine{Location: new(location), Properties: &armcompute.VirtualMachineProperties{
		StorageProfile: &armcompute.StorageProfile{OSDisk: &armcompute.OSDisk{OSType: new(armcompute.OperatingSystemTypesLinux),
			CreateOption: new(armcompute.DiskCreateOptionTypesAttach), ManagedDisk: &armcompute.ManagedDiskParameters{ID: again.ID}}}}}, nil))
	poll[armcompute.SnapshotsClientDeleteResponse](t)(snapshots.BeginDelete(ctx, group, "kept", nil))
	for pager := snapshots.NewListByResourceGroupPager(group, nil); pager.More(); {
		if page := must[armcompute.SnapshotsClientListByResourceGroupResponse](t)(pager.NextPage(ctx)); len(page.Value) != 0 {
			t.Errorf("there are %d snapshots left", len(page.Value))
		}
	}
}

// TestDisksByCommand does the same with the commands of kluis.
func TestDisksByCommand(t *testing.T) {
	s := start(t)
	content := s.newDisk(t, "data")
	in := []string{"-g", group}
	run := func(args ...string) string { return s.run(t, append(args, in...)...) }
	run("snapshot", "create", "kept", "--disk", "data", "-l", location)
	if got := run("snapshot", "list"); !strings.Contains(got, "kept") || !strings.Contains(got, "Unattached") {
		t.Errorf("the list is\n%s", got)
	}
	run("disk", "create", "again", "--snapshot", "kept", "-l", location)
	run("vm", "create", "vm", "--attach-os-disk", "again", "-l", location)
	folder := t.TempDir()
	for thing, name := range map[string]string{"snapshot": "kept", "disk": "again"} {
		file := filepath.Join(folder, name)
		run(thing, "download", name, file)
		if got := must[[]byte](t)(os.ReadFile(file)); !bytes.Equal(got, content) {
			t.Errorf("the %s is another", thing)
		}
		run(thing, "access", "grant", name, "--for", "10m")
		if got := run(thing, "show", name); !strings.Contains(got, "ActiveSAS") {
			t.Errorf("%s: %s", thing, got)
		}
		run(thing, "access", "revoke", name)
	}
	run("disk", "download", "again", filepath.Join(folder, "vhd"), "--format", "vhd")
	if got := must[[]byte](t)(os.ReadFile(filepath.Join(folder, "vhd"))); len(got) != len(content)+512 {
		t.Errorf("the vhd has %d bytes", len(got))
	}
	run("snapshot", "delete", "kept")
	run("vm", "delete", "vm")
	run("disk", "delete", "again")
}
