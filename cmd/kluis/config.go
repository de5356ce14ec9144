package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"kluis/internal/fabric/libvirt"
)

// config is everything that can be set. Each value comes from the flag, else from the environment
// (KLUIS_ and the name, such as KLUIS_ALLOW_IMAGES), else from the configuration file, else it is the
// default. An unknown name in the file is an error: a misspelt setting must not be a default in disguise.
type config struct {
	Data         string   `yaml:"data"`
	Listen       string   `yaml:"listen"`
	Domain       string   `yaml:"domain"`
	Export       string   `yaml:"export-listen"`
	Database     string   `yaml:"database"`
	Store        string   `yaml:"store"`
	AllowImages  []string `yaml:"allow-images"`
	RestoreDir   string   `yaml:"restore-dir"`
	Workers      int      `yaml:"workers"`
	BackupRate   string   `yaml:"backup-rate"`
	Hosts        []string `yaml:"hosts"`
	HostLocation string   `yaml:"host-location"`
	LiveDir      string   `yaml:"live-dir"`
	NBDPorts     string   `yaml:"nbd-ports"`
	Reserve      string   `yaml:"scratch-reserve"`
	KeyDir       string   `yaml:"key-dir"`
	Node         string   `yaml:"node"`
	Requests     int      `yaml:"requests-per-minute"`
	Locations    []string `yaml:"locations"`
	LogLevel     string   `yaml:"log-level"`

	SealIdentity   string `yaml:"seal-identity"`
	SealPassphrase string `yaml:"seal-passphrase-file"`
	KeyServices    string `yaml:"key-services"`

	Outside issuerConfig `yaml:",inline"`
}

func defaults() config {
	return config{Data: "/var/lib/kluis", Listen: "127.0.0.1:8443", Domain: "localhost", Export: "127.0.0.1:0", Workers: 2, BackupRate: "0", Requests: 120_000, Node: "kluis",
		HostLocation: "local", LiveDir: "/var/lib/libvirt/qemu/kluis", NBDPorts: "49152-49215", Reserve: "1GiB", KeyDir: "/run/kluis",
		Locations: []string{"westeurope", "northeurope", "uksouth", "eastus", "westus2", "southeastasia"}, LogLevel: "info",
		Outside: issuerConfig{SubjectClaim: "sub", GroupsClaim: "groups"}}
}

const environment = "KLUIS_"

// bind declares the flags on c's fields, which hold the defaults.
func (c *config) bind(f *pflag.FlagSet) {
	f.StringVar(&c.Data, "data", c.Data, "folder for everything the server keeps")
	f.StringVar(&c.Listen, "listen", c.Listen, "address and port of the one HTTPS listener")
	f.StringVar(&c.Domain, "domain", c.Domain, "domain of the server; key vaults are <name>.vault.<domain>, storage accounts <name>.blob.<domain>")
	f.StringVar(&c.Export, "export-listen", c.Export, "address and port where disks of recovery points are served (NBD over TLS) while somebody takes files out; port 0 is a free one, none serves nothing")
	f.StringVar(&c.Database, "database", c.Database, "sqlite:FILE or postgres://… (default: sqlite:DATA/kluis.db)")
	f.StringVar(&c.Store, "store", c.Store, "where backups are kept: a folder, s3://BUCKET/PREFIX?region=… or azblob://CONTAINER/PREFIX?storage_account=… (default: DATA/store)")
	f.StringSliceVar(&c.AllowImages, "allow-images", c.AllowImages, "folder whose disk images may be registered and read; may be given several times")
	f.StringVar(&c.RestoreDir, "restore-dir", c.RestoreDir, "folder for restored disks (default: DATA/disks)")
	f.StringSliceVar(&c.Hosts, "hosts", c.Hosts, "libvirt host whose machines are protected, as NAME=URI: lab=qemu:///system, dc2=qemu+tls://dc2.example.com/system; may be given several times")
	f.StringVar(&c.HostLocation, "host-location", c.HostLocation, "location of the machines of hosts, which must be that of the Recovery Services vaults and key vaults that they use; a resource group that is there already keeps its own")
	f.StringVar(&c.LiveDir, "live-dir", c.LiveDir, "folder on each libvirt host for sockets and scratch files while a machine that runs is backed up")
	f.StringVar(&c.NBDPorts, "nbd-ports", c.NBDPorts, "ports of hosts elsewhere on which QEMU listens while disks are read, the first and the last")
	f.StringVar(&c.Reserve, "scratch-reserve", c.Reserve, "how much room must stay free there; a backup that would take it ends")
	f.StringVar(&c.KeyDir, "key-dir", c.KeyDir, "folder in memory (tmpfs) from which a machine that starts gets the keys of its disks")
	f.IntVar(&c.Workers, "workers", c.Workers, "jobs that run at once")
	f.StringVar(&c.BackupRate, "backup-rate", c.BackupRate, "how much all backups together read from disks in a second, such as 50MB; 0 is no limit")
	f.IntVar(&c.Requests, "requests-per-minute", c.Requests, "how much one principal may read through Resource Manager; changes and deletions count apart, and may be a fifth of it each; 0 is no limit")
	f.StringSliceVar(&c.Locations, "locations", c.Locations, "names of the locations that clients are offered; resources may be in any other too")
	f.StringVar(&c.Node, "node", c.Node, "name of this server among those that share the database")
	f.StringVar(&c.SealIdentity, "seal-identity", c.SealIdentity, "file of the age identities that open the root key (default: DATA/seal/seal-identity.txt)")
	f.StringVar(&c.SealPassphrase, "seal-passphrase-file", c.SealPassphrase, "file of the passphrase that protects the identity file (default: there is none)")
	f.StringVar(&c.KeyServices, "key-services", c.KeyServices, "file that names the key services outside this server which may be asked (key vaults, OpenBao or HashiCorp Vault), and as whom; none is asked without it")
	c.Outside.bind(f)
	f.StringVar(&c.LogLevel, "log-level", c.LogLevel, "debug, info, warn or error")
}

// resolve fills what no flag has set from the environment and the file, then checks the whole.
func (c *config) resolve(f *pflag.FlagSet, file string, env func(string) (string, bool)) error {
	fromFile, err := readConfig(file)
	if err != nil {
		return err
	}
	var failed error
	f.VisitAll(func(flag *pflag.Flag) {
		if flag.Changed || failed != nil || flag.Name == "config" || flag.Name == "help" {
			return
		}
		if value, ok := env(environment + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))); ok {
			failed = setFlag(f, flag.Name, value)
			return
		}
		if node, ok := fromFile[flag.Name]; ok {
			failed = setNode(f, flag.Name, node)
		}
	})
	if failed != nil {
		return failed
	}
	return c.check()
}

func setFlag(f *pflag.FlagSet, name, value string) error {
	if err := f.Set(name, value); err != nil {
		return fmt.Errorf("setting %s: %w", name, err)
	}
	return nil
}

func setNode(f *pflag.FlagSet, name string, node yaml.Node) error {
	if node.Kind == yaml.SequenceNode {
		var values []string
		if err := node.Decode(&values); err != nil {
			return fmt.Errorf("setting %s: %w", name, err)
		}
		if list, ok := f.Lookup(name).Value.(pflag.SliceValue); ok { // an element may hold a comma
			return list.Replace(values)
		}
		return fmt.Errorf("setting %s: it takes one value", name)
	}
	return setFlag(f, name, node.Value)
}

// readConfig reads the file, strictly. No file name is no settings.
func readConfig(file string) (map[string]yaml.Node, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	strict := yaml.NewDecoder(bytes.NewReader(text))
	strict.KnownFields(true)
	if err := strict.Decode(&config{}); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("configuration %s: %w", file, err)
	}
	var nodes map[string]yaml.Node
	if err := yaml.Unmarshal(text, &nodes); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", file, err)
	}
	return nodes, nil
}

// domainName leaves room for the names of key vaults and storage accounts before it.
var domainName = regexp.MustCompile(`^(?i:[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.){0,8}(?i:[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)$`)

// backupRate is what --backup-rate allows in bytes a second; 0 is no limit.
func (c *config) backupRate() (int64, error) {
	n, err := humanize.ParseBytes(c.BackupRate)
	if err != nil {
		return 0, fmt.Errorf("backup-rate %q is no amount of bytes, such as 50MB", c.BackupRate)
	}
	return int64(min(n, 1<<62)), nil
}

func (c *config) check() error {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("listen %q is not an address with a port, such as 127.0.0.1:8443", c.Listen)
	}
	if _, _, err := net.SplitHostPort(c.Export); err != nil && c.Export != exportNothing {
		return fmt.Errorf("export-listen %q is not an address with a port, such as 127.0.0.1:10809, nor %s", c.Export, exportNothing)
	}
	if c.Workers < 1 {
		return fmt.Errorf("workers is %d; at least one is needed", c.Workers)
	}
	if _, err := c.backupRate(); err != nil {
		return err
	}
	if c.Requests < 0 {
		return fmt.Errorf("requests-per-minute is %d; 0 is no limit", c.Requests)
	}
	if err := c.Outside.check(); err != nil {
		return err
	}
	if !domainName.MatchString(c.Domain) {
		return fmt.Errorf("domain %q is not a domain name, such as localhost or backup.example.com", c.Domain)
	}
	if _, err := parseHosts(c.Hosts); err != nil {
		return err
	}
	if _, err := libvirt.ParsePorts(c.NBDPorts); err != nil {
		return fmt.Errorf("nbd-ports: %w", err)
	}
	if _, err := humanize.ParseBytes(c.Reserve); err != nil {
		return fmt.Errorf("scratch-reserve %q is no size, such as 1GiB", c.Reserve)
	}
	data, err := filepath.Abs(c.Data)
	if err != nil {
		return err
	}
	c.Data = data
	if c.Database == "" {
		c.Database = "sqlite:" + filepath.Join(c.Data, "kluis.db")
	}
	if c.Store == "" {
		c.Store = filepath.Join(c.Data, "store")
	}
	if c.Store, err = checkStore(c.Store); err != nil {
		return err
	}
	if c.RestoreDir == "" {
		c.RestoreDir = filepath.Join(c.Data, "disks")
	}
	for i, dir := range c.AllowImages {
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() {
			return fmt.Errorf("allow-images %q is not a folder", dir)
		}
		if c.AllowImages[i], err = filepath.Abs(dir); err != nil {
			return err
		}
	}
	return nil
}
