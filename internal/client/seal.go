package client

import (
	"context"
	"net/http"
)

// Seal is how things stand with the server's root key.
type Seal struct {
	Root       string   `json:"root"`
	Recipients []string `json:"recipients"`
	Pending    int      `json:"pending"`
}

func (c *Client) seal(ctx context.Context, action string, body any) (s Seal, err error) {
	err = c.do(ctx, http.MethodPost, collection(c.Subscription(), "Microsoft.KeyVault")+"/"+action, versionKeyVault, body, &s)
	return s, err
}

// Seal tells who opens the root key, and how much is still under an older one.
func (c *Client) Seal(ctx context.Context) (Seal, error) { return c.seal(ctx, "sealStatus", nil) }

// RotateSeal makes a new root key; the server seals anew behind it.
func (c *Client) RotateSeal(ctx context.Context) (Seal, error) { return c.seal(ctx, "rotateSeal", nil) }

// AddRecipient lets one more age identity open the root key.
func (c *Client) AddRecipient(ctx context.Context, recipient string) (Seal, error) {
	return c.seal(ctx, "addSealRecipient", map[string]string{"recipient": recipient})
}

// RemoveRecipient takes one away.
func (c *Client) RemoveRecipient(ctx context.Context, recipient string) (Seal, error) {
	return c.seal(ctx, "removeSealRecipient", map[string]string{"recipient": recipient})
}
