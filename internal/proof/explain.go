package proof

// Kind tells why a disk failed, for programs: each kind has an advice of its own.
type Kind string

// The kinds.
const (
	Unreadable   Kind = "unreadable"    // the disk, or its partition table, can't be read
	WrongKey     Kind = "wrongKey"      // the key opens nothing
	NoKey        Kind = "noKey"         // it is encrypted, and there is no key for it
	NothingFound Kind = "nothingFound"  // no encryption is where it was expected
	HeaderDamage Kind = "headerDamaged" // of the encrypted volume
	Converting   Kind = "converting"    // it is being encrypted, decrypted or encrypted anew
	Unprotected  Kind = "unprotected"   // its key lies in clear on the disk
	Unsupported  Kind = "unsupported"   // it is encrypted in a way that can't be proved
	Untried      Kind = "untried"       // the key could not be had to be tried
	NoContent    Kind = "noContent"     // the key opens it, and nothing known is inside
)

var kinds = map[string]Kind{
	adviceBackUpAgain: Unreadable, adviceWrongKey: WrongKey, adviceNoKey: NoKey, adviceNoBEK: NoKey, adviceNoEncrypt: NothingFound,
	adviceHeader: HeaderDamage, adviceMetadata: HeaderDamage, adviceConversion: Converting, adviceUnprotected: Unprotected,
	adviceUnsupported: Unsupported, adviceContent: NoContent, adviceUntried: Untried,
}

// Explain adds to what was found on a disk what the bytes can't tell and its owner knows: whose the key is. A
// disk that didn't fail needs no explanation.
func (v *Verdict) Explain(disk, reason string) {
	for i := range v.Disks {
		d := &v.Disks[i]
		if d.Name != disk || d.State != Failed {
			continue
		}
		d.Reason += "; " + reason
	}
	v.Reason, v.Advice = "", ""
	v.conclude()
}
