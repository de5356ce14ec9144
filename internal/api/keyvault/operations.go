package keyvault

import (
	"context"

	"kluis/internal/keyvault"
	"kluis/internal/secret"
)

func (x *request) keyID() keyvault.KeyID {
	return keyvault.KeyID{Vault: x.vault, Name: x.name, Version: x.version}
}

func (x *request) secretID() keyvault.SecretID {
	return keyvault.SecretID{Vault: x.vault, Name: x.name, Version: x.version}
}

type valueBody struct {
	Value octets `json:"value"`
}

// Keys.

func (d *dataPlane) createKey(ctx context.Context, x *request) (any, error) {
	var body struct {
		Type       string            `json:"kty"`
		Size       int               `json:"key_size"`
		Exponent   int               `json:"public_exponent"`
		Operations []string          `json:"key_ops"`
		Curve      string            `json:"crv"`
		Attributes *attributes       `json:"attributes"`
		Tags       map[string]string `json:"tags"`
	}
	if err := x.decode(&body); err != nil {
		return nil, err
	}
	if body.Exponent != 0 && body.Exponent != 65537 {
		return nil, badParameter("public_exponent", "only 65537 is supported")
	}
	if err := body.Attributes.notExportable(); err != nil {
		return nil, err
	}
	c, err := body.Attributes.change(body.Tags, nil, body.Operations)
	if err != nil {
		return nil, err
	}
	return d.keyReply(d.s.CreateKey(ctx, x.vault, x.name, keyvault.NewKey{Type: body.Type, Size: body.Size, Curve: body.Curve, Change: c}))
}

// notExportable refuses to promise what will not be: a private key leaves only inside a backup.
func (a *attributes) notExportable() error {
	if a != nil && a.Exportable != nil && *a.Exportable {
		return badParameter("attributes.exportable", "keys can't be exported")
	}
	return nil
}

func (d *dataPlane) importKey(ctx context.Context, x *request) (any, error) {
	var body struct {
		Key        jsonWebKey        `json:"key"`
		Attributes *attributes       `json:"attributes"`
		Tags       map[string]string `json:"tags"`
	}
	if err := x.decode(&body); err != nil {
		return nil, err
	}
	jwk := body.Key.imported()
	defer jwk.Wipe()
	if err := body.Attributes.notExportable(); err != nil {
		return nil, err
	}
	c, err := body.Attributes.change(body.Tags, nil, nil)
	if err != nil {
		return nil, err
	}
	return d.keyReply(d.s.ImportKey(ctx, x.vault, x.name, jwk, c))
}

func (d *dataPlane) getKey(ctx context.Context, x *request) (any, error) {
	return d.keyReply(d.s.Key(ctx, x.keyID()))
}

func (d *dataPlane) updateKey(ctx context.Context, x *request) (any, error) {
	var body struct {
		Operations []string          `json:"key_ops"`
		Attributes *attributes       `json:"attributes"`
		Tags       map[string]string `json:"tags"`
	}
	if err := x.decode(&body); err != nil {
		return nil, err
	}
	c, err := body.Attributes.change(body.Tags, nil, body.Operations)
	if err != nil {
		return nil, err
	}
	return d.keyReply(d.s.UpdateKey(ctx, x.keyID(), c))
}

func (d *dataPlane) deleteKey(ctx context.Context, x *request) (any, error) {
	return d.keyReply(d.s.DeleteKey(ctx, x.vault, x.name))
}

func (d *dataPlane) getDeletedKey(ctx context.Context, x *request) (any, error) {
	return d.keyReply(d.s.DeletedKey(ctx, x.vault, x.name))
}

func (d *dataPlane) recoverKey(ctx context.Context, x *request) (any, error) {
	return d.keyReply(d.s.RecoverKey(ctx, x.vault, x.name))
}

func (d *dataPlane) purgeKey(ctx context.Context, x *request) (any, error) {
	return nil, d.s.PurgeKey(ctx, x.vault, x.name)
}

func (d *dataPlane) listKeys(ctx context.Context, x *request) (any, error) {
	return d.keyList(x, false, func(p keyvault.Page) ([]keyvault.Key, string, error) { return d.s.Keys(ctx, x.vault, p) })
}

func (d *dataPlane) listDeletedKeys(ctx context.Context, x *request) (any, error) {
	return d.keyList(x, false, func(p keyvault.Page) ([]keyvault.Key, string, error) { return d.s.DeletedKeys(ctx, x.vault, p) })
}

func (d *dataPlane) listKeyVersions(ctx context.Context, x *request) (any, error) {
	return d.keyList(x, true, func(p keyvault.Page) ([]keyvault.Key, string, error) { return d.s.KeyVersions(ctx, x.vault, x.name, p) })
}

func (d *dataPlane) keyList(x *request, versioned bool, get func(keyvault.Page) ([]keyvault.Key, string, error)) (any, error) {
	p, err := x.page()
	if err != nil {
		return nil, err
	}
	keys, next, err := get(p)
	if err != nil {
		return nil, err
	}
	return list(x, keys, next, func(k keyvault.Key) keyItem { return d.keyItem(k, versioned) }), nil
}

func (d *dataPlane) backUpKey(ctx context.Context, x *request) (any, error) {
	blob, err := d.s.BackUpKey(ctx, x.keyID())
	return valueBody{blob}, err
}

func (d *dataPlane) restoreKey(ctx context.Context, x *request) (any, error) {
	var body valueBody
	if err := x.decode(&body); err != nil {
		return nil, err
	}
	return d.keyReply(d.s.RestoreKey(ctx, x.vault, body.Value))
}

func (d *dataPlane) keyReply(k keyvault.Key, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return d.keyBundle(k), nil
}

// Secrets.

func (d *dataPlane) setSecret(ctx context.Context, x *request) (any, error) {
	var body struct {
		Value       *string           `json:"value"`
		ContentType *string           `json:"contentType"`
		Attributes  *attributes       `json:"attributes"`
		Tags        map[string]string `json:"tags"`
	}
	if err := x.decode(&body); err != nil {
		return nil, err
	}
	if body.Value == nil {
		return nil, badParameter("value", "it is missing")
	}
	c, err := body.Attributes.change(body.Tags, body.ContentType, nil)
	if err != nil {
		return nil, err
	}
	s, err := d.s.SetSecret(ctx, x.vault, x.name, secret.New([]byte(*body.Value)), c)
	if err != nil {
		return nil, err
	}
	return d.secretValue(s), nil
}

func (d *dataPlane) getSecret(ctx context.Context, x *request) (any, error) {
	s, err := d.s.Secret(ctx, x.secretID())
	if err != nil {
		return nil, err
	}
	return d.secretValue(s), nil
}

func (d *dataPlane) updateSecret(ctx context.Context, x *request) (any, error) {
	var body struct {
		ContentType *string           `json:"contentType"`
		Attributes  *attributes       `json:"attributes"`
		Tags        map[string]string `json:"tags"`
	}
	if err := x.decode(&body); err != nil {
		return nil, err
	}
	c, err := body.Attributes.change(body.Tags, body.ContentType, nil)
	if err != nil {
		return nil, err
	}
	return d.secretReply(d.s.UpdateSecret(ctx, x.secretID(), c))
}

func (d *dataPlane) deleteSecret(ctx context.Context, x *request) (any, error) {
	return d.secretReply(d.s.DeleteSecret(ctx, x.vault, x.name))
}

func (d *dataPlane) getDeletedSecret(ctx context.Context, x *request) (any, error) {
	return d.secretReply(d.s.DeletedSecret(ctx, x.vault, x.name))
}

func (d *dataPlane) recoverSecret(ctx context.Context, x *request) (any, error) {
	return d.secretReply(d.s.RecoverSecret(ctx, x.vault, x.name))
}

func (d *dataPlane) purgeSecret(ctx context.Context, x *request) (any, error) {
	return nil, d.s.PurgeSecret(ctx, x.vault, x.name)
}

func (d *dataPlane) listSecrets(ctx context.Context, x *request) (any, error) {
	return d.secretList(x, false, func(p keyvault.Page) ([]keyvault.Secret, string, error) { return d.s.Secrets(ctx, x.vault, p) })
}

func (d *dataPlane) listDeletedSecrets(ctx context.Context, x *request) (any, error) {
	return d.secretList(x, false, func(p keyvault.Page) ([]keyvault.Secret, string, error) { return d.s.DeletedSecrets(ctx, x.vault, p) })
}

func (d *dataPlane) listSecretVersions(ctx context.Context, x *request) (any, error) {
	return d.secretList(x, true, func(p keyvault.Page) ([]keyvault.Secret, string, error) {
		return d.s.SecretVersions(ctx, x.vault, x.name, p)
	})
}

func (d *dataPlane) secretList(x *request, versioned bool, get func(keyvault.Page) ([]keyvault.Secret, string, error)) (any, error) {
	p, err := x.page()
	if err != nil {
		return nil, err
	}
	secrets, next, err := get(p)
	if err != nil {
		return nil, err
	}
	return list(x, secrets, next, func(s keyvault.Secret) secretBundle { return d.secretBundle(s, versioned) }), nil
}

func (d *dataPlane) backUpSecret(ctx context.Context, x *request) (any, error) {
	blob, err := d.s.BackUpSecret(ctx, x.secretID())
	return valueBody{blob}, err
}

func (d *dataPlane) restoreSecret(ctx context.Context, x *request) (any, error) {
	var body valueBody
	if err := x.decode(&body); err != nil {
		return nil, err
	}
	return d.secretReply(d.s.RestoreSecret(ctx, x.vault, body.Value))
}

func (d *dataPlane) secretReply(s keyvault.Secret, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return d.secretBundle(s, true), nil
}
