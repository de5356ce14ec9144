package keyvault

import (
	"context"
	"encoding/hex"
	"net/http"

	"kluis/internal/api/arm"
)

// The root key, at a subscription. The paths are ours; in Azure nobody but Azure holds it.

type sealBody struct {
	Root       string   `json:"root"` // id of the present root key; says nothing about it
	Recipients []string `json:"recipients"`
	Pending    int      `json:"pending"` // versions of keys and secrets that are still under an older root key
}

func (h management) sealStatus(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	st, err := h.s.SealStatus(ctx, r.ID.Scope())
	if err != nil {
		return nil, err
	}
	return &arm.Reply{Status: http.StatusOK, Body: sealBody{hex.EncodeToString(st.Mark[1:]), st.Recipients, st.Pending}}, nil
}

func (h management) rotateRoot(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if err := h.s.RotateRoot(ctx, r.ID.Scope()); err != nil {
		return nil, err
	}
	return h.sealStatus(ctx, r)
}

type recipientRequest struct {
	Recipient string `json:"recipient"`
}

func (h management) addRecipient(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body recipientRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if err := h.s.AddRecipient(ctx, r.ID.Scope(), body.Recipient); err != nil {
		return nil, err
	}
	return h.sealStatus(ctx, r)
}

func (h management) removeRecipient(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body recipientRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if err := h.s.RemoveRecipient(ctx, r.ID.Scope(), body.Recipient); err != nil {
		return nil, err
	}
	return h.sealStatus(ctx, r)
}
