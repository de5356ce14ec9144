package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kluis/internal/client"
)

var userColumns = []column[client.Principal]{
	{"Sign-in name", func(p client.Principal) string { return p.Properties.SignInName }},
	{"Name", func(p client.Principal) string { return p.Properties.DisplayName }},
	{"Object id", func(p client.Principal) string { return p.Name }},
	{"State", stateOf},
}

var oneUser = append(userColumns[:len(userColumns):len(userColumns)],
	column[client.Principal]{"Credentials", credentialsOf},
	column[client.Principal]{"Roles", rolesOf},
	column[client.Principal]{"Password", func(p client.Principal) string { return p.Properties.SecretText }},
)

func userCommand() *cobra.Command {
	list := verb("list", "List the people who may sign in", "kluis user list", cobra.NoArgs, func(c *call) error {
		all, err := c.people()
		if err != nil {
			return err
		}
		return table(c, all, rawOf, userColumns)
	})
	show := verb("show USER", "Show a person with his roles", "kluis user show ada", cobra.ExactArgs(1), func(c *call) error {
		id, err := c.user(c.args[0])
		if err != nil {
			return err
		}
		p, err := c.Principal(c.ctx(), id)
		if err != nil {
			return err
		}
		return details(c, p, rawOf, oneUser)
	})
	return noun("user", "People who may sign in",
		`A person signs in at a page of the server, with a name and a password, when a client such as az asks for it. What he may do is
said by his roles (kluis role assign). USER is a sign-in name or an object id.`,
		userCreate(), list, show, userResetPassword(),
		userDo("sign-out", "End everything that a person has signed in to; he signs in anew", "Signed %s out, everywhere.", (*client.Client).EndSessions),
		userEnable("disable", "Keep a person from signing in, and end what he has signed in to", false),
		userEnable("enable", "Let a disabled person sign in again", true),
		userDo("delete", "Delete a person; his tokens stop working at once", "Deleted user %s.", (*client.Client).DeletePrincipal))
}

func userCreate() *cobra.Command {
	cmd := verb("create USER", "Create a person who may sign in", `
kluis user create ada --name "Ada Lovelace" --role "Backup Operator" -g prod
kluis user create ada@example.com --generate-password`, cobra.ExactArgs(1), func(c *call) error {
		password, err := c.password()
		if err != nil {
			return err
		}
		n := client.NewUser{SignInName: c.args[0], DisplayName: c.flag("name"), Password: password, Role: c.flag("role")}
		if n.Role != "" {
			n.Scope = c.scope().String()
		}
		p, err := c.CreateUser(c.ctx(), n)
		if err != nil {
			return err
		}
		return details(c, p, rawOf, oneUser)
	})
	cmd.Long = `Create a person who may sign in as USER: a name such as ada or ada@example.com. ` + aboutPassword + `
With --role he gets a role: at the resource group if one is given, else at the subscription.`
	cmd.Flags().String("name", "", "name for people to read (default: USER)")
	cmd.Flags().String("role", "", "name of a role, such as 'Backup Operator'")
	return passwordFlag(cmd)
}

func userResetPassword() *cobra.Command {
	cmd := verb("reset-password USER", "Give a person another password, and end what he has signed in to", `
kluis user reset-password ada --generate-password`, cobra.ExactArgs(1), func(c *call) error {
		id, err := c.user(c.args[0])
		if err != nil {
			return err
		}
		password, err := c.password()
		if err != nil {
			return err
		}
		p, err := c.ResetPassword(c.ctx(), id, password)
		if err != nil {
			return err
		}
		return details(c, p, rawOf, oneUser)
	})
	cmd.Long = `Give a person another password, and end what he has signed in to. ` + aboutPassword
	return passwordFlag(cmd)
}

func userEnable(word, short string, enabled bool) *cobra.Command {
	return verb(word+" USER", short, "kluis user "+word+" ada", cobra.ExactArgs(1), func(c *call) error {
		id, err := c.user(c.args[0])
		if err != nil {
			return err
		}
		p, err := c.EnablePrincipal(c.ctx(), id, enabled)
		if err != nil {
			return err
		}
		return details(c, p, rawOf, oneUser)
	})
}

// userDo makes a verb that has no answer.
func userDo(word, short, done string, do func(*client.Client, context.Context, string) error) *cobra.Command {
	return verb(word+" USER", short, "kluis user "+word+" ada", cobra.ExactArgs(1), func(c *call) error {
		id, err := c.user(c.args[0])
		if err != nil {
			return err
		}
		if err := do(c.Client, c.ctx(), id); err != nil {
			return err
		}
		c.done(done, c.args[0])
		return nil
	})
}

const aboutPassword = `The password is asked for at the terminal, or read as the
first line of standard input; --generate-password has the server draw one, which is printed once.`

func passwordFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().Bool("generate-password", false, "have a password drawn, and print it")
	return cmd
}

// password is what the caller gives; "" asks the server to draw one.
func (c *call) password() (string, error) {
	if c.is("generate-password") {
		return "", nil
	}
	if in, ok := c.cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		return c.askPassword(int(in.Fd()))
	}
	line, err := bufio.NewReader(io.LimitReader(c.cmd.InOrStdin(), maxInput)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read password: %w", err)
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", usagef("there is no password on standard input; give one, or --generate-password")
	}
	return line, nil
}

// askPassword asks twice, and shows nothing of what is typed.
func (c *call) askPassword(terminal int) (string, error) {
	var answers [2]string
	for i, prompt := range []string{"Password: ", "Once more: "} {
		_, _ = fmt.Fprint(c.cmd.ErrOrStderr(), prompt)
		typed, err := term.ReadPassword(terminal)
		_, _ = fmt.Fprintln(c.cmd.ErrOrStderr())
		if err != nil {
			return "", fmt.Errorf("read password: %w", err)
		}
		answers[i] = string(typed)
	}
	if answers[0] != answers[1] || answers[0] == "" {
		return "", usagef("the two passwords are empty or differ")
	}
	return answers[0], nil
}

// people are the principals that are no applications.
func (c *call) people() ([]client.Principal, error) {
	all, err := c.Principals(c.ctx())
	return slices.DeleteFunc(all, func(p client.Principal) bool { return p.Properties.Kind != client.KindUser }), err
}

// user finds the object id of a person by his sign-in name or object id.
func (c *call) user(name string) (string, error) {
	all, err := c.people()
	if err != nil {
		return "", err
	}
	for _, p := range all {
		if strings.EqualFold(name, p.Properties.SignInName) || strings.EqualFold(name, p.Name) {
			return p.Name, nil
		}
	}
	return "", &client.Error{Code: "UserNotFound", Target: name, Message: fmt.Sprintf("There is no user %s.", name),
		Advice: "Check the name; 'kluis user list' shows who there is."}
}
