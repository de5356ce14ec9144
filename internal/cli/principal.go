package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kluis/internal/client"
)

var principalColumns = []column[client.Principal]{
	{"Name", func(p client.Principal) string { return p.Properties.DisplayName }},
	{"Client id", func(p client.Principal) string { return p.Properties.AppID }},
	{"Object id", func(p client.Principal) string { return p.Name }},
	{"State", stateOf},
}

func stateOf(p client.Principal) string {
	switch {
	case p.Properties.BuiltIn:
		return "Built-in"
	case p.Properties.Enabled:
		return "Enabled"
	}
	return "Disabled"
}

func rolesOf(p client.Principal) string {
	lines := make([]string, len(p.Properties.Roles))
	for i, r := range p.Properties.Roles {
		lines[i] = r.RoleName + " at " + r.Scope
	}
	return strings.Join(lines, "\n\t")
}

var onePrincipal = append(principalColumns[:len(principalColumns):len(principalColumns)],
	column[client.Principal]{"Credentials", credentialsOf},
	column[client.Principal]{"Roles", rolesOf},
	column[client.Principal]{"Redirect URIs", func(p client.Principal) string { return strings.Join(p.Properties.Redirects, "\n\t") }},
	column[client.Principal]{"Client secret", func(p client.Principal) string { return p.Properties.SecretText }},
)

func credentialsOf(p client.Principal) string {
	lines := make([]string, len(p.Properties.Credentials))
	for i, c := range p.Properties.Credentials {
		lines[i] = describe(c)
	}
	return strings.Join(lines, "\n\t")
}

func describe(c client.Credential) string {
	words := []string{c.KeyID, c.Kind}
	for _, word := range []string{c.Thumbprint, c.DisplayName, c.Issuer} {
		if word != "" {
			words = append(words, word)
		}
	}
	if c.End != "" {
		words = append(words, "until "+c.End)
	}
	return strings.Join(words, " ")
}

func principalCommand() *cobra.Command {
	list := verb("list", "List who may log in", "kluis principal list", cobra.NoArgs, func(c *call) error {
		all, err := c.applications()
		if err != nil {
			return err
		}
		return table(c, all, rawOf, principalColumns)
	})
	show := verb("show PRINCIPAL", "Show a principal with its credentials and roles", "kluis principal show ci", cobra.ExactArgs(1), func(c *call) error {
		id, err := c.principal(c.args[0])
		if err != nil {
			return err
		}
		p, err := c.Principal(c.ctx(), id)
		if err != nil {
			return err
		}
		return details(c, p, rawOf, onePrincipal)
	})
	remove := verb("delete PRINCIPAL", "Delete a principal; its tokens stop working at once", "kluis principal delete ci", cobra.ExactArgs(1), func(c *call) error {
		id, err := c.principal(c.args[0])
		if err != nil {
			return err
		}
		if err := c.DeletePrincipal(c.ctx(), id); err != nil {
			return err
		}
		c.done("Deleted principal %s.", c.args[0])
		return nil
	})
	return noun("principal", "Applications that may log in",
		"A principal is an application that logs in with a client secret or a certificate. What it may do is said by its roles. PRINCIPAL is a name, a client id or an object id.\nPeople are principals, too: see 'kluis user'.",
		principalCreate(), list, show, principalRotate(), principalRedirects(), principalTrust(), principalUntrust(), remove, principalRotateSigningKey(),
		principalEnable("disable", "Keep a principal from logging in; its tokens stop working at once", false),
		principalEnable("enable", "Let a disabled principal log in again", true))
}

func credentialFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().String("certificate", "", "file of an X.509 certificate (PEM) to log in with, instead of a secret")
	cmd.Flags().String("expires", "", "day or time at which the credential ends, such as 2027-01-31 (default: never, or with the certificate)")
	return cmd
}

// newCredential is what the flags ask for.
func (c *call) newCredential() (n client.NewCredential, err error) {
	if end := c.flag("expires"); end != "" {
		at, err := time.Parse(time.DateOnly, end)
		if err != nil {
			at, err = time.Parse(time.RFC3339, end)
		}
		if err != nil {
			return n, usagef("--expires %s: it is neither a day, such as 2027-01-31, nor a time, such as 2027-01-31T12:00:00Z", end)
		}
		n.End = at.UTC().Format(time.RFC3339)
	}
	if file := c.flag("certificate"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return n, fmt.Errorf("read certificate: %w", err)
		}
		if strings.Contains(string(text), "PRIVATE KEY") {
			return n, usagef("%s holds a private key, which never leaves its owner; give the certificate alone", file)
		}
		n.Certificate = string(text)
	}
	return n, nil
}

func principalCreate() *cobra.Command {
	cmd := verb("create NAME", "Create a principal, with a client secret or a certificate",
		`kluis principal create ci --role "Backup Operator" -g prod
kluis principal create terraform --role Contributor --certificate terraform.pem`, cobra.ExactArgs(1), func(c *call) error {
			n, err := c.newCredential()
			if err != nil {
				return err
			}
			n.DisplayName, n.Role = c.args[0], c.flag("role")
			if n.Role != "" {
				n.Scope = c.scope().String()
			}
			p, err := c.CreatePrincipal(c.ctx(), n)
			if err != nil {
				return err
			}
			return details(c, p, rawOf, onePrincipal)
		})
	cmd.Long = `Create a principal, with a client secret or a certificate. The secret is printed once and can't be had again later. With --role it
gets a role: at the resource group if one is given, else at the subscription.`
	cmd.Flags().String("role", "", "name of a role, such as 'Backup Operator'")
	return credentialFlags(cmd)
}

func principalRotate() *cobra.Command {
	cmd := verb("rotate PRINCIPAL", "Make a new client secret, or register a new certificate, in place of those there are",
		`kluis principal rotate ci
kluis principal rotate ci --keep --expires 2027-01-31   # the old ones still work`, cobra.ExactArgs(1), func(c *call) error {
			id, err := c.principal(c.args[0])
			if err != nil {
				return err
			}
			old, err := c.Principal(c.ctx(), id)
			if err != nil {
				return err
			}
			if old.Properties.AppID == c.ClientID() && !c.is("keep") {
				return &client.Error{Code: "OwnCredentials", Target: id, Message: "This is the principal that the command itself uses, by the admin file.",
					Advice: "Use --keep and write the new secret into the file; or remove the file and start the server again, which then makes a new secret."}
			}
			n, err := c.newCredential()
			if err != nil {
				return err
			}
			added, err := c.AddCredential(c.ctx(), id, n)
			if err != nil {
				return err
			}
			if !c.is("keep") {
				for _, previous := range old.Properties.Credentials {
					if previous.Issuer != "" { // what is trusted outside is another matter
						continue
					}
					if err := c.RemoveCredential(c.ctx(), id, previous.KeyID); err != nil {
						return err
					}
				}
			}
			return details(c, added, itself, []column[client.Credential]{
				{"Credential", describe},
				{"Client secret", func(added client.Credential) string { return added.SecretText }},
			})
		})
	cmd.Long = `Make a new client secret, or register a new certificate, in place of those there are. The old ones stop working, unless --keep is
given; tokens that were got with them are good for up to an hour more.`
	cmd.Flags().Bool("keep", false, "let the old secrets and certificates work on")
	return credentialFlags(cmd)
}

func principalRotateSigningKey() *cobra.Command {
	cmd := verb("rotate-signing-key", "Make a new key that signs the tokens of all principals", "kluis principal rotate-signing-key", cobra.NoArgs, func(c *call) error {
		keys, err := c.RotateSigningKey(c.ctx(), c.is("revoke-tokens"))
		if err != nil {
			return err
		}
		return table(c, keys, itself, []column[client.Credential]{
			{"Key", func(k client.Credential) string { return k.KeyID }},
			{"Since", func(k client.Credential) string { return k.Start }},
		})
	})
	cmd.Long = `Make a new key that signs the tokens of all principals. The server does so by itself every 30 days. Tokens of the key before
stay good until they end, within the hour; with --revoke-tokens they are refused at once, for when the key may have been copied, and
every client gets new ones with its secret or refresh token. What is printed are the keys that are believed, the one that signs first.`
	cmd.Flags().Bool("revoke-tokens", false, "refuse all tokens that were signed before")
	return cmd
}

func principalTrust() *cobra.Command {
	cmd := verb("trust PRINCIPAL", "Let the holders of tokens of another issuer act as a principal", `
kluis principal trust ci --subject system:serviceaccount:build:runner
kluis principal trust operators --group backup-operators`, cobra.ExactArgs(1), func(c *call) error {
		if (c.flag("subject") == "") == (c.flag("group") == "") {
			return usagef("say either --subject or --group")
		}
		id, err := c.anybody(c.args[0])
		if err != nil {
			return err
		}
		added, err := c.Trust(c.ctx(), id, client.Outside{Issuer: c.flag("issuer"), Subject: c.flag("subject"), Group: c.flag("group")})
		if err != nil {
			return err
		}
		return details(c, added, itself, []column[client.Credential]{{"Credential", describe}})
	})
	cmd.Long = `Let the holders of tokens of another issuer act as a principal, with its roles: those whose token names the subject, or the
group. A subject goes before groups; a token whose groups are trusted by several principals is refused.
The issuer is the one that the server is told of (kluis serve --oidc-issuer). PRINCIPAL may be a person, too.`
	cmd.Flags().String("subject", "", "who it is, as the token names him (claim sub, unless the server is told otherwise)")
	cmd.Flags().String("group", "", "a group, as the token names it (claim groups, unless the server is told otherwise)")
	cmd.Flags().String("issuer", "", "URL of the issuer (default: the one that the server is told of)")
	return cmd
}

func principalUntrust() *cobra.Command {
	return verb("untrust PRINCIPAL CREDENTIAL", "Take away what 'trust' gave; the id is shown by 'show'",
		"kluis principal untrust ci 0f9b7f43-90a4-4c36-8c8c-6e0e5d8f2a11", cobra.ExactArgs(2), func(c *call) error {
			id, err := c.anybody(c.args[0])
			if err != nil {
				return err
			}
			if err := c.RemoveCredential(c.ctx(), id, c.args[1]); err != nil {
				return err
			}
			c.done("Removed %s.", c.args[1])
			return nil
		})
}

func principalRedirects() *cobra.Command {
	cmd := verb("set-redirect-uris PRINCIPAL [URI...]", "Say where people who sign in to an application are led back to",
		"kluis principal set-redirect-uris portal https://portal.example.com/signed-in", cobra.MinimumNArgs(1), func(c *call) error {
			id, err := c.principal(c.args[0])
			if err != nil {
				return err
			}
			p, err := c.SetRedirectURIs(c.ctx(), id, c.args[1:])
			if err != nil {
				return err
			}
			return details(c, p, rawOf, onePrincipal)
		})
	cmd.Long = `Say where people who sign in to an application are led back to: https URLs, or http ones on the machine itself, each exactly
as the application sends it. Those from before are forgotten; without a URI nobody can sign in to the application any more.`
	return cmd
}

func principalEnable(word, short string, enabled bool) *cobra.Command {
	return verb(word+" PRINCIPAL", short, "kluis principal "+word+" ci", cobra.ExactArgs(1), func(c *call) error {
		id, err := c.principal(c.args[0])
		if err != nil {
			return err
		}
		p, err := c.EnablePrincipal(c.ctx(), id, enabled)
		if err != nil {
			return err
		}
		return details(c, p, rawOf, onePrincipal)
	})
}

// anybody finds the object id of an application or a person.
func (c *call) anybody(name string) (string, error) {
	id, err := c.principal(name)
	if e, ok := errors.AsType[*client.Error](err); ok && e.Code == "PrincipalNotFound" {
		if person, personErr := c.user(name); personErr == nil {
			return person, nil
		}
	}
	return id, err
}

// applications are the principals that are no people.
func (c *call) applications() ([]client.Principal, error) {
	all, err := c.Principals(c.ctx())
	return slices.DeleteFunc(all, func(p client.Principal) bool { return p.Properties.Kind == client.KindUser }), err
}

// principal finds the object id of an application by its name, its client id or its object id.
func (c *call) principal(name string) (string, error) {
	all, err := c.applications()
	if err != nil {
		return "", err
	}
	var found []string
	for _, p := range all {
		if name == p.Properties.DisplayName || strings.EqualFold(name, p.Properties.AppID) || strings.EqualFold(name, p.Name) {
			found = append(found, p.Name)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", &client.Error{Code: "PrincipalNotFound", Target: name, Message: fmt.Sprintf("There is no principal %s.", name),
			Advice: "Check the name; 'kluis principal list' shows who there is."}
	}
	return "", usagef("which principal? Give one of these object ids:\n  %s", strings.Join(found, "\n  "))
}
