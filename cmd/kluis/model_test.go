package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kluis/internal/database/databasetest"
)

// Sequences of requests, sensible and not, are sent to the whole server, and to a model of it that fits this file.
// After each of them the two agree: on whether it was taken, and on all that is there then. So a protected item has a
// policy of its vault, a vault that holds items stays and so does its group, ids are the same in any case, and every
// list tells what the GETs do. Nothing is backed up here; an item that is deleted goes to soft delete at once.
func TestServerAgreesWithItsModel(t *testing.T) {
	few(t, "rapid.checks", "5")
	few(t, "rapid.steps", "50")
	databasetest.EachURL(t, func(t *testing.T, database string) {
		s := newInside(t, database)
		world := 0
		rapid.Check(t, func(rt *rapid.T) {
			world++
			w := &modelled{T: rt, s: s, prefix: fmt.Sprintf("w%d", world), groups: map[string]bool{}, vaults: map[string]*vaultModel{}, machines: map[string]bool{}}
			w.begin(rt)
			rt.Repeat(map[string]func(*rapid.T){
				"": w.compare, "put group": w.putGroup, "delete group": w.deleteGroup, "put vault": w.putVault, "delete vault": w.deleteVault,
				"put policy": w.putPolicy, "delete policy": w.deletePolicy, "put machine": w.putMachine, "delete machine": w.deleteMachine,
				"protect": w.protect, "protect too": w.protect, "protect as well": w.protect, "stop": w.stop, "delete item": w.deleteItem, "undelete": w.undelete,
			})
		})
	})
}

// few sets a flag of rapid for this test.
func few(t *testing.T, name, value string) {
	t.Helper()
	old := flag.Lookup(name).Value.String()
	if err := flag.Set(name, value); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = flag.Set(name, old) })
}

// inside is a server without its listener.
type inside struct {
	door         http.Handler
	base, images string
	subscription string
	token        string
}

func newInside(t *testing.T, database string) *inside {
	t.Helper()
	s := &inside{images: t.TempDir()}
	c := defaults()
	c.Data, c.Database, c.Export, c.AllowImages, c.Requests = t.TempDir(), database, exportNothing, []string{s.images}, 0
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	p, err := build(t.Context(), c, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8443}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	s.door, s.base, s.subscription = p.door, p.base, "/subscriptions/"+p.install.SubscriptionID
	a, err := readAdmin(filepath.Join(c.Data, adminFile))
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {a.ClientID}, "client_secret": {a.ClientSecret}, "scope": {s.base + "/.default"}}
	r := httptest.NewRequest("POST", s.base+"/"+a.TenantID+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	rec := httptest.NewRecorder()
	s.door.ServeHTTP(rec, r)
	var answer map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || rec.Code != http.StatusOK {
		t.Fatalf("no token: %d %s", rec.Code, rec.Body)
	}
	s.token, _ = answer["access_token"].(string)
	return s
}

// modelled is a world of a few groups, vaults and machines, as it should be. Keys are names in lower case: a vault and a
// machine are "group/name".
type modelled struct {
	*rapid.T
	s        *inside
	prefix   string
	groups   map[string]bool
	vaults   map[string]*vaultModel
	machines map[string]bool
}

type vaultModel struct {
	policies map[string]bool
	items    map[string]*itemModel // by machine
}

type itemModel struct {
	policy  string // "" when protection is stopped
	deleted bool   // it can be undeleted
	job     bool   // the job of its deletion waits: nobody works on jobs here
}

// begin makes a world in which something can happen: two groups, each with a vault and a machine.
func (w *modelled) begin(t *rapid.T) {
	for _, g := range []string{w.prefix + "a", w.prefix + "b"} {
		w.want(true, "PUT", w.groupPath(t, g), somewhere)
		w.groups[g] = true
		w.newVault(t, g+"/vault")
		w.newMachine(t, g+"/vm-a")
	}
}

// A name is written as one likes.
func (w *modelled) spell(t *rapid.T, name string) string {
	if rapid.Bool().Draw(t, "upper case") {
		return strings.ToUpper(name)
	}
	return name
}

var two = rapid.SampledFrom([]string{"a", "b"})

func (w *modelled) group(t *rapid.T) string { return w.prefix + two.Draw(t, "group") }
func (w *modelled) vault(t *rapid.T) string { return w.group(t) + "/vault" }
func (w *modelled) machine(t *rapid.T) string {
	return w.group(t) + "/vm-" + two.Draw(t, "machine")
}

// anItem is a vault and a machine: more often than not of an item that is there.
func (w *modelled) anItem(t *rapid.T) (vault, machine string) {
	var there [][2]string
	for _, v := range slices.Sorted(maps.Keys(w.vaults)) {
		for _, m := range slices.Sorted(maps.Keys(w.vaults[v].items)) {
			there = append(there, [2]string{v, m})
		}
	}
	if len(there) == 0 || two.Draw(t, "any") == "b" {
		return w.vault(t), w.machine(t)
	}
	one := rapid.SampledFrom(there).Draw(t, "item")
	return one[0], one[1]
}

func (w *modelled) policy(t *rapid.T) string {
	return rapid.SampledFrom([]string{"defaultpolicy", "gold"}).Draw(t, "policy")
}

func (w *modelled) groupPath(t *rapid.T, group string) string {
	return w.s.subscription + rapid.SampledFrom([]string{"/resourceGroups/", "/resourcegroups/"}).Draw(t, "word") + w.spell(t, group)
}

// path is where a resource of a group is: typ is its namespace and type, key "group/name".
func (w *modelled) path(t *rapid.T, typ, key string) string {
	group, name, _ := strings.Cut(key, "/")
	return w.groupPath(t, group) + "/providers/" + w.spell(t, typ) + "/" + w.spell(t, name)
}

const (
	vaultTypeName   = "Microsoft.RecoveryServices/vaults"
	machineTypeName = "Microsoft.Compute/virtualMachines"
	diskTypeName    = "Microsoft.Compute/disks"
)

func (w *modelled) itemPath(t *rapid.T, vault, machine string) string {
	name := "iaasvmcontainerv2;" + strings.ReplaceAll(machine, "/", ";")
	return w.path(t, vaultTypeName, vault) + "/backupFabrics/Azure/protectionContainers/IaasVMContainer;" + name + "/protectedItems/VM;" + name
}

// send sends a request, and fails the test if the answer is no answer.
func (w *modelled) send(method, path, body string) (status int, answer map[string]any) {
	w.Helper()
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	r := httptest.NewRequest(method, w.s.base+path+separator+"api-version=2023-02-01", strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+w.s.token)
	rec := httptest.NewRecorder()
	w.s.door.ServeHTTP(rec, r)
	if rec.Body.Len() > 0 {
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
			w.Fatalf("%s %s answers what is not JSON: %s", method, path, rec.Body)
		}
	}
	if rec.Code >= http.StatusInternalServerError {
		w.Fatalf("%s %s = %d %s", method, path, rec.Code, rec.Body)
	}
	return rec.Code, answer
}

// want sends a request that is taken or refused, and says which of the two should happen.
func (w *modelled) want(taken bool, method, path, body string) {
	w.Helper()
	status, answer := w.send(method, path, body)
	if (status < 400) != taken {
		w.Fatalf("%s %s %s = %d %v; should it be taken: %v", method, path, body, status, answer, taken)
	}
	if failure, _ := answer["error"].(map[string]any); !taken && (failure["code"] == nil || failure["message"] == nil || failure["details"] == nil) {
		w.Fatalf("%s %s is refused without code, message and what to do: %v", method, path, answer)
	}
}

const somewhere = `{"location":"westeurope"}`

func (w *modelled) putGroup(t *rapid.T) {
	g := w.group(t)
	w.want(true, "PUT", w.groupPath(t, g), somewhere)
	w.groups[g] = true
}

func (w *modelled) deleteGroup(t *rapid.T) {
	g := w.group(t)
	taken := w.groups[g]
	if rapid.IntRange(0, 3).Draw(t, "rarely") > 0 {
		return
	}
	for name, v := range w.vaults {
		taken = taken && (!inGroup(name, g) || len(v.items) == 0)
	}
	w.want(taken, "DELETE", w.groupPath(t, g), "")
	if taken {
		delete(w.groups, g)
		maps.DeleteFunc(w.vaults, func(name string, _ *vaultModel) bool { return inGroup(name, g) })
		maps.DeleteFunc(w.machines, func(name string, _ bool) bool { return inGroup(name, g) })
	}
}

func inGroup(key, group string) bool { return strings.HasPrefix(key, group+"/") }

func (w *modelled) groupOf(key string) bool {
	group, _, _ := strings.Cut(key, "/")
	return w.groups[group]
}

func (w *modelled) putVault(t *rapid.T) { w.newVault(t, w.vault(t)) }

func (w *modelled) newVault(t *rapid.T, v string) {
	w.want(w.groupOf(v), "PUT", w.path(t, vaultTypeName, v), `{"location":"westeurope","sku":{"name":"Standard"},"properties":{}}`)
	if w.groupOf(v) && w.vaults[v] == nil {
		w.vaults[v] = &vaultModel{policies: map[string]bool{"defaultpolicy": true, "enhancedpolicy": true}, items: map[string]*itemModel{}}
	}
}

func (w *modelled) deleteVault(t *rapid.T) {
	v := w.vault(t)
	taken := w.vaults[v] == nil || len(w.vaults[v].items) == 0
	w.want(taken, "DELETE", w.path(t, vaultTypeName, v), "")
	if taken {
		delete(w.vaults, v)
	}
}

const goldPolicy = `{"properties":{"backupManagementType":"AzureIaasVM","timeZone":"UTC","schedulePolicy":{"schedulePolicyType":"SimpleSchedulePolicy",
	"scheduleRunFrequency":"Daily","scheduleRunTimes":["2026-01-01T22:00:00Z"]},"retentionPolicy":{"retentionPolicyType":"LongTermRetentionPolicy",
	"dailySchedule":{"retentionTimes":["2026-01-01T22:00:00Z"],"retentionDuration":{"count":30,"durationType":"Days"}}}}}`

func (w *modelled) putPolicy(t *rapid.T) {
	v, p := w.vault(t), w.policy(t)
	w.want(w.vaults[v] != nil, "PUT", w.path(t, vaultTypeName, v)+"/backupPolicies/"+w.spell(t, p), goldPolicy)
	if w.vaults[v] != nil {
		w.vaults[v].policies[p] = true
	}
}

func (w *modelled) deletePolicy(t *rapid.T) {
	v, p := w.vault(t), w.policy(t)
	if w.vaults[v] == nil {
		return // whether there is no policy or no vault: nothing is deleted
	}
	used := false
	for _, item := range w.vaults[v].items {
		used = used || item.policy == p
	}
	w.want(!used, "DELETE", w.path(t, vaultTypeName, v)+"/backupPolicies/"+w.spell(t, p), "")
	if !used {
		delete(w.vaults[v].policies, p)
	}
}

func (w *modelled) putMachine(t *rapid.T) { w.newMachine(t, w.machine(t)) }

// newMachine makes a machine that is not encrypted, with a disk of nothing.
func (w *modelled) newMachine(t *rapid.T, m string) {
	image := filepath.Join(w.s.images, strings.ReplaceAll(m, "/", "-")+".raw")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		w.Fatal(err)
	}
	disk := w.path(t, diskTypeName, m)
	w.want(w.groupOf(m), "PUT", disk, `{"location":"westeurope","properties":{"osType":"Linux","creationData":{"createOption":"Import","sourceUri":"file://`+image+`"}}}`)
	w.want(w.groupOf(m), "PUT", w.path(t, machineTypeName, m), `{"location":"westeurope","properties":{"hardwareProfile":{"vmSize":"Standard_B1s"},
		"storageProfile":{"osDisk":{"osType":"Linux","name":"disk","createOption":"Attach","managedDisk":{"id":"`+disk+`"}}}}}`)
	if w.groupOf(m) {
		w.machines[m] = true
	}
}

func (w *modelled) deleteMachine(t *rapid.T) {
	m := w.machine(t)
	w.want(true, "DELETE", w.path(t, machineTypeName, m), "")
	delete(w.machines, m)
}

// protect takes any vault, any machine and a policy that may be another vault's.
func (w *modelled) protect(t *rapid.T) {
	v, m, p := w.vault(t), w.machine(t), w.policy(t)
	if there := slices.Sorted(maps.Keys(w.machines)); len(there) > 0 && two.Draw(t, "a machine that is there") == "a" {
		m = rapid.SampledFrom(there).Draw(t, "machine")
	}
	of := rapid.SampledFrom([]string{v, v, v, w.prefix + "a/vault", w.prefix + "b/vault"}).Draw(t, "vault of the policy")
	vault := w.vaults[v]
	taken := vault != nil && w.machines[m] && of == v && vault.policies[p]
	for name, other := range w.vaults {
		item := other.items[m]
		taken = taken && (item == nil || name == v && !item.deleted)
	}
	body := fmt.Sprintf(`{"properties":{"protectedItemType":"Microsoft.Compute/virtualMachines","sourceResourceId":%q,"policyId":%q}}`,
		w.path(t, machineTypeName, m), w.path(t, vaultTypeName, of)+"/backupPolicies/"+w.spell(t, p))
	w.want(taken, "PUT", w.itemPath(t, v, m), body)
	if taken {
		if vault.items[m] == nil {
			vault.items[m] = &itemModel{}
		}
		vault.items[m].policy = p
	}
}

// item is the item of a machine in a vault, if there is one.
func (w *modelled) item(vault, machine string) *itemModel {
	if w.vaults[vault] == nil {
		return nil
	}
	return w.vaults[vault].items[machine]
}

func (w *modelled) stop(t *rapid.T) {
	v, m := w.anItem(t)
	item := w.item(v, m)
	taken := item != nil && !item.deleted
	w.want(taken, "PUT", w.itemPath(t, v, m), fmt.Sprintf(`{"properties":{"protectedItemType":"Microsoft.Compute/virtualMachines","sourceResourceId":%q,
		"policyId":"","protectionState":"ProtectionStopped"}}`, w.path(t, machineTypeName, m)))
	if taken {
		item.policy = ""
	}
}

func (w *modelled) deleteItem(t *rapid.T) {
	v, m := w.anItem(t)
	item := w.item(v, m)
	taken := item != nil && !item.deleted && !item.job
	w.want(taken, "DELETE", w.itemPath(t, v, m), "")
	if taken {
		*item = itemModel{deleted: true, job: true}
	}
}

func (w *modelled) undelete(t *rapid.T) {
	v, m := w.anItem(t)
	item := w.item(v, m)
	taken := item != nil && item.deleted
	w.want(taken, "PUT", w.itemPath(t, v, m), fmt.Sprintf(`{"properties":{"protectedItemType":"Microsoft.Compute/virtualMachines","sourceResourceId":%q,
		"protectionState":"ProtectionStopped","isRehydrate":true}}`, w.path(t, machineTypeName, m)))
	if taken {
		item.deleted = false
	}
}

// compare reads all that is there, by lists and one by one.
func (w *modelled) compare(t *rapid.T) {
	for _, g := range []string{w.prefix + "a", w.prefix + "b"} {
		if status, _ := w.send("HEAD", w.groupPath(t, g), ""); (status == http.StatusNoContent) != w.groups[g] {
			w.Fatalf("group %s: %d, should it be there: %v", g, status, w.groups[g])
		}
		if !w.groups[g] {
			continue
		}
		w.sameNames(w.groupPath(t, g)+"/providers/"+vaultTypeName, g, slices.Collect(maps.Keys(w.vaults)))
		w.sameNames(w.groupPath(t, g)+"/providers/"+machineTypeName, g, slices.Collect(maps.Keys(w.machines)))
		w.sameNames(w.groupPath(t, g)+"/resources?"+url.Values{"$filter": {"resourceType eq '" + vaultTypeName + "'"}}.Encode(), g, slices.Collect(maps.Keys(w.vaults)))
	}
	for name, v := range w.vaults {
		w.compareVault(t, name, v)
	}
}

// sameNames reads a list, the GET of each of its entries, and compares their names with the keys of a group.
func (w *modelled) sameNames(list, group string, keys []string) {
	w.Helper()
	var want []string
	for _, key := range keys {
		if inGroup(key, group) {
			want = append(want, key[len(group)+1:])
		}
	}
	w.same(list, w.names(list), want)
}

func (w *modelled) same(what string, got, want []string) {
	w.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.Fatalf("%s are %v, should be %v", what, got, want)
	}
}

func (w *modelled) names(list string) (names []string) {
	w.Helper()
	status, answer := w.send("GET", list, "")
	all, ok := answer["value"].([]any)
	if status != http.StatusOK || !ok {
		w.Fatalf("GET %s = %d %v", list, status, answer)
	}
	for _, one := range all {
		entry := one.(map[string]any)
		id, name := entry["id"].(string), entry["name"].(string)
		status, answer := w.send("GET", id, "")
		if status != http.StatusOK || answer["id"] != id || answer["name"] != name {
			w.Fatalf("GET %s = %d %v, listed as %v", id, status, answer, entry)
		}
		names = append(names, strings.ToLower(name))
	}
	return names
}

func (w *modelled) compareVault(t *rapid.T, name string, v *vaultModel) {
	at := w.path(t, vaultTypeName, name)
	w.same(at+"/backupPolicies", w.names(at+"/backupPolicies"), slices.Collect(maps.Keys(v.policies)))
	var want []string
	for m, item := range v.items {
		want = append(want, "vm;iaasvmcontainerv2;"+strings.ReplaceAll(m, "/", ";"))
		w.compareItem(t, name, m, item)
	}
	w.same(at+"/backupProtectedItems", w.names(at+"/backupProtectedItems"), want)
}

func (w *modelled) compareItem(t *rapid.T, vault, machine string, item *itemModel) {
	status, answer := w.send("GET", w.itemPath(t, vault, machine), "")
	properties, _ := answer["properties"].(map[string]any)
	policy, _ := properties["policyId"].(string)
	state, _ := properties["protectionState"].(string)
	deleted, _ := properties["isScheduledForDeferredDelete"].(bool)
	if status != http.StatusOK || deleted != item.deleted || (state == "ProtectionStopped") != (item.policy == "") ||
		strings.ToLower(policy[strings.LastIndexByte(policy, '/')+1:]) != item.policy {
		w.Fatalf("item of %s in %s = %d %v, should be %+v", machine, vault, status, answer, *item)
	}
	if item.policy == "" {
		return
	}
	if status, answer := w.send("GET", policy, ""); status != http.StatusOK {
		w.Fatalf("the policy of an item: %d %v", status, answer)
	}
}
