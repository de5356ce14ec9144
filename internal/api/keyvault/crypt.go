package keyvault

import (
	"context"
	"strings"

	"kluis/internal/keyvault"
	"kluis/internal/secret"
)

// What is done with keys without changing them, and their rotation.

type cryptRequest struct {
	Algorithm string `json:"alg"`
	Value     octets `json:"value"`
	Digest    octets `json:"digest"` // verify
	IV        octets `json:"iv"`
	AAD       octets `json:"aad"`
	Tag       octets `json:"tag"`
}

type cryptReply struct {
	KID   string `json:"kid"`
	Value octets `json:"value"`
	IV    octets `json:"iv,omitempty"`
	AAD   octets `json:"aad,omitempty"`
	Tag   octets `json:"tag,omitempty"`
}

// closing reads the request of what takes a plain value; f gets it, and it is wiped behind it.
func (d *dataPlane) closing(x *request, f func(cryptRequest, secret.Bytes) (keyvault.KeyID, keyvault.Ciphertext, error)) (any, error) {
	var body cryptRequest
	if err := x.decode(&body); err != nil {
		return nil, err
	}
	plain := secret.New(body.Value)
	defer plain.Wipe()
	id, c, err := f(body, plain)
	if err != nil {
		return nil, err
	}
	return cryptReply{d.s.KeyURL(id), c.Value, c.IV, c.AAD, c.Tag}, nil
}

func (d *dataPlane) wrapKey(ctx context.Context, x *request) (any, error) {
	return d.closing(x, func(body cryptRequest, plain secret.Bytes) (keyvault.KeyID, keyvault.Ciphertext, error) {
		id, value, err := d.s.WrapKey(ctx, x.keyID(), body.Algorithm, plain)
		return id, keyvault.Ciphertext{Value: value}, err
	})
}

func (d *dataPlane) encrypt(ctx context.Context, x *request) (any, error) {
	return d.closing(x, func(body cryptRequest, plain secret.Bytes) (keyvault.KeyID, keyvault.Ciphertext, error) {
		return d.s.Encrypt(ctx, x.keyID(), body.Algorithm, plain, body.IV, body.AAD)
	})
}

func (d *dataPlane) opening(x *request, f func(cryptRequest) (keyvault.KeyID, secret.Bytes, error)) (any, error) {
	var body cryptRequest
	if err := x.decode(&body); err != nil {
		return nil, err
	}
	id, out, err := f(body)
	if err != nil {
		return nil, err
	}
	return cryptReply{KID: d.s.KeyURL(id), Value: out.Reveal()}, nil
}

func (d *dataPlane) unwrapKey(ctx context.Context, x *request) (any, error) {
	return d.opening(x, func(body cryptRequest) (keyvault.KeyID, secret.Bytes, error) {
		return d.s.UnwrapKey(ctx, x.keyID(), body.Algorithm, body.Value)
	})
}

func (d *dataPlane) decrypt(ctx context.Context, x *request) (any, error) {
	return d.opening(x, func(body cryptRequest) (keyvault.KeyID, secret.Bytes, error) {
		return d.s.Decrypt(ctx, x.keyID(), body.Algorithm, keyvault.Ciphertext{Value: body.Value, IV: body.IV, AAD: body.AAD, Tag: body.Tag})
	})
}

func (d *dataPlane) sign(ctx context.Context, x *request) (any, error) {
	var body cryptRequest
	if err := x.decode(&body); err != nil {
		return nil, err
	}
	id, signature, err := d.s.Sign(ctx, x.keyID(), body.Algorithm, body.Value)
	if err != nil {
		return nil, err
	}
	return cryptReply{KID: d.s.KeyURL(id), Value: signature}, nil
}

func (d *dataPlane) verify(ctx context.Context, x *request) (any, error) {
	var body cryptRequest
	if err := x.decode(&body); err != nil {
		return nil, err
	}
	valid, err := d.s.Verify(ctx, x.keyID(), body.Algorithm, body.Digest, body.Value)
	if err != nil {
		return nil, err
	}
	return struct {
		Value bool `json:"value"`
	}{valid}, nil
}

func (d *dataPlane) releaseKey(ctx context.Context, x *request) (any, error) {
	return nil, d.s.ReleaseKey(ctx, x.keyID())
}

func (d *dataPlane) randomBytes(ctx context.Context, x *request) (any, error) {
	var body struct {
		Count int `json:"count"`
	}
	if err := x.decode(&body); err != nil {
		return nil, err
	}
	out, err := d.s.RandomBytes(ctx, x.vault, body.Count)
	if err != nil {
		return nil, err
	}
	return valueBody{out.Reveal()}, nil
}

func (d *dataPlane) rotateKey(ctx context.Context, x *request) (any, error) {
	return d.keyReply(d.s.RotateKey(ctx, x.vault, x.name))
}

type rotationPolicy struct {
	ID         string             `json:"id,omitempty"`
	Actions    []lifetimeAction   `json:"lifetimeActions"`
	Attributes rotationAttributes `json:"attributes"`
}

type lifetimeAction struct {
	Trigger lifetimeTrigger `json:"trigger"`
	Action  lifetimeType    `json:"action"`
}

type lifetimeTrigger struct {
	AfterCreate  string `json:"timeAfterCreate,omitempty"`
	BeforeExpiry string `json:"timeBeforeExpiry,omitempty"`
}

type lifetimeType struct {
	Type string `json:"type"`
}

type rotationAttributes struct {
	ExpiryTime string `json:"expiryTime,omitempty"`
	Created    int64  `json:"created,omitempty"`
	Updated    int64  `json:"updated,omitempty"`
}

func (d *dataPlane) getRotationPolicy(ctx context.Context, x *request) (any, error) {
	return d.policyReply(d.s.RotationPolicy(ctx, x.vault, x.name))
}

func (d *dataPlane) putRotationPolicy(ctx context.Context, x *request) (any, error) {
	var body rotationPolicy
	if err := x.decode(&body); err != nil {
		return nil, err
	}
	p := keyvault.RotationPolicy{Expiry: body.Attributes.ExpiryTime}
	for _, a := range body.Actions {
		t := keyvault.Trigger(a.Trigger)
		switch {
		case t == keyvault.Trigger{}:
			return nil, badParameter("lifetimeActions", "an action has no trigger")
		case strings.EqualFold(a.Action.Type, "Rotate") && p.Rotate == keyvault.Trigger{}:
			p.Rotate = t
		case strings.EqualFold(a.Action.Type, "Notify") && p.Notify == keyvault.Trigger{}:
			p.Notify = t
		default:
			return nil, badParameter("lifetimeActions", "there may be one action of type Rotate and one of type Notify")
		}
	}
	return d.policyReply(d.s.PutRotationPolicy(ctx, x.vault, x.name, p))
}

func (d *dataPlane) policyReply(p keyvault.RotationPolicy, id keyvault.KeyID, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	out := rotationPolicy{ID: d.s.KeyURL(id) + "/rotationpolicy", Actions: []lifetimeAction{},
		Attributes: rotationAttributes{p.Expiry, p.Created, p.Updated}}
	for _, a := range []struct {
		trigger keyvault.Trigger
		typ     string
	}{{p.Rotate, "Rotate"}, {p.Notify, "Notify"}} {
		if a.trigger != (keyvault.Trigger{}) {
			out.Actions = append(out.Actions, lifetimeAction{lifetimeTrigger(a.trigger), lifetimeType{a.typ}})
		}
	}
	return out, nil
}
