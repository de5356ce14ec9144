package main_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"kluis/internal/armid"
	"kluis/internal/client"
	"kluis/internal/tooltest"
)

// raw speaks HTTP as nobody's SDK would.
type raw struct {
	t     *testing.T
	base  string
	http  *http.Client
	token string
}

func newRaw(t *testing.T, s *server) *raw {
	t.Helper()
	var admin map[string]string
	if err := json.Unmarshal(must[[]byte](t)(os.ReadFile(filepath.Join(s.dir, "admin.json"))), &admin); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(must[[]byte](t)(os.ReadFile(admin["caFile"]))) {
		t.Fatal("the CA file holds no certificate")
	}
	r := &raw{t: t, base: admin["endpoint"], http: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}}
	resp := must[*http.Response](t)(r.http.PostForm(r.base+"/"+admin["tenantId"]+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {admin["clientId"]}, "client_secret": {admin["clientSecret"]}, "scope": {r.base + "/.default"}}))
	defer resp.Body.Close()
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&token); err != nil || token.AccessToken == "" {
		t.Fatalf("no token: %v", err)
	}
	r.token = token.AccessToken
	return r
}

// ask sends a request and returns status, code and advice of the answer.
func (r *raw) ask(method, path, token string, body io.Reader) (status int, code, advice string) {
	r.t.Helper()
	req := must[*http.Request](r.t)(http.NewRequestWithContext(r.t.Context(), method, r.base+path, body))
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp := must[*http.Response](r.t)(r.http.Do(req))
	defer resp.Body.Close()
	text := must[[]byte](r.t)(io.ReadAll(resp.Body))
	var e struct {
		Error struct {
			Code    string
			Details []struct{ Code, Message string }
		}
	}
	if len(text) > 0 && resp.StatusCode >= 400 {
		if err := json.Unmarshal(text, &e); err != nil {
			r.t.Errorf("%s %s: the error is not JSON: %q", method, path, text)
		}
	}
	for _, d := range e.Error.Details {
		if d.Code == "RecommendedAction" {
			advice = d.Message
		}
	}
	return resp.StatusCode, e.Error.Code, advice
}

func TestBadRequests(t *testing.T) {
	s := newServer(t, "")
	r := newRaw(t, s)
	ctx := soon(t)
	must[client.Group](t)(s.PutGroup(ctx, group, location))
	g := s.Subscription().Group(group).String()
	vault := g + "/providers/Microsoft.RecoveryServices/vaults/v1"
	disk := g + "/providers/Microsoft.Compute/disks/d1?api-version=2023-10-02"
	outside := filepath.Join(t.TempDir(), "secret.img")
	if err := os.WriteFile(outside, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(s.images, "link.img")); err != nil {
		t.Fatal(err)
	}
	importOf := func(uri string) string {
		return `{"location":"westeurope","properties":{"creationData":{"createOption":"Import","sourceUri":"` + uri + `"}}}`
	}
	const version = "?api-version=2024-04-01"
	for name, c := range map[string]struct {
		method, path, token, body string
		status                    int
		code                      string
	}{
		"no token":             {"GET", g + version, "", "", 401, ""},
		"wrong token":          {"GET", g + version, "x.y.z", "", 401, ""},
		"tampered token":       {"GET", g + version, r.token[:len(r.token)-4] + "AAAA", "", 401, ""},
		"no api-version":       {"GET", g, r.token, "", 400, "MissingApiVersionParameter"},
		"wrong api-version":    {"GET", g + "?api-version=tomorrow", r.token, "", 400, "InvalidApiVersionParameter"},
		"unknown resource":     {"GET", vault + version, r.token, "", 404, "ResourceNotFound"},
		"unknown group":        {"GET", s.Subscription().Group("nobody").String() + version, r.token, "", 404, "ResourceGroupNotFound"},
		"unknown subscription": {"GET", "/subscriptions/00000000-0000-0000-0000-000000000000" + version, r.token, "", 404, "SubscriptionNotFound"},
		"unknown provider":     {"GET", g + "/providers/Microsoft.Nothing/things/x" + version, r.token, "", 404, ""},
		"malformed JSON":       {"PUT", vault + version, r.token, `{"location":`, 400, "InvalidRequestContent"},
		"not an object":        {"PUT", vault + version, r.token, `[]`, 400, "InvalidRequestContent"},
		"no body":              {"PUT", vault + version, r.token, ``, 400, ""},
		"body too large":       {"PUT", vault + version, r.token, `{"location":"` + strings.Repeat("x", 5<<20) + `"}`, 413, "RequestContentTooLarge"},
		"wrong method":         {"PATCH", g + "/providers/Microsoft.RecoveryServices/vaults" + version, r.token, `{}`, 405, ""},
		"malformed id":         {"GET", "/subscriptions//resourceGroups/x" + version, r.token, "", 400, ""},
		"path outside":         {"PUT", disk, r.token, importOf("file://" + outside), 403, "DiskImageNotAllowed"},
		"path with dots":       {"PUT", disk, r.token, importOf("file://" + s.images + "/../../etc/passwd"), 403, "DiskImageNotAllowed"},
		"path by a link":       {"PUT", disk, r.token, importOf("file://" + s.images + "/link.img"), 403, "DiskImageNotAllowed"},
		"relative path":        {"PUT", disk, r.token, importOf("file:secret.img"), 400, "InvalidParameter"},
		"other scheme":         {"PUT", disk, r.token, importOf("https://example.com/x.vhd"), 400, "InvalidParameter"},
		"missing image":        {"PUT", disk, r.token, importOf("file://" + s.images + "/nothing.img"), 400, "DiskImageNotFound"},
		"empty disk":           {"PUT", disk, r.token, `{"location":"westeurope","properties":{"creationData":{"createOption":"Empty"},"diskSizeGB":4}}`, 400, "OperationNotSupported"},
		"group of no name":     {"PUT", s.Subscription().Group("a.").String() + version, r.token, `{"location":"westeurope"}`, 400, "InvalidResourceGroup"},
		"redundancy": {"PUT", vault + version, r.token,
			`{"location":"westeurope","sku":{"name":"Standard"},"properties":{"redundancySettings":{"standardTierStorageRedundancy":"Twice"}}}`, 400, "InvalidStorageRedundancy"},
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			status, code, advice := r.ask(c.method, c.path, c.token, strings.NewReader(c.body))
			if status != c.status || c.code != "" && code != c.code {
				t.Errorf("answered %d %s, want %d %s", status, code, c.status, c.code)
			}
			if status >= 400 && code == "" && status != 401 {
				t.Error("the error has no code")
			}
			if strings.HasPrefix(code, "DiskImage") && advice == "" {
				t.Error("the error says nothing about what to do")
			}
		})
	}
	if vaults := must[[]client.RecoveryVault](t)(s.RecoveryVaults(ctx, s.Subscription())); len(vaults) != 0 {
		t.Errorf("bad requests left %d vaults", len(vaults))
	}
	if disks := must[[]client.Disk](t)(s.Disks(ctx, s.Subscription())); len(disks) != 0 {
		t.Errorf("bad requests left %d disks", len(disks))
	}
}

// What happens to an image between two backups fails the backup with its own error, and the recovery
// point that is there still restores.
func TestImagesThatFail(t *testing.T) {
	s := newServer(t, "")
	m := newMachine(t, s, 24)
	ctx := soon(t)
	item := m.enable(ctx, t)
	first := m.backUp(ctx, t, item)
	whole := map[string][]byte{}
	for name, file := range m.files {
		whole[name] = must[[]byte](t)(os.ReadFile(file))
	}
	for name, c := range map[string]struct {
		code  string
		spoil func(t *testing.T) error
	}{
		"missing": {"UserErrorDiskImageNotFound", func(*testing.T) error { return os.Remove(m.files["data"]) }},
		"raw image shorter than it was": {"UserErrorDiskImageTruncated", func(*testing.T) error {
			return os.Truncate(m.files["os"], int64(len(whole["os"])-1<<20))
		}},
		"qcow2 image cut off": {"UserErrorDiskImageTruncated", func(*testing.T) error {
			return os.Truncate(m.files["data"], int64(len(whole["data"])/2))
		}},
		"header destroyed": {"UserErrorDiskImageUnreadable", func(*testing.T) error {
			spoilt := bytes.Clone(whole["data"])
			copy(spoilt[20:], "\xff\xff\xff\xff") // the size of its clusters
			return os.WriteFile(m.files["data"], spoilt, 0o600)
		}},
		"in use": {"UserErrorDiskImageInUse", func(t *testing.T) error { return m.occupy(t, "data") }},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.spoil(t); err != nil {
				t.Fatal(err)
			}
			id := must[string](t)(s.Backup(ctx, item.ARMID(), ""))
			j, err := s.WaitJob(ctx, m.vault, id, nil)
			if err == nil {
				err = j.Properties.Err()
			}
			if !client.Is(err, c.code) {
				t.Errorf("the backup ended as %v, want %s", err, c.code)
			}
			for name, file := range m.files {
				if err := os.WriteFile(file, whole[name], 0o600); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	m.checkPoints(ctx, t, item, first)
	if j := m.backUp(ctx, t, item); j.Properties.Status != client.JobCompleted {
		t.Errorf("the backup after all that ended as %s", j.Properties.Status)
	}
}

// occupy runs a qemu-nbd that holds the image for writing until the test ends.
func (m *machine) occupy(t *testing.T, disk string) error {
	t.Helper()
	socket := filepath.Join(os.TempDir(), "kluis-test-"+hexOf(4))
	cmd := exec.Command("qemu-nbd", "--persistent", "--socket="+socket, "--format=qcow2", m.files[disk])
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = os.Remove(socket) })
	waitUntil(soon(t), t, func() bool { _, err := os.Stat(socket); return err == nil })
	return nil
}

// mountSmall mounts a file system of its own at a new folder and returns the folder, and what gives it another size.
func mountSmall(t *testing.T, size string) (folder string, resize func(size string)) {
	t.Helper()
	folder = t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size="+size); err != nil {
		tooltest.Missing(t, "mount a small file system: %v (needs root)", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(folder, syscall.MNT_DETACH) })
	return folder, func(size string) {
		t.Helper()
		if err := syscall.Mount("tmpfs", folder, "tmpfs", syscall.MS_REMOUNT, "size="+size); err != nil {
			t.Fatal(err)
		}
	}
}

// A restore onto a disk that is full says so, removes what it wrote, also a disk that was whole already, and
// works once there is room.
func TestRestoreTargetFull(t *testing.T) {
	target, resize := mountSmall(t, "8m")
	s := newServer(t, "", "--restore-dir", target)
	m := newMachine(t, s, 24)
	ctx := soon(t)
	item := m.enable(ctx, t)
	first := m.backUp(ctx, t, item)
	must[client.Group](t)(s.PutGroup(ctx, "small", location))
	for _, size := range []string{"8m", "40m"} { // for no disk, for one of the two
		resize(size)
		if err := m.restore(ctx, t, item, first, "small"); !client.Is(err, "UserErrorRestoreTargetFull") {
			t.Fatalf("%s: the restore ended as %v", size, err)
		}
		if disks := must[[]client.Disk](t)(s.Disks(ctx, s.Subscription().Group("small"))); len(disks) != 0 {
			t.Errorf("%s: a restore that failed left %d disks", size, len(disks))
		}
		walkFiles(t, target, func(path string, _ []byte) { t.Errorf("%s: a restore that failed left %s", size, path) })
	}
	resize("256m")
	if err := m.restore(ctx, t, item, first, "small"); err != nil {
		t.Errorf("with enough room the restore ended as %v", err)
	}
	m.checkRestored(ctx, t, "small")
}

// A backup into a store that is full says so and harms no recovery point; once there is room it works.
func TestRecoveryStoreFull(t *testing.T) {
	folder, resize := mountSmall(t, "128m")
	s := newServer(t, "", "--store", folder)
	m := newMachine(t, s, 24)
	ctx := soon(t)
	item := m.enable(ctx, t)
	first := m.backUp(ctx, t, item)
	before := must[[]byte](t)(os.ReadFile(m.files["data"]))
	m.rewrite(ctx, t, 192)
	id := must[string](t)(s.Backup(ctx, item.ARMID(), ""))
	j, err := s.WaitJob(ctx, m.vault, id, nil)
	if err == nil {
		err = j.Properties.Err()
	}
	wantProblem(t, err, "UserErrorRecoveryStoreFull", "store")
	if err := os.WriteFile(m.files["data"], before, 0o600); err != nil {
		t.Fatal(err)
	}
	m.checkPoints(ctx, t, item, first)
	resize("512m")
	m.rewrite(ctx, t, 192)
	second := m.backUp(ctx, t, item)
	m.checkPoints(ctx, t, item, first, second)
}

// A restore that could not end well is refused before anything is written.
func TestRestoreTargetsThatAreNotThere(t *testing.T) {
	s := newServer(t, "")
	m := newMachine(t, s, 24)
	ctx := soon(t)
	item := m.enable(ctx, t)
	point := m.backUp(ctx, t, item).Properties.Bag("Recovery Point Id")
	there := s.Subscription().Group(group)
	for _, c := range []struct {
		point   string
		group   armid.ID
		account armid.ID
		code    string
		names   string
	}{
		{point, s.Subscription().Group("nowhere"), m.account, "ResourceGroupNotFound", "nowhere"},
		{point, there, s.StorageAccountID(group, "nothing1"), "StorageAccountNotFound", "nothing1"},
		{"1", there, m.account, "BMSUserErrorRecoveryPointNotFound", "1"},
	} {
		_, err := s.RestoreDisks(ctx, item, c.point, client.RestoreRequest{TargetGroup: c.group, StorageAccount: c.account, Region: location})
		wantProblem(t, err, c.code, c.names)
	}
	if disks := must[[]client.Disk](t)(s.Disks(ctx, there)); len(disks) != 2 {
		t.Errorf("%d disks after restores that were refused, want the machine's own two", len(disks))
	}
}

// Two restores into one group, both in one second, become disks of their own: neither takes the other's.
func TestRestoresSideBySide(t *testing.T) {
	s := newServer(t, "")
	m := newMachine(t, s, 24)
	ctx := soon(t)
	item := m.enable(ctx, t)
	first := m.backUp(ctx, t, item)
	before := content(t, m.files["data"])
	m.change(t)
	second := m.backUp(ctx, t, item)
	must[client.Group](t)(s.PutGroup(ctx, "both", location))
	for _, j := range []client.Job{first, second} {
		if err := m.restore(ctx, t, item, j, "both"); err != nil {
			t.Fatal(err)
		}
	}
	found := map[string]int{}
	for _, d := range must[[]client.Disk](t)(s.Disks(ctx, s.Subscription().Group("both"))) {
		if strings.HasPrefix(d.Name, "data-") {
			found[string(content(t, imagePath(d)))]++
		}
	}
	if found[string(before)] != 1 || found[string(content(t, m.files["data"]))] != 1 || len(found) != 2 {
		t.Error("the data disks of the two recovery points were not restored side by side")
	}
}

// Ctrl-C stops the server cleanly, and started again everything is still there.
func TestRestart(t *testing.T) {
	eachDatabase(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		m := newMachine(t, s, 24)
		ctx := soon(t)
		item := m.enable(ctx, t)
		first := m.backUp(ctx, t, item)
		admin := must[[]byte](t)(os.ReadFile(filepath.Join(s.dir, "admin.json")))
		s.stop()
		s.start()
		// The port is another one, the credentials are the same.
		again := must[[]byte](t)(os.ReadFile(filepath.Join(s.dir, "admin.json")))
		if secretOf(t, admin) != secretOf(t, again) {
			t.Error("a restart changed the credentials")
		}
		m.checkPoints(ctx, t, item, first)
		m.backUp(ctx, t, item)
	})
}

func secretOf(t *testing.T, admin []byte) string {
	t.Helper()
	var a struct{ ClientSecret string }
	if err := json.Unmarshal(admin, &a); err != nil {
		t.Fatal(err)
	}
	return a.ClientSecret
}

// One server at a time works in a data folder; the second says so and changes nothing.
func TestSecondServer(t *testing.T) {
	s := newServer(t, "")
	path := must[string](t)(binary())
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	cmd := exec.CommandContext(ctx, path, s.args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err == nil || !strings.Contains(said.String(), "another server") {
		t.Errorf("the second server ended with %v and said %q", err, said.String())
	}
	if _, err := s.Groups(ctx); err != nil {
		t.Errorf("the first server suffered: %v", err)
	}
}

// Mistakes in flags, variables and the file are told before anything is made.
func TestConfigurationMistakes(t *testing.T) {
	path := must[string](t)(binary())
	file := filepath.Join(t.TempDir(), "kluis.yaml")
	if err := os.WriteFile(file, []byte("lisen: 127.0.0.1:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		env  string
		says string
	}{
		"misspelt setting": {[]string{"--config", file}, "", "lisen"},
		"no port":          {[]string{"--listen", "localhost"}, "", "listen"},
		"no folder":        {[]string{"--allow-images", "/does/not/exist"}, "", "allow-images"},
		"workers":          {nil, "KLUIS_WORKERS=none", "workers"},
		"database":         {[]string{"--database", "mysql://x"}, "", "mysql"},
		"store scheme":     {[]string{"--store", "gs://bucket"}, "", "azblob"},
		"store setting":    {nil, "KLUIS_STORE=s3://bucket?secret=x", "secret"},
		"store credential": {nil, "KLUIS_STORE=s3://key:x@bucket", "environment"},
		"log level":        {[]string{"--log-level", "loud"}, "", "log-level"},
		"domain":           {[]string{"--domain", "no domain!"}, "", "domain"},
		"no such file":     {[]string{"--config", "/does/not/exist"}, "", "/does/not/exist"},
	} {
		t.Run(name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			cmd := exec.CommandContext(soon(t), path, append([]string{"serve", "--listen", "127.0.0.1:0", "--data", data}, c.args...)...)
			cmd.Env = append(os.Environ(), c.env)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.says) {
				t.Errorf("ended with %v and said %q", err, out)
			}
		})
	}
}

// A start that would be at odds with what the data folder holds says so, and changes nothing: with the right
// settings all is there again.
func TestWrongSecondStart(t *testing.T) {
	s := newServer(t, "")
	ctx := soon(t)
	must[client.Group](t)(s.PutGroup(ctx, group, location))
	seal, aside := filepath.Join(s.dir, "seal"), filepath.Join(t.TempDir(), "seal")
	right := s.args
	for name, c := range map[string]struct {
		args  []string
		spoil func() error
		mend  func() error
		says  string
	}{
		"another database":           {args: []string{"--database", "sqlite:" + filepath.Join(t.TempDir(), "other.db")}, says: "--database"},
		"a file that is no database": {args: []string{"--database", "sqlite:" + must[string](t)(binary())}, says: "not a database"},
		"no database there":          {args: []string{"--database", "postgres://kluis:hunter2@127.0.0.1:1/kluis"}, says: "connection refused"},
		"another domain by mistake":  {args: []string{"--domain", "https://localhost"}, says: "domain"},
		"no root key":                {spoil: func() error { return os.Rename(seal, aside) }, mend: func() error { return os.Rename(aside, seal) }, says: "root key"},
	} {
		t.Run(name, func(t *testing.T) {
			s.stop()
			if c.spoil != nil {
				if err := c.spoil(); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.CommandContext(ctx, must[string](t)(binary()), append(right, c.args...)...)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.says) || strings.Contains(string(out), "hunter2") || strings.Contains(string(out), "ready") {
				t.Errorf("ended with %v and said %q", err, out)
			}
			if c.mend != nil {
				if err := c.mend(); err != nil {
					t.Fatal(err)
				}
			}
			s.start()
			if _, err := s.Group(ctx, group); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}
