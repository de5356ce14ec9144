package clients_test

import (
	"context"
	"encoding/base64"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/go-autorest/autorest"
	"github.com/hashicorp/go-azure-sdk/sdk/auth"
	autorestauth "github.com/hashicorp/go-azure-sdk/sdk/auth/autorest"
	"github.com/hashicorp/go-azure-sdk/sdk/environments"
	"golang.org/x/oauth2"
)

// What hashicorp/go-azure-sdk wants to know of a server, and tokens for it, which azidentity gets.

func (b *backupStory) hashicorp() environments.Api {
	return environments.ResourceManagerAPI(b.endpoint)
}

func (b *backupStory) bearer() auth.Authorizer { return bearer{b.server} }

// autorest tells a client of the older kind, of which most of recoveryservicesbackup is, where and who it is.
func (b *backupStory) autorest(c *autorest.Client) {
	c.Sender = &http.Client{Transport: b.transport}
	c.Authorizer = autorestauth.AutorestAuthorizer(b.bearer())
	c.PollingDelay = 0
}

// ctx is a context with the deadline that these clients insist on.
func (b *backupStory) ctx() context.Context {
	deadline, ok := b.t.Deadline()
	if !ok {
		return b.t.Context()
	}
	ctx, cancel := context.WithDeadline(b.t.Context(), deadline)
	b.t.Cleanup(cancel)
	return ctx
}

type bearer struct{ s *server }

// Token implements auth.Authorizer.
func (b bearer) Token(ctx context.Context, _ *http.Request) (*oauth2.Token, error) {
	t, err := b.s.credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{b.s.endpoint + "/.default"}})
	return &oauth2.Token{AccessToken: t.Token, TokenType: "Bearer", Expiry: t.ExpiresOn}, err
}

// AuxiliaryTokens implements auth.Authorizer.
func (b bearer) AuxiliaryTokens(context.Context, *http.Request) ([]*oauth2.Token, error) {
	return nil, nil
}

func base64URL(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
