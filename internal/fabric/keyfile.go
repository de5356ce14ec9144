package fabric

import "kluis/internal/secret"

// KeyFile is a file of the volume from which a guest takes the keys of its disks when it boots.
type KeyFile struct {
	Name string
	Key  secret.Bytes
}
