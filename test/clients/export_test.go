package clients_test

import (
	"encoding/json"
	"io"
	"net/url"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/hashicorp/go-azure-sdk/resource-manager/recoveryservicesbackup/2025-02-01/jobs"
)

// exportJobs has the list of backups written into a blob, as Terraform's client asks for it, and reads it with azblob.
func (b *backupStory) exportJobs() {
	t, ctx := b.t, b.ctx()
	c := jobs.NewJobsClientWithBaseURI(b.endpoint)
	b.autorest(&c.Client)
	filter := "operation eq 'Backup'"
	started := must[jobs.ExportOperationResponse](t)(c.Export(ctx, jobs.NewVaultID(b.subscription, group, "nightly"), jobs.ExportOperationOptions{Filter: &filter}))
	location := must[*url.URL](t)(url.Parse(started.HttpResponse.Header.Get("Location")))
	var result struct {
		Operation struct{ BlobURL, BlobSASKey string }
	}
	b.call(t, "GET", location.Path, nil, &result)
	reader := must[*blob.Client](t)(blob.NewClientWithNoCredential(result.Operation.BlobURL+result.Operation.BlobSASKey, &blob.ClientOptions{ClientOptions: b.options}))
	a := must[blob.DownloadStreamResponse](t)(reader.DownloadStream(ctx, nil))
	var list []struct {
		Properties struct{ Operation, Status string }
	}
	if err := json.Unmarshal(must[[]byte](t)(io.ReadAll(a.Body)), &list); err != nil || len(list) != 1 || list[0].Properties.Operation != "Backup" || list[0].Properties.Status != "Completed" {
		t.Errorf("exported are %+v, %v", list, err)
	}
}
