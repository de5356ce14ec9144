package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"kluis/internal/identity"
	"kluis/internal/issuer"
)

// issuerConfig says whose tokens are believed beside this server's own, if anybody's.
type issuerConfig struct {
	Issuer       string   `yaml:"oidc-issuer"`
	Audience     []string `yaml:"oidc-audience"`
	SubjectClaim string   `yaml:"oidc-subject-claim"`
	GroupsClaim  string   `yaml:"oidc-groups-claim"`
	IssuerCA     string   `yaml:"oidc-ca-file"`
}

func (c *issuerConfig) bind(f *pflag.FlagSet) {
	f.StringVar(&c.Issuer, "oidc-issuer", c.Issuer, "URL of an OpenID Connect issuer whose tokens are believed beside this server's own; 'kluis principal trust' says whom they stand for")
	f.StringSliceVar(&c.Audience, "oidc-audience", c.Audience, "what tokens of that issuer must be for; may be given several times")
	f.StringVar(&c.SubjectClaim, "oidc-subject-claim", c.SubjectClaim, "claim that says who a token of that issuer stands for")
	f.StringVar(&c.GroupsClaim, "oidc-groups-claim", c.GroupsClaim, "claim that names his groups")
	f.StringVar(&c.IssuerCA, "oidc-ca-file", c.IssuerCA, "file of the certificate authority of that issuer (default: those of the system)")
}

// check wants to know what tokens of an issuer outside are for: without that, one for any other server would do.
func (c *issuerConfig) check() error {
	switch {
	case c.Issuer == "" && len(c.Audience) > 0:
		return errors.New("oidc-audience says what the tokens of an issuer are for, and there is no oidc-issuer")
	case c.Issuer == "":
		return nil
	case len(c.Audience) == 0 || slices.Contains(c.Audience, ""):
		return errors.New("oidc-issuer needs oidc-audience: what its tokens must be for")
	}
	if err := issuer.CheckURL(c.Issuer); err != nil {
		return fmt.Errorf("oidc-issuer: %w", err)
	}
	return nil
}

// open prepares the issuer, if there is one.
func (c *issuerConfig) open() (*issuer.Issuer, error) {
	if c.Issuer == "" {
		return nil, nil
	}
	return issuer.New(issuer.Options{URL: c.Issuer, SubjectClaim: c.SubjectClaim, GroupsClaim: c.GroupsClaim, CAFile: c.IssuerCA, Now: time.Now})
}

// outsideIssuer gives an issuer the shape that identity asks for.
type outsideIssuer struct{ *issuer.Issuer }

// believed is the issuer as identity asks for it; nil if there is none.
func believed(i *issuer.Issuer) identity.Outside {
	if i == nil {
		return nil
	}
	return outsideIssuer{i}
}

// Read implements identity.Outside.
func (o outsideIssuer) Read(ctx context.Context, token string) (identity.OutsideToken, error) {
	t, err := o.Issuer.Read(ctx, token)
	if errors.Is(err, issuer.ErrAway) {
		err = fmt.Errorf("%w: %w", identity.ErrOutsideAway, err)
	}
	return identity.OutsideToken(t), err
}
