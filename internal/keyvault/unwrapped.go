package keyvault

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"kluis/internal/identity"
	"kluis/internal/secret"
)

// The tags and the content type by which Azure Disk Encryption says how a BEK is wrapped.
const (
	TagAlgorithm      = "DiskEncryptionKeyEncryptionAlgorithm"
	TagKeyURL         = "DiskEncryptionKeyEncryptionKeyURL"
	ContentWrappedBEK = "Wrapped BEK"
	ContentBEK        = "BEK"
)

// Why a BEK can't be had from the backups of key and secret. Each is a verdict on the recovery point.
var (
	ErrSecretVersionMissing = errors.New("the backup of the secret doesn't hold this version")
	ErrKeyVersionMissing    = errors.New("the backup of the key doesn't hold the version that wraps the secret")
	ErrNotWrapped           = errors.New("the secret is not a wrapped BEK")
	ErrUnwrap               = errors.New("the key doesn't unwrap the value")
)

// Unwrapped returns the BEK from the backups of a secret and of the key that wraps it: from the two blobs alone,
// without key vault or database. It reads the tags of that version of the secret (the newest when empty),
// and unwraps its value with the version of the key that they name.
//
// A blob that doesn't open is a problem with the code BadParameter; all other errors are those above.
func (s *Service) Unwrapped(ctx context.Context, keyBlob, secretBlob []byte, secretVersion string) (secret.Bytes, error) {
	if err := ctx.Err(); err != nil {
		return secret.Bytes{}, err
	}
	bek, err := s.openBlobOf(Secrets, secretBlob)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("open backup of the secret: %w", err)
	}
	defer bek.wipe()
	kek, err := s.openBlobOf(Keys, keyBlob)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("open backup of the key: %w", err)
	}
	defer kek.wipe()

	sv, ok := bek.version(secretVersion)
	if !ok {
		return secret.Bytes{}, fmt.Errorf("%w: %s of %s", ErrSecretVersionMissing, clip(secretVersion), bek.Name)
	}
	about, err := ReadBEK(sv.Document.ContentType, sv.Document.Tags)
	if err == nil && !about.Wrapped {
		err = fmt.Errorf("%w: it has the content type %q", ErrNotWrapped, clip(sv.Document.ContentType))
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("secret %s: %w", bek.Name, err)
	}
	id := about.Key
	kv, ok := kek.version(id.Version)
	if id.Version == "" || !ok || !strings.EqualFold(id.Name, kek.Name) {
		return secret.Bytes{}, fmt.Errorf("%w: the tag names %s/%s, the backup is of %s", ErrKeyVersionMissing, id.Name, id.Version, kek.Name)
	}
	return unwrapBEK(kv, about.Algorithm, sv)
}

// Disclose is Unwrapped for a person who is to see what the BEK opens. The use is recorded, as the caller's and
// as one of the secret, before the BEK is handed out; also one that fails is. That the caller may is decided by
// whoever calls this: the key vault of an old recovery point need not be there any more.
func (s *Service) Disclose(ctx context.Context, id SecretID, keyBlob, secretBlob []byte) (secret.Bytes, error) {
	return s.Disclosed(ctx, id, func(ctx context.Context) (secret.Bytes, error) {
		return s.Unwrapped(ctx, keyBlob, secretBlob, id.Version)
	})
}

// Disclosed is Disclose for a BEK that unwrap gets: that of a secret in a key vault elsewhere, which is recorded here
// under its name there.
func (s *Service) Disclosed(ctx context.Context, id SecretID, unwrap func(context.Context) (secret.Bytes, error)) (secret.Bytes, error) {
	who, known := identity.From(ctx)
	if !known {
		return secret.Bytes{}, noPrincipal()
	}
	u := &use{s: s, operation: secretDisclose, target: target{Secrets, id.Vault, id.Name, id.Version}, who: who}
	bek, err := unwrap(ctx)
	if recordErr := u.record(ctx, err); recordErr != nil {
		bek.Wipe()
		return secret.Bytes{}, errors.Join(err, recordErr)
	}
	return bek, err
}

// unwrapBEK knows the algorithms of WrapKey; another one, a key that isn't RSA or a value that isn't base64 is the same
// ErrUnwrap, with a word on which.
func unwrapBEK(key blobVersion, algorithm string, wrapped blobVersion) (secret.Bytes, error) {
	if a := strings.ToUpper(algorithm); a != RSA15 && a != RSAOAEP && a != RSAOAEP256 {
		return secret.Bytes{}, fmt.Errorf("%w: the algorithm %q is not known", ErrUnwrap, clip(algorithm))
	}
	private, err := parsePrivate("RSA", key.Content)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: %w", ErrUnwrap, err)
	}
	value, err := DecodeValue(wrapped.Content)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: %w", ErrUnwrap, err)
	}
	return rsaDecrypt(private.rsa, algorithm, value)
}

func (s *Service) openBlobOf(kind Kind, blob []byte) (*blobDocument, error) {
	b, err := s.openBlob(blob)
	if err != nil {
		return nil, err
	}
	if b.Kind != kind {
		b.wipe()
		return nil, wrongBlob(b.Kind, kind)
	}
	return b, nil
}

// DecodeValue decodes the value of a BEK secret: base64 in either alphabet, with or without padding.
func DecodeValue(value []byte) ([]byte, error) {
	text := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(strings.TrimSpace(string(value)), "="))
	out, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("the value is not base64") // the decoder's error quotes it
	}
	return out, nil
}
