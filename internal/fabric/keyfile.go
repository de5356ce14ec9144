package fabric

import (
	"fmt"
	"strings"

	"kluis/internal/secret"
)

// KeyFile is a file of the volume from which a guest takes the keys of its disks when it boots.
type KeyFile struct {
	Name string
	Key  secret.Bytes
}

// linuxKeyFile is the name of a passphrase's file on a Linux guest's volume; that of a data disk has its place behind it.
const linuxKeyFile = "LinuxPassPhraseFileName"

// KeyFileName is the name under which a guest looks for the key of a disk. said is what the secret says of it, which may
// be nothing; first tells the first of the keys, lun the disk's place.
func KeyFileName(said string, first bool, lun int) string {
	if said != "" && !strings.EqualFold(said, linuxKeyFile) {
		return said
	}
	if first {
		return linuxKeyFile
	}
	return fmt.Sprintf("%s_1_%d", linuxKeyFile, lun)
}
