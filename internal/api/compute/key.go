package compute

import (
	"context"

	"kluis/internal/api/arm"
	"kluis/internal/secret"
)

// keyRequest asks whether a key opens a disk of a VM. Azure has nothing like it: it makes its keys itself.
type keyRequest struct {
	Disk string `json:"disk"` // its name; the OS disk when empty
	Key  []byte `json:"key"`  // in base64: the passphrase, or the content of a .BEK file
}

type keyAnswer struct {
	Disk       string `json:"disk"`
	Encryption string `json:"encryption"`
	FileSystem string `json:"fileSystem"`
}

// tryKey answers what the key opened, or with the error that says why it did not. Nothing of it is kept.
func (h handlers) tryKey(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body keyRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	key := secret.New(body.Key)
	defer key.Wipe()
	v, err := h.k.TryKey(ctx, r.ID, body.Disk, key)
	if err != nil {
		return nil, err
	}
	return arm.OK(keyAnswer{v.Name, v.Encryption, v.FileSystem}), nil
}
