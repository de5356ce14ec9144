package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// settings are a value for every setting, and for some of them more than one.
func settings(t *testing.T) map[string][]string {
	one, two := t.TempDir(), filepath.Join(t.TempDir(), "with, comma")
	if err := os.Mkdir(two, 0o700); err != nil {
		t.Fatal(err)
	}
	return map[string][]string{"data": {"/srv/kluis"}, "listen": {"[::1]:9443"}, "domain": {"backup.example.com"}, "export-listen": {"192.0.2.7:10809"}, "database": {"postgres://kluis@db/kluis"},
		"store": {"/srv/store"}, "allow-images": {one, two}, "restore-dir": {"/srv/disks"}, "workers": {"7"}, "backup-rate": {"50MB"},
		"hosts": {"lab=qemu:///system", "dc2=qemu+tls://dc2.example.com/system"}, "host-location": {"westeurope"}, "live-dir": {"/srv/live"}, "nbd-ports": {"50000-50010"}, "scratch-reserve": {"20GiB"}, "key-dir": {"/run/keys"},
		"requests-per-minute": {"600"}, "locations": {"here", "there"}, "node": {"second"}, "log-level": {"debug"},
		"oidc-issuer": {"https://login.example.com/tenant"}, "oidc-audience": {"kluis", "https://backup.example.com"}, "oidc-subject-claim": {"email"}, "oidc-groups-claim": {"roles"}, "oidc-ca-file": {"/etc/ca.pem"}}
}

// numbers are the settings that are numbers.
var numbers = regexp.MustCompile(`(workers|requests-per-minute): "(\d+)"`)

func quoted(folder string) string { return `"` + folder + `"` } // as a value of CSV, and of YAML

// resolved reads settings from flags, variables and a file.
func resolved(t *testing.T, flags, variables map[string][]string, file string) config {
	t.Helper()
	c := defaults()
	f := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	c.bind(f)
	var args []string
	for name, values := range flags {
		for _, v := range values {
			args = append(args, "--"+name+"="+csv(name, v))
		}
	}
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	env := func(name string) (string, bool) {
		values, ok := variables[strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, environment)), "_", "-")]
		if !ok || !strings.HasPrefix(name, environment) {
			return "", false
		}
		setting := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, environment)), "_", "-")
		all := make([]string, len(values))
		for i, v := range values {
			all[i] = csv(setting, v)
		}
		return strings.Join(all, ","), true
	}
	if err := c.resolve(f, file, env); err != nil {
		t.Fatal(err)
	}
	return c
}

// csv quotes what is one of several values.
func csv(setting, value string) string {
	if setting == "allow-images" {
		return quoted(value)
	}
	return value
}

func writeConfig(t *testing.T, all map[string][]string) string {
	t.Helper()
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		text.WriteString(name + ":")
		if !slices.Contains([]string{"allow-images", "locations", "hosts", "oidc-audience"}, name) {
			text.WriteString(" " + quoted(all[name][0]) + "\n")
			continue
		}
		text.WriteString("\n")
		for _, v := range all[name] {
			text.WriteString("  - " + quoted(v) + "\n")
		}
	}
	path := filepath.Join(t.TempDir(), "kluis.yaml")
	if err := os.WriteFile(path, []byte(numbers.ReplaceAllString(text.String(), "$1: $2")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every setting can be given in three ways, which mean the same.
func TestThreeWaysToSet(t *testing.T) {
	all := settings(t)
	want := config{Data: "/srv/kluis", Listen: "[::1]:9443", Domain: "backup.example.com", Export: "192.0.2.7:10809", Database: "postgres://kluis@db/kluis", Store: "/srv/store",
		AllowImages: all["allow-images"], RestoreDir: "/srv/disks", Workers: 7, BackupRate: "50MB", Hosts: all["hosts"], HostLocation: "westeurope", LiveDir: "/srv/live", NBDPorts: "50000-50010", Reserve: "20GiB", KeyDir: "/run/keys", Requests: 600, Locations: []string{"here", "there"}, Node: "second", LogLevel: "debug",
		Outside: issuerConfig{Issuer: "https://login.example.com/tenant", Audience: all["oidc-audience"], SubjectClaim: "email", GroupsClaim: "roles", IssuerCA: "/etc/ca.pem"}}
	for name, got := range map[string]config{
		"flags": resolved(t, all, nil, ""), "variables": resolved(t, nil, all, ""), "file": resolved(t, nil, nil, writeConfig(t, all)),
	} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// A flag goes before a variable, and a variable before the file.
func TestWhichSettingHolds(t *testing.T) {
	file := writeConfig(t, map[string][]string{"node": {"file"}, "domain": {"file"}, "store": {"/file"}})
	got := resolved(t, map[string][]string{"node": {"flag"}}, map[string][]string{"node": {"variable"}, "domain": {"variable"}}, file)
	if got.Node != "flag" || got.Domain != "variable" || got.Store != "/file" || got.Listen != defaults().Listen {
		t.Errorf("%+v", got)
	}
}

func TestHostNames(t *testing.T) {
	for text, want := range map[string]string{
		"lab=qemu:///system": "", "lab=qemu+tls://h/system,dc-2=qemu+ssh://u@h/system?no_verify=1": "",
		"qemu:///system": "NAME=URI", "Lab=qemu:///system": "lower-case", "a b=qemu:///system": "lower-case", "=qemu:///system": "lower-case",
		"lab=": "URI of a QEMU host", "lab=xen:///system": "URI of a QEMU host", "lab=qemu:///system,lab=qemu:///session": "twice",
	} {
		_, err := parseHosts(strings.Split(text, ","))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestIssuers(t *testing.T) {
	for name, c := range map[string]struct {
		issuer    string
		audiences []string
		ok        bool
	}{
		"none":             {"", nil, true},
		"one":              {"https://login.example.com/a", []string{"kluis"}, true},
		"for nothing":      {"https://login.example.com/a", nil, false},
		"for an empty one": {"https://login.example.com/a", []string{""}, false},
		"only an audience": {"", []string{"kluis"}, false},
		"by http":          {"http://login.example.com", []string{"kluis"}, false},
		"with a query":     {"https://login.example.com/?a", []string{"kluis"}, false},
		"no host":          {"https://", []string{"kluis"}, false},
		"no URL":           {"login.example.com", []string{"kluis"}, false},
	} {
		if err := (&issuerConfig{Issuer: c.issuer, Audience: c.audiences}).check(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBackupRates(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "5MB": 5_000_000, "1 MiB": 1 << 20, "fast": -1, "-1": -1, "": -1} {
		c := defaults()
		c.BackupRate = text
		if n, err := c.backupRate(); err != nil && want >= 0 || err == nil && n != want {
			t.Errorf("%q: %d, %v; want %d", text, n, err, want)
		}
	}
}

func TestDomainNames(t *testing.T) {
	for name, ok := range map[string]bool{"localhost": true, "backup.example.com": true, "Backup-2.Example.COM": true, "1.2": true,
		"": false, "a b": false, "a..b": false, ".a": false, "a.": false, "-a": false, "a-": false, "a/b": false, "a:1": false, "ü": false, "a\n": false} {
		if domainName.MatchString(name) != ok {
			t.Errorf("%q is a domain name: %t, want %t", name, !ok, ok)
		}
	}
}
