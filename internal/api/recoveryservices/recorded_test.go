package recoveryservices_test

import (
	"net/url"
	"path"
	"strings"
	"testing"

	"kluis/internal/api/openapitest"
	"kluis/internal/backup"
	"kluis/internal/job"
)

// replayed are recorded requests of a real client, sent to us as they are, after prepare has made the
// state that they were sent in. Our answer has the recorded status, leads to the same addresses, and has
// every key that the real service sent, with the same JSON type, but for the keys that are named here with
// the reason.
var replayed = map[string]struct {
	prepare func(f *fake, last string) // last is the last segment of the request's path
	not     map[string]string          // key -> why it is not in our answer
}{
	"vault-get-200":                    {},
	"vault-get-404":                    {prepare: func(f *fake, _ string) { f.vaults = nil }},
	"vault-list-subscription":          {not: map[string]string{"nextLink": "three vaults are one page", "value[].sku.tier": "not every vault here is of the SKU that has one"}},
	"vault-put-201":                    {prepare: func(f *fake, _ string) { f.vaults = nil }},
	"vault-operationstatus-succeeded":  {},
	"vault-delete-200":                 {},
	"policy-get-default":               {},
	"policy-put":                       {},
	"protecteditem-get-200":            {},
	"protecteditem-put-enable-202":     {},
	"protecteditem-put-stopretain-202": {},
	"protecteditem-delete-202":         {},
	"protecteditem-put-undelete-202":   {},
	"protecteditems-list-softdeleted":  {prepare: softDeleted},
	"job-get-Undelete-Completed":       {prepare: as("Undelete", job.Ended)},
	"vaultconfig-patch":                {},
	"protecteditems-list":              {},
	"protectableitems-list":            {},
	"containers-list":                  {},
	"refreshcontainers-202":            {},
	"refresh-result-204":               {},
	"resourceguardproxies-empty":       {},
	"storageconfig-get":                {},
	"vaultconfig-get":                  {},
	"encryptionconfig-get":             {},
	"backupstatus-notprotected":        {prepare: func(f *fake, _ string) { f.items = nil }},
	"backupstatus-protected":           {},
	"backup-post-202":                  {},
	"restore-post-RestoreDisks":        {},
	"recoverypoints-list":              {},
	"recoverypoint-get":                {prepare: renamePoint},
	"recoverypoint-get-diskexclusion": {prepare: func(f *fake, last string) {
		renamePoint(f, last)
		f.points[0].Excluded = []backup.PointDisk{{Name: "scratch", Lun: 1}}
	}},
	"protecteditem-put-diskexclusion-202": {},
	"backupoperations-succeeded-job":      {prepare: as("ConfigureBackup", job.Ended)},
	"backupoperations-inprogress":         {prepare: as("ConfigureBackup", job.Ended)},
	"job-cancel-202": {prepare: func(f *fake, _ string) {
		f.jobs = []backup.Job{renamed(jobOf("Restore", job.Running), "0004a6aa-f171-48b5-a361-0f518ac74e8e")}
	}},
	"job-get-Backup-Completed":                {prepare: as("Backup", job.Ended), not: ended},
	"job-get-Backup-InProgress":               {prepare: as("Backup", job.Running), not: notYet},
	"job-get-ConfigureBackup-Completed":       {prepare: as("ConfigureBackup", job.Ended)},
	"job-get-DisableBackup-Completed":         {prepare: as("DisableBackup", job.Ended)},
	"job-get-DeleteBackupData-Completed":      {prepare: as("DeleteBackupData", job.Ended)},
	"job-get-Restore-Completed-Recoverdisks":  {prepare: as("Restore", job.Ended), not: ended},
	"job-get-Restore-InProgress-Recoverdisks": {prepare: as("Restore", job.Running)},
	"jobs-list":        {prepare: threeJobs, not: map[string]string{"value[].properties.actionsInfo": "a job that is over cannot be cancelled"}},
	"jobs-list-filter": {prepare: threeJobs},
}

var (
	ended  = map[string]string{"properties.actionsInfo": "a job that is over cannot be cancelled, so we don't say that it can"}
	notYet = map[string]string{
		"properties.extendedInfo.tasksList[].endTime": "the real service sends the year 1 without a zone, which strict readers of times refuse"}
)

// notReplayed are the other recordings of our namespace, and why.
var notReplayed = map[string]string{
	"vault-patch-202":                                           "gives a vault a user-assigned identity, which is refused",
	"vault-operationstatus-inprogress":                          "a vault is there when its PUT is answered",
	"refresh-result-202":                                        "a refresh is over when it is asked for",
	"storageconfig-put":                                         "asks for restore in another region, which is refused",
	"restore-post-AlternateLocation":                            "creates a VM, which the service refuses for encrypted ones",
	"restore-post-OriginalLocation":                             "replaces disks, which the service refuses for encrypted ones",
	"job-get-Restore-Completed-RecoverVMtoanalternatelocation":  "no such restore",
	"job-get-Restore-Completed-Replacedisks":                    "no such restore",
	"job-get-Restore-InProgress-RecoverVMtoanalternatelocation": "no such restore",
	"job-get-Restore-InProgress-Replacedisks":                   "no such restore",
	"resourceguardproxy-get":                                    "there are no resource guards",
	"resourceguardproxy-put":                                    "there are no resource guards",
	"resourceguardproxy-unlockdelete":                           "there are no resource guards",
	"crr-aadproperties":                                         "there is no other region",
	"job-429":                                                   "an error of the gateway",
	"job-500":                                                   "an error of the gateway",
}

func as(kind string, state job.State) func(*fake, string) {
	return func(f *fake, last string) { f.jobs = []backup.Job{renamed(jobOf(kind, state), last)} }
}

func renamed(j backup.Job, id string) backup.Job {
	j.ID = id
	return j
}

func renamePoint(f *fake, last string) { f.points[0].ID = last }

func softDeleted(f *fake, _ string) {
	f.items[0].Deferred = backup.Deferral{At: noon, Until: noon.AddDate(0, 0, 14), Days: 14}
}

func threeJobs(f *fake, _ string) {
	f.jobs = []backup.Job{jobOf("Restore", job.Running), jobOf("Backup", job.Ended), jobOf("ConfigureBackup", job.Ended)}
}

func TestRecordedRequestsAreAnsweredAlike(t *testing.T) {
	recorded := openapitest.Recordings(t)
	for name, c := range replayed {
		t.Run(name, func(t *testing.T) {
			rec := recorded[name]
			u, err := url.Parse(rec.Request.URI)
			if err != nil {
				t.Fatal(err)
			}
			f := world()
			if c.prepare != nil {
				c.prepare(f, path.Base(u.Path))
			}
			body := ""
			if string(rec.Request.Body) != "null" {
				body = string(rec.Request.Body)
			}
			a := ask(t, f, rec.Request.Method, u.RequestURI(), body)
			if a.Status != rec.Response.Status {
				t.Fatalf("status %d, recorded %d: %s", a.Status, rec.Response.Status, a.Raw)
			}
			sameAddresses(t, rec, a)
			openapitest.Cover(t, c.not, rec.Response.Body, a.Body)
		})
	}
}

// sameAddresses compares where an operation is followed, but for its id and the host.
func sameAddresses(t *testing.T, rec openapitest.Recording, a answer) {
	t.Helper()
	for _, name := range []string{"azure-asyncoperation", "location"} {
		if rec.Response.Headers[name] == "" {
			continue
		}
		want, err := url.Parse(rec.Response.Headers[name])
		if err != nil {
			t.Fatal(err)
		}
		got, err := url.Parse(a.Header.Get(name))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.EqualFold(path.Dir(got.Path), path.Dir(want.Path)) || got.Scheme+"://"+got.Host != host || got.Query().Get("api-version") == "" {
			t.Errorf("%s is %q, recorded %q", name, got, want)
		}
		if strings.Contains(a.Header.Get(name), "%3B") {
			t.Errorf("%s has an encoded semicolon: %q", name, got)
		}
	}
}

// Every recording of our namespace is sent to us, or it is said why not.
func TestNoRecordingIsForgotten(t *testing.T) {
	for name, rec := range openapitest.Recordings(t) {
		if !strings.Contains(strings.ToLower(rec.Request.URI), "/providers/microsoft.recoveryservices/") {
			continue
		}
		_, sent := replayed[name]
		if _, not := notReplayed[name]; sent == not {
			t.Errorf("%s must be in one of replayed and notReplayed", name)
		}
	}
}
