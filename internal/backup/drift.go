package backup

import (
	"cmp"

	"kluis/internal/proof"
)

// Drift is a disk whose bytes say another thing than the VM's encryption settings. Either way the next
// restore would disappoint: a disk that is encrypted and has no key cannot be opened, and one that is plain
// although it should not be is not protected.
type Drift struct {
	Disk     string `json:"disk"`
	Lun      int    `json:"lun"`      // -1 is the OS disk
	Settings string `json:"settings"` // encrypted or plain: what the VM says
	Bytes    string `json:"bytes"`    // encrypted or plain: what the disk says
	Found    string `json:"found"`    // LUKS2 aes-xts-plain64, ext4, …
	Message  string `json:"message"`
	Advice   string `json:"advice"`
}

const (
	encrypted = "encrypted"
	plain     = "plain"
)

// driftOf compares what a recovery point's bytes are with what the VM said when it was taken. A disk that
// can't be read is neither.
func driftOf(p Point) (all []Drift) {
	for _, v := range p.Verdict.Disks {
		d := Drift{Disk: v.Name, Lun: p.lunOf(v.Name), Settings: plain, Bytes: plain, Found: cmp.Or(v.Encryption, v.FileSystem, "nothing known")}
		if p.hasKeys(v.Name) {
			d.Settings = encrypted
		}
		if v.Encryption != "" {
			d.Bytes = encrypted
		}
		if d.Settings == d.Bytes || d.Bytes == plain && v.Kind != proof.NothingFound {
			continue
		}
		e := encryptionDrift(p, d)
		d.Message, d.Advice = e.Message, e.Advice
		all = append(all, d)
	}
	return all
}

func (p Point) lunOf(disk string) int {
	for _, d := range p.Disks {
		if d.Name == disk {
			return d.Lun
		}
	}
	return -1
}

func (p Point) hasKeys(disk string) bool {
	for _, k := range p.Keys {
		if k.Disk == disk {
			return true
		}
	}
	return false
}
