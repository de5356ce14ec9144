package backup

import (
	"cmp"

	"kluis/internal/proof"
)

// Drift is a disk whose bytes say another thing than the VM's encryption settings, or that is on its way from
// one to the other. The next restore would disappoint: a disk that is encrypted and has no key cannot be
// opened, one that is plain although it should not be is not protected, and one that is being converted may
// be neither.
type Drift struct {
	Disk     string `json:"disk"`
	Lun      int    `json:"lun"`      // -1 is the OS disk
	Settings string `json:"settings"` // encrypted or plain: what the VM says
	Bytes    string `json:"bytes"`    // encrypted, plain or converting: what the disk says
	Found    string `json:"found"`    // LUKS2 aes-xts-plain64, ext4, …
	Message  string `json:"message"`
	Advice   string `json:"advice"`
}

const (
	encrypted  = "encrypted"
	plain      = "plain"
	converting = "converting"
)

// driftOf compares what a recovery point's bytes are with what the VM said when it was taken. A disk that
// can't be read is neither, and one that opens without a key is plain.
func driftOf(p Point) (all []Drift) {
	for _, v := range p.Verdict.Disks {
		d := Drift{Disk: v.Name, Lun: p.lunOf(v.Name), Settings: plain, Bytes: plain, Found: cmp.Or(v.Encryption, v.FileSystem, "nothing known")}
		if p.hasKeys(v.Name) {
			d.Settings = encrypted
		}
		switch {
		case v.Kind == proof.Converting:
			d.Bytes, d.Found = converting, v.Reason
		case v.Encryption != "" && v.State != proof.NotEncrypted:
			d.Bytes = encrypted
		case v.State == proof.Failed && v.Kind != proof.NothingFound:
			continue
		}
		if d.Settings == d.Bytes {
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
