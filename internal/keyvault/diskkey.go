package keyvault

import (
	"context"
	"fmt"
	"strings"

	"kluis/internal/identity"
	"kluis/internal/secret"
)

// DiskKey returns what opens a disk of a VM that starts, and what is said of it: the BEK, unwrapped by the KEK. It is
// got as the principal Azure Disk Encryption, which is let in by a key vault that is enabled for disk encryption and by
// no other, whatever its access policies or roles say, and for these two uses alone. keyURL is that of the disk's
// settings, empty where they name none; the secret must say that this key wraps it.
func (s *Service) DiskKey(ctx context.Context, secretURL, keyURL string) (about BEK, key secret.Bytes, err error) {
	who := identity.AzureDiskEncryption
	who.TenantID = s.o.TenantID
	ctx = identity.With(ctx, who)
	id, err := ParseSecretID(secretURL)
	if err != nil {
		return BEK{}, secret.Bytes{}, err
	}
	kept, err := s.Secret(ctx, id)
	if err != nil {
		return BEK{}, secret.Bytes{}, err
	}
	defer kept.Value.Wipe()
	if about, err = ReadBEK(kept.ContentType, kept.Tags); err != nil {
		return BEK{}, secret.Bytes{}, fmt.Errorf("secret %s: %w", id.Name, err)
	}
	value, err := DecodeValue(kept.Value.Reveal())
	if err != nil {
		return BEK{}, secret.Bytes{}, fmt.Errorf("%w: %w", ErrUnwrap, err)
	}
	if !about.Wrapped {
		return about, secret.New(value), nil
	}
	if named, err := ParseKeyID(keyURL); keyURL != "" && (err != nil || !strings.EqualFold(named.Name, about.Key.Name) || !strings.EqualFold(named.Vault, about.Key.Vault)) {
		return BEK{}, secret.Bytes{}, fmt.Errorf("%w: the disk's settings name %s, and the secret was wrapped by %s", ErrKeyVersionMissing, clip(keyURL), clip(about.KeyURL))
	}
	_, key, err = s.UnwrapKey(ctx, about.Key, about.Algorithm, value)
	return about, key, err
}

// admitDiskEncryption is the check for the principal Azure Disk Encryption.
func (u *use) admitDiskEncryption(v Vault) error {
	if v.EnabledForDiskEncryption && (u.operation == secretGet || u.operation == keyUnwrap) {
		return nil
	}
	return notForDiskEncryption(v)
}
