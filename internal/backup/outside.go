package backup

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/keyservice"
	"kluis/internal/keyvault"
	"kluis/internal/secret"
)

// The keys of a VM may lie in a key vault outside this server: one in Azure, or that of another server. It is known by
// the host in the URLs of key and secret. What differs: who may read is decided there, by permissions that are found out
// by trying; its backups are opaque here, so that a proof needs the key vault's unwrapKey; and this server gives the
// backups back itself, for a caller has no credentials there.

// Outside asks key vaults outside this server. Errors are those of package keyservice.
type Outside interface {
	// Knows tells whether the key vault of a key or secret may be asked.
	Knows(url string) bool
	// Missing returns which of the template's permissions a backup of the two would lack.
	Missing(ctx context.Context, keyURL, secretURL string) (keys, secrets []string, err error)
	Key(ctx context.Context, url string) error
	Secret(ctx context.Context, url string) (keyservice.Secret, error)
	BackUp(ctx context.Context, url string) ([]byte, error)
	Restore(ctx context.Context, url string, blob []byte) (restored string, err error)
	UnwrapKey(ctx context.Context, keyURL, algorithm string, wrapped []byte) (secret.Bytes, error)
}

// provedOutside is what stands on the verdict of a disk whose BEK an outside key vault unwrapped.
const provedOutside = "the key was unwrapped by the key vault %s; its backups of key and secret in the recovery point can be opened by it alone and were not"

// liesOutside tells whether the pair of a disk lies in key vaults outside. Both do or none: a pair of which one half can be
// opened here and the other can't could be neither proved nor restored as a whole.
func (s *Service) liesOutside(vm armid.ID, e compute.DiskEncryption) (bool, error) {
	if s.o.Outside == nil {
		return false, nil
	}
	key, secret := s.o.Outside.Knows(e.KeyURL), s.o.Outside.Knows(e.SecretURL)
	if key != secret {
		return false, keysInTwoPlaces(vm, e)
	}
	return key, nil
}

// checkOutside does what a backup will do with key and secret, and stores nothing.
func (s *Service) checkOutside(ctx context.Context, vm armid.ID, keyURL, secretURL string) error {
	keys, secrets, err := s.o.Outside.Missing(ctx, keyURL, secretURL)
	if err != nil {
		return outsideFailure(err)
	}
	if missing := (keyvault.Permissions{Keys: keys, Secrets: secrets}); !missing.IsZero() {
		return outsidePermissions(vm, vaultHost(secretURL), missing)
	}
	return nil
}

// pairKeeper is where key and secret of a disk are kept.
type pairKeeper interface {
	secret(ctx context.Context) (keyvault.Secret, error)
	backUpSecret(ctx context.Context) ([]byte, error)
	backUpKey(ctx context.Context) ([]byte, error)
	// unwrapped is the BEK, from the two backups where they can be opened here.
	unwrapped(ctx context.Context, keyBlob, secretBlob []byte, current keyvault.Secret) (secret.Bytes, error)
}

func (s *Service) keeperOf(vm armid.ID, e compute.DiskEncryption) (pairKeeper, error) {
	outside, err := s.liesOutside(vm, e)
	if err != nil {
		return nil, err
	}
	if outside {
		return outsidePair{s.o.Outside, e.KeyURL, e.SecretURL}, nil
	}
	keyID, err := keyvault.ParseKeyID(e.KeyURL)
	if err != nil {
		return nil, keyNotReadable("key", e.KeyURL, err)
	}
	secretID, err := keyvault.ParseSecretID(e.SecretURL)
	if err != nil {
		return nil, keyNotReadable("secret", e.SecretURL, err)
	}
	return ownPair{s.o.Keys, keyID, secretID}, nil
}

// ownPair is kept by the key vault of this server.
type ownPair struct {
	keys Keys
	kek  keyvault.KeyID
	bek  keyvault.SecretID
}

func (p ownPair) secret(ctx context.Context) (keyvault.Secret, error) {
	return p.keys.Secret(ctx, p.bek)
}

func (p ownPair) backUpSecret(ctx context.Context) ([]byte, error) {
	return p.keys.BackUpSecret(ctx, p.bek)
}

func (p ownPair) backUpKey(ctx context.Context) ([]byte, error) { return p.keys.BackUpKey(ctx, p.kek) }

func (p ownPair) unwrapped(ctx context.Context, keyBlob, secretBlob []byte, _ keyvault.Secret) (secret.Bytes, error) {
	return p.keys.Unwrapped(ctx, keyBlob, secretBlob, p.bek.Version)
}

// outsidePair is kept by key vaults outside.
type outsidePair struct {
	outside        Outside
	keyURL, bekURL string
}

func (p outsidePair) secret(ctx context.Context) (keyvault.Secret, error) {
	s, err := p.outside.Secret(ctx, p.bekURL)
	return keyvault.Secret{ContentType: s.ContentType, Tags: s.Tags, Value: s.Value}, outsideFailure(err)
}

func (p outsidePair) backUpSecret(ctx context.Context) ([]byte, error) {
	blob, err := p.outside.BackUp(ctx, p.bekURL)
	return blob, outsideFailure(err)
}

func (p outsidePair) backUpKey(ctx context.Context) ([]byte, error) {
	blob, err := p.outside.BackUp(ctx, p.keyURL)
	return blob, outsideFailure(err)
}

func (p outsidePair) unwrapped(ctx context.Context, _, _ []byte, current keyvault.Secret) (secret.Bytes, error) {
	by, err := wrapperOf(current)
	if err != nil {
		return secret.Bytes{}, err
	}
	return unwrapOutside(ctx, p.outside, by, current.Value.Reveal())
}

// wrappedBy says by which key outside a BEK is wrapped. It stands in the recovery point, where the secret's tags can't be
// read.
type wrappedBy struct {
	Key       string `json:"key"`
	Algorithm string `json:"algorithm"`
}

// wrapperOf reads what a secret's tags say of its wrapping.
func wrapperOf(s keyvault.Secret) (wrappedBy, error) {
	said, err := keyvault.ReadBEK(s.ContentType, s.Tags)
	if err == nil && !said.Wrapped {
		err = fmt.Errorf("%w: it has the content type %s", keyvault.ErrNotWrapped, keyvault.ContentBEK)
	}
	if err != nil {
		return wrappedBy{}, err
	}
	return wrappedBy{said.KeyURL, said.Algorithm}, nil
}

func unwrapOutside(ctx context.Context, o Outside, by wrappedBy, value []byte) (secret.Bytes, error) {
	wrapped, err := keyvault.DecodeValue(value)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: %w", keyvault.ErrUnwrap, err)
	}
	return o.UnwrapKey(ctx, by.Key, by.Algorithm, wrapped)
}

// untried is why a BEK could not be tried, which says nothing of whether it opens the disk; nil if it says something.
func untried(err error) error {
	switch keyservice.KindOf(err) {
	case keyservice.Denied, keyservice.Unauthenticated, keyservice.NotConfigured, keyservice.Unreachable:
		return fmt.Errorf("the key vault outside did not unwrap the key: %w", err)
	}
	return nil
}

// discloseOutside unwraps a BEK for the caller, as whose use of the secret it is recorded here; the key vault outside
// has a record of its own.
func (s *Service) discloseOutside(ctx context.Context, k KeyBackup) (secret.Bytes, error) {
	id, err := keyvault.ParseSecretID(k.SecretURL)
	if err != nil {
		return secret.Bytes{}, err
	}
	return s.o.Keys.Disclosed(ctx, id, func(ctx context.Context) (secret.Bytes, error) {
		if s.o.Outside == nil {
			return secret.Bytes{}, outsideNotConfigured(vaultHost(k.SecretURL))
		}
		return unwrapOutside(ctx, s.o.Outside, *k.Outside, k.Wrapped)
	})
}

// absentOutside names what of a pair its key vault outside does not have.
func (s *Service) absentOutside(ctx context.Context, vm armid.ID, k KeyPair) (gone []string, err error) {
	if s.o.Outside == nil || !s.o.Outside.Knows(k.KeyURL) || !s.o.Outside.Knows(k.SecretURL) {
		return nil, outsideNotConfigured(vaultHost(k.SecretURL))
	}
	missing := keyvault.Permissions{}
	for _, look := range []struct {
		what, url string
		denied    *[]string
		call      func() error
	}{
		{"key", k.KeyURL, &missing.Keys, func() error { return s.o.Outside.Key(ctx, k.KeyURL) }},
		{"secret", k.SecretURL, &missing.Secrets, func() error {
			found, err := s.o.Outside.Secret(ctx, k.SecretURL)
			found.Value.Wipe()
			return err
		}},
	} {
		switch err := look.call(); keyservice.KindOf(err) {
		case keyservice.NotFound:
			gone = append(gone, look.what+" "+look.url)
		case keyservice.Denied:
			*look.denied = append(*look.denied, "get")
		default:
			if err != nil {
				return nil, outsideFailure(err)
			}
		}
	}
	if !missing.IsZero() {
		return nil, outsidePermissions(vm, vaultHost(k.SecretURL), missing)
	}
	return gone, nil
}

// RestoredKey is a key or secret that was given back to its key vault, or was there all the time.
type RestoredKey struct {
	Kind    keyvault.Kind
	URL     string
	Existed bool
}

// RestoreKeys gives the backups of keys and secrets in a recovery point back to the key vaults outside this server from
// which they came. Those of this server's own key vaults are given back by who may restore there. Each is
// restored once, however many disks share it; one that lives is left alone.
func (s *Service) RestoreKeys(ctx context.Context, point armid.ID) (done []RestoredKey, err error) {
	if err := s.o.Authorizer.Authorize(ctx, pointActions+"/restore/action", vaultOf(point)); err != nil {
		return nil, err
	}
	keys, err := s.PointKeys(ctx, point)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, k := range keys {
		if k.Outside == nil {
			continue
		}
		if s.o.Outside == nil {
			return nil, outsideNotConfigured(vaultHost(k.SecretURL))
		}
		for _, one := range []struct {
			kind keyvault.Kind
			url  string
			blob []byte
		}{{keyvault.Keys, k.KeyURL, k.KeyBlob}, {keyvault.Secrets, k.SecretURL, k.SecretBlob}} {
			if seen[one.url] {
				continue
			}
			seen[one.url] = true
			restored, err := s.o.Outside.Restore(ctx, one.url, one.blob)
			lives := keyservice.KindOf(err) == keyservice.Conflict && !inSoftDelete(err)
			if err != nil && !lives {
				return done, outsideRestoreFailure(err)
			}
			if lives {
				restored = one.url
			}
			done = append(done, RestoredKey{one.kind, restored, lives})
			s.o.Log.Info("a key or secret was given back to a key vault outside", "point", point.String(), "url", restored, "existed", lives)
		}
	}
	if len(done) == 0 {
		return nil, noKeysOutside(point)
	}
	return done, nil
}

// attachKeys attaches what a key vault made of a disk's pair, and notes it on the point.
func (b *backupRun) attachKeys(i int, e compute.DiskEncryption, keyBlob, secretBlob []byte, current keyvault.Secret) error {
	pair := KeyPair{Disk: e.DiskID.Name(), Lun: e.Lun, SecretURL: e.SecretURL, SecretVault: e.SecretVault, KeyURL: e.KeyURL, KeyVault: e.KeyVault, FileName: fileNameOf(current)}
	outside, err := b.s.liesOutside(b.vm.ID, e)
	if err != nil {
		return err
	}
	// What is not wrapped must not leave its key vault: of such a secret the point has the key vault's backup alone.
	wrapped := current.Value.Reveal()
	by, err := wrapperOf(current)
	switch {
	case err != nil && outside:
		return secretNotWrapped(b.vm.ID, e, err)
	case err != nil:
		wrapped = nil
	case outside:
		pair.Outside = &by
	}
	for name, data := range map[string][]byte{keyAttachment(i): keyBlob, secretAttachment(i): secretBlob, wrappedAttachment(i): wrapped} {
		if err := b.writer.Attach(name, data); err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
	}
	b.point.Keys = append(b.point.Keys, pair)
	return nil
}

// fileNameOf is what a secret says of the name under which a guest looks for it. What is wrong with the secret is not
// said here.
func fileNameOf(s keyvault.Secret) string {
	about, _ := keyvault.ReadBEK(s.ContentType, s.Tags)
	return about.FileName
}

// unwrappedBy is what a verdict says of where a disk's BEK came from; empty where it came from the recovery point.
func (p Point) unwrappedBy(disk string) string {
	for _, k := range p.Keys {
		if k.Disk == disk && k.Outside != nil {
			return fmt.Sprintf(provedOutside, vaultHost(k.Outside.Key))
		}
	}
	return ""
}

// inSoftDelete tells a name that is taken by what was deleted from one that lives.
func inSoftDelete(err error) bool {
	e, ok := errors.AsType[*keyservice.Error](err)
	return ok && (e.Code == "ObjectIsDeletedButRecoverable" || e.Code == "ObjectIsBeingDeleted")
}

// vaultHost is the host in the URL of a key or secret.
func vaultHost(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	return u.Host
}
