package compute

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kluis/internal/armid"
)

// VM is a virtual machine. Properties holds what is read here; the rest of the document is kept beside
// it and comes back when the VM is encoded.
type VM struct {
	ID         armid.ID
	Location   string
	Tags       map[string]string
	Properties VMProperties

	sent map[string]any // the document as a client sent it
}

// VMProperties is the part of a VM's properties that is read here.
type VMProperties struct {
	VMID              string          `json:"vmId,omitempty"`
	ProvisioningState string          `json:"provisioningState,omitempty"`
	TimeCreated       time.Time       `json:"timeCreated,omitzero"`
	HardwareProfile   HardwareProfile `json:"hardwareProfile"`
	StorageProfile    StorageProfile  `json:"storageProfile"`
	Host              *Ref            `json:"host,omitempty"` // which runs it; nil for image files at rest
}

// HardwareProfile is a VM's size.
type HardwareProfile struct {
	VMSize string `json:"vmSize,omitempty"`
}

// StorageProfile is a VM's disks.
type StorageProfile struct {
	OSDisk    OSDisk     `json:"osDisk"`
	DataDisks []DataDisk `json:"dataDisks,omitempty"`
}

// OSDisk is the disk a VM boots from.
type OSDisk struct {
	OSType             string              `json:"osType,omitempty"`
	Name               string              `json:"name,omitempty"`
	CreateOption       string              `json:"createOption,omitempty"`
	ManagedDisk        *Ref                `json:"managedDisk,omitempty"`
	EncryptionSettings *EncryptionSettings `json:"encryptionSettings,omitempty"`
}

// DataDisk is another disk of a VM.
type DataDisk struct {
	Lun          int    `json:"lun"`
	Name         string `json:"name,omitempty"`
	CreateOption string `json:"createOption,omitempty"`
	ManagedDisk  *Ref   `json:"managedDisk,omitempty"`
}

// Ref names another resource.
type Ref struct {
	ID armid.ID `json:"id"`
}

// EncryptionSettings name the secret that opens a disk, and the key that wraps it. Enabled counts on a
// VM; on a disk the whole collection is enabled or not.
type EncryptionSettings struct {
	Enabled           *bool      `json:"enabled,omitempty"`
	DiskEncryptionKey *SecretRef `json:"diskEncryptionKey,omitempty"`
	KeyEncryptionKey  *KeyRef    `json:"keyEncryptionKey,omitempty"`
}

// SecretRef names a BEK.
type SecretRef struct {
	SecretURL   string `json:"secretUrl"`
	SourceVault Ref    `json:"sourceVault"`
}

// KeyRef names a KEK.
type KeyRef struct {
	KeyURL      string `json:"keyUrl"`
	SourceVault Ref    `json:"sourceVault"`
}

// Disk is a managed disk.
type Disk struct {
	ID         armid.ID
	Location   string
	Tags       map[string]string
	ManagedBy  string // id of the VM that has it, or ""; what a client says of it does not count
	Properties DiskProperties

	sent      map[string]any
	operation string
}

// Operation is the id of the operation that makes the disk, to whoever has just asked for one that takes its time.
func (d Disk) Operation() string { return d.operation }

// DiskProperties is the part of a disk's properties that is read here.
type DiskProperties struct {
	OSType             string              `json:"osType,omitempty"`
	CreationData       CreationData        `json:"creationData"`
	SizeGB             int64               `json:"diskSizeGB,omitempty"`
	SizeBytes          int64               `json:"diskSizeBytes,omitempty"`
	DiskState          string              `json:"diskState,omitempty"`
	UniqueID           string              `json:"uniqueId,omitempty"`
	TimeCreated        time.Time           `json:"timeCreated,omitzero"`
	ProvisioningState  string              `json:"provisioningState,omitempty"`
	EncryptionSettings *SettingsCollection `json:"encryptionSettingsCollection,omitempty"`
	Generation         string              `json:"hyperVGeneration,omitempty"` // V2 boots with UEFI
	Target             string              `json:"kluisTarget,omitempty"`      // what its host calls it, or is to call it: "vda"
}

// CreationData says where a disk's content comes from.
type CreationData struct {
	CreateOption     string   `json:"createOption"`
	SourceURI        string   `json:"sourceUri,omitempty"`
	SourceResourceID armid.ID `json:"sourceResourceId,omitzero"` // what it is a copy of
	SourceUniqueID   string   `json:"sourceUniqueId,omitempty"`
}

// keeping are new properties of what exists, with those that cannot be changed.
func (p DiskProperties) keeping(old DiskProperties) DiskProperties {
	p.UniqueID, p.TimeCreated, p.CreationData = old.UniqueID, old.TimeCreated, old.CreationData
	p.ProvisioningState, p.SizeBytes, p.SizeGB = old.ProvisioningState, old.SizeBytes, old.SizeGB
	return p
}

// The provisioning states of a disk.
const (
	creating  = "Creating" // it is being copied, and cannot be used yet
	succeeded = "Succeeded"
)

func (p DiskProperties) isCreating() bool { return p.ProvisioningState == creating }

// SettingsCollection is the encryption of a disk.
type SettingsCollection struct {
	Enabled  bool                 `json:"enabled"`
	Version  string               `json:"encryptionSettingsVersion,omitempty"`
	Settings []EncryptionSettings `json:"encryptionSettings,omitempty"`
}

// The states of a disk.
const (
	attached   = "Attached"
	unattached = "Unattached"
	activeSAS  = "ActiveSAS" // somebody may read it by a URL, whether a VM has it or not
)

// resource is the frame of both documents.
type resource[P any] struct {
	ID         armid.ID          `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags,omitempty"`
	Properties P                 `json:"properties"`
}

// MarshalJSON writes the document: what a client sent, with what is known here over it.
func (v VM) MarshalJSON() ([]byte, error) {
	sent, _ := merge(unsaid, v.sent).(map[string]any)
	return overlay(sent, resource[VMProperties]{v.ID, v.ID.Name(), VMType, v.Location, v.Tags, v.Properties})
}

// unsaid is what a VM of Azure's always has, and clients read without looking: az vm list -d goes through the interfaces.
var unsaid = map[string]any{"properties": map[string]any{"networkProfile": map[string]any{"networkInterfaces": []any{}}}}

// UnmarshalJSON reads a document.
func (v *VM) UnmarshalJSON(b []byte) error {
	var r resource[VMProperties]
	sent, err := readDocument(b, &r)
	*v = VM{r.ID, r.Location, r.Tags, r.Properties, sent}
	return err
}

// MarshalJSON writes the document: what a client sent, with what is known here over it.
func (d Disk) MarshalJSON() ([]byte, error) {
	return overlay(d.sent, struct {
		resource[DiskProperties]
		ManagedBy string `json:"managedBy,omitempty"`
	}{resource[DiskProperties]{d.ID, d.ID.Name(), DiskType, d.Location, d.Tags, d.Properties}, d.ManagedBy})
}

// UnmarshalJSON reads a document.
func (d *Disk) UnmarshalJSON(b []byte) error {
	var r resource[DiskProperties]
	sent, err := readDocument(b, &r)
	delete(sent, "managedBy")
	*d = Disk{ID: r.ID, Location: r.Location, Tags: r.Tags, Properties: r.Properties, sent: sent}
	return err
}

func readDocument(b []byte, known any) (sent map[string]any, err error) {
	if err := json.Unmarshal(b, known); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // what is not understood must not be rounded
	return sent, d.Decode(&sent)
}

// dropReadOnly forgets what clients send back that they were told about the VM's state.
func (v *VM) dropReadOnly() {
	delete(v.sent, "resources")
	if properties, ok := v.sent["properties"].(map[string]any); ok {
		delete(properties, "instanceView")
	}
}

// forgetSent removes what a client sent at the end of a path of objects.
func (v *VM) forgetSent(path ...string) {
	object := v.sent
	for _, step := range path[:len(path)-1] {
		object, _ = object[step].(map[string]any)
	}
	delete(object, path[len(path)-1])
}

// overlay puts the known values over the sent ones, deep into objects and lists of the same length.
func overlay(sent map[string]any, known any) ([]byte, error) {
	b, err := json.Marshal(known)
	if err != nil || sent == nil {
		return b, err
	}
	var over map[string]any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&over); err != nil {
		return nil, err
	}
	return json.Marshal(merge(sent, over))
}

func merge(under, over any) any {
	switch o := over.(type) {
	case map[string]any:
		u, ok := under.(map[string]any)
		if !ok {
			return over
		}
		merged := make(map[string]any, len(u)+len(o))
		for k, v := range u {
			merged[k] = v
		}
		for k, v := range o {
			merged[k] = merge(u[k], v)
		}
		return merged
	case []any:
		u, ok := under.([]any)
		if !ok || len(u) != len(o) {
			return over
		}
		merged := make([]any, len(o))
		for i := range o {
			merged[i] = merge(u[i], o[i])
		}
		return merged
	}
	return over
}

// as is the same disk document under another id.
func (d Disk) as(id armid.ID) Disk {
	d.ID = id
	return d
}

// DiskIDs are the ids of a VM's disks, the OS disk first.
func (v VM) DiskIDs() []armid.ID {
	var ids []armid.ID
	if m := v.Properties.StorageProfile.OSDisk.ManagedDisk; m != nil {
		ids = append(ids, m.ID)
	}
	for _, d := range v.Properties.StorageProfile.DataDisks {
		if d.ManagedDisk != nil {
			ids = append(ids, d.ManagedDisk.ID)
		}
	}
	return ids
}

// LunOf is the LUN under which a VM has a disk; -1 is the OS disk.
func (v VM) LunOf(disk armid.ID) int {
	for _, d := range v.Properties.StorageProfile.DataDisks {
		if d.ManagedDisk != nil && d.ManagedDisk.ID.Equal(disk) {
			return d.Lun
		}
	}
	return -1
}

// has reports whether a VM names a disk.
func (v VM) has(disk armid.ID) bool {
	return slices.ContainsFunc(v.DiskIDs(), disk.Equal)
}

func (d OSDisk) is(id armid.ID) bool   { return d.ManagedDisk != nil && d.ManagedDisk.ID.Equal(id) }
func (d DataDisk) is(id armid.ID) bool { return d.ManagedDisk != nil && d.ManagedDisk.ID.Equal(id) }

// OSType is "Linux" or "Windows", or "" where nobody said.
func (v VM) OSType() string { return v.Properties.StorageProfile.OSDisk.OSType }

func (v *VM) settle(vmID string, created time.Time) {
	v.Properties.VMID, v.Properties.TimeCreated, v.Properties.ProvisioningState = vmID, created, "Succeeded"
}

// check says what is wrong with a VM's document.
func (v VM) check() error {
	if v.Location == "" {
		return locationRequired(v.ID)
	}
	os := v.Properties.StorageProfile.OSDisk
	if os.ManagedDisk == nil {
		return osDiskRequired(v.ID)
	}
	if err := checkAttach(v.ID, os.CreateOption, os.ManagedDisk); err != nil {
		return err
	}
	if err := os.EncryptionSettings.check(v.ID); err != nil {
		return err
	}
	seen := map[string]bool{os.ManagedDisk.ID.Key(): true}
	luns := map[int]bool{}
	for _, d := range v.Properties.StorageProfile.DataDisks {
		if err := checkAttach(v.ID, d.CreateOption, d.ManagedDisk); err != nil {
			return err
		}
		if d.Lun < 0 || d.Lun > 63 || luns[d.Lun] {
			return invalidLun(v.ID, d.Lun)
		}
		if seen[d.ManagedDisk.ID.Key()] {
			return diskTwice(v.ID, d.ManagedDisk.ID)
		}
		luns[d.Lun], seen[d.ManagedDisk.ID.Key()] = true, true
	}
	return nil
}

func checkAttach(vm armid.ID, option string, disk *Ref) error {
	if !strings.EqualFold(option, "Attach") || disk == nil || !disk.ID.Is(DiskType) {
		return attachOnly(vm, option)
	}
	return nil
}

// check says what is wrong with a disk's document.
func (d Disk) check() error {
	if d.Location == "" {
		return locationRequired(d.ID)
	}
	return d.Properties.EncryptionSettings.check(d.ID)
}

func (c *SettingsCollection) check(id armid.ID) error {
	if c == nil || !c.Enabled {
		return nil
	}
	if len(c.Settings) == 0 {
		return encryptionIncomplete(id)
	}
	yes := true
	for _, s := range c.Settings {
		s.Enabled = &yes
		if err := s.check(id); err != nil {
			return err
		}
	}
	return nil
}

// settings are the encryption settings that hold for a disk, or nil.
func (d Disk) settings() *EncryptionSettings {
	c := d.Properties.EncryptionSettings
	if c == nil || !c.Enabled || len(c.Settings) == 0 {
		return nil
	}
	return &c.Settings[0]
}

// enabled returns the settings of a VM if they hold, else nil.
func (e *EncryptionSettings) enabled() *EncryptionSettings {
	if e == nil || e.Enabled == nil || !*e.Enabled {
		return nil
	}
	return e
}

func (e *EncryptionSettings) check(id armid.ID) error {
	if e.enabled() == nil {
		return nil
	}
	if e.DiskEncryptionKey == nil {
		return encryptionIncomplete(id)
	}
	if err := checkKeyURL(e.DiskEncryptionKey.SecretURL, "secrets", e.DiskEncryptionKey.SourceVault); err != nil {
		return invalidEncryption(id, err)
	}
	if k := e.KeyEncryptionKey; k != nil {
		if err := checkKeyURL(k.KeyURL, "keys", k.SourceVault); err != nil {
			return invalidEncryption(id, err)
		}
	}
	return nil
}

// checkKeyURL makes sure that a URL names one version of a key or secret of the source vault: a VM whose
// settings contradict themselves would be found out only when it does not boot.
func checkKeyURL(s, kind string, vault Ref) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" {
		return fmt.Errorf("%q is not an https URL", s)
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	if len(parts) != 3 || parts[0] != kind || parts[1] == "" || parts[2] == "" {
		return fmt.Errorf("%q does not name a version below /%s/", s, kind)
	}
	if !vault.ID.Is("Microsoft.KeyVault/vaults") {
		return errors.New("sourceVault.id is not the id of a key vault")
	}
	host, _, _ := strings.Cut(u.Hostname(), ".")
	if !strings.EqualFold(host, vault.ID.Name()) {
		return fmt.Errorf("%q is not in the key vault %s", s, vault.ID.Name())
	}
	return nil
}

// diskRow is a disk with what only the server knows of it.
type diskRow struct {
	Disk
	image  Image
	owned  bool   // the image was written here, by a restore or a copy, and goes with the disk
	vm     string // id of the VM that has the disk, or ""
	host   string // on which the disk was found, and with whose machine it goes; "" for images of this machine
	target string // the host's name for it, if a host runs its VM

	accessUntil time.Time // when the right to read it by a URL ends; zero where there is none
}

// isShared reports whether somebody may read the disk by a URL.
func (r diskRow) isShared(now time.Time) bool { return now.Before(r.accessUntil) }

// shown is the disk as it is told of now.
func (r diskRow) shown(now time.Time) Disk {
	switch {
	case r.isShared(now):
		r.Properties.DiskState = activeSAS
	case r.vm != "":
		r.Properties.DiskState = attached
	default:
		r.Properties.DiskState = unattached
	}
	return r.Disk
}

// settle fills in what the server says about a disk.
func (r *diskRow) settle(now time.Time, id string) {
	p := &r.Properties
	if p.UniqueID == "" {
		p.UniqueID, p.TimeCreated = id, now
	}
	if !p.isCreating() {
		p.ProvisioningState = succeeded
	}
	p.DiskState = r.shown(now).Properties.DiskState
	r.ManagedBy = r.vm
	p.SizeBytes = r.image.Size
	p.SizeGB = (r.image.Size + 1<<30 - 1) >> 30
}

// filePath takes the path out of "file:///path". Other hosts and schemes are refused.
func filePath(uri string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return "", errors.New("it is not a URI")
	}
	if u.Scheme != "file" || u.Host != "" && u.Host != "localhost" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", errors.New("only file:///PATH is taken")
	}
	if !filepath.IsAbs(u.Path) || strings.ContainsRune(u.Path, 0) {
		return "", errors.New("the path is not absolute")
	}
	return u.Path, nil
}

func fileURI(path string) string { return (&url.URL{Scheme: "file", Path: path}).String() }
