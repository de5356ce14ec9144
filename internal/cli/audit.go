package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"kluis/internal/client"
)

var auditColumns = []column[client.AuditEvent]{
	{"Entry", func(e client.AuditEvent) string { return strconv.FormatInt(e.Properties.Sequence, 10) }},
	{"Time", func(e client.AuditEvent) string { return e.Time }},
	{"Operation", func(e client.AuditEvent) string { return e.OperationName }},
	{"Result", func(e client.AuditEvent) string { return e.ResultSignature }},
	{"Caller", func(e client.AuditEvent) string {
		return e.Identity.Claim["http://schemas.microsoft.com/identity/claims/objectidentifier"]
	}},
	{"Key vault", func(e client.AuditEvent) string { return e.Properties.Vault }},
	{"Id", func(e client.AuditEvent) string { return e.Properties.ID }},
}

func auditCommand() *cobra.Command {
	return noun("audit", "The log of every use of a key or secret",
		`Each use of a key or a secret, allowed or refused, leaves one entry in an append-only log: who, what, when
and with what result, never the value. The entries are chained by hashes, and the end of the chain is
sealed under the root key.`,
		auditList(), auditExport(), auditVerify())
}

// auditEvents are the entries that the flags ask for.
func (c *call) auditEvents() ([]client.AuditEvent, error) {
	after, err := c.cmd.Flags().GetInt64("after")
	if err != nil {
		return nil, err
	}
	if after < 0 {
		return nil, usagef("--after %d: it is the number of an entry", after)
	}
	all, err := c.AuditEvents(c.ctx(), after)
	if err != nil {
		return nil, err
	}
	vault := c.flag("keyvault")
	if vault == "" {
		return all, nil
	}
	var of []client.AuditEvent
	for _, e := range all {
		if strings.EqualFold(e.Properties.Vault, vault) {
			of = append(of, e)
		}
	}
	return of, nil
}

func auditFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().Int64("after", 0, "only what comes after the entry with this number")
	cmd.Flags().StringP("keyvault", "k", "", "only uses of this key vault's content")
	return cmd
}

func auditList() *cobra.Command {
	return auditFlags(verb("list", "List the log", "kluis audit list --keyvault prod-keys --after 1200", cobra.NoArgs, func(c *call) error {
		events, err := c.auditEvents()
		if err != nil {
			return err
		}
		return table(c, events, func(e client.AuditEvent) any { return e.Raw }, auditColumns)
	}))
}

func auditExport() *cobra.Command {
	return auditFlags(verb("export", "Print the log as lines of JSON, to be shipped elsewhere", `
# an AuditEvent a line, as Azure exports them; go on after the last one the next time
kluis audit export --after 1200 >> keyvault.log`, cobra.NoArgs, func(c *call) error {
		events, err := c.auditEvents()
		if err != nil {
			return err
		}
		for _, e := range events {
			if _, err := fmt.Fprintf(c.cmd.OutOrStdout(), "%s\n", e.Raw); err != nil {
				return err
			}
		}
		return nil
	}))
}

func auditVerify() *cobra.Command {
	cmd := verb("verify", "Check that no entry was changed, removed, moved or cut off", `
kluis audit verify
# with the head that an earlier check showed, an older copy that was put back is found, too
kluis audit verify --head 1200:9f2c…`, cobra.NoArgs, func(c *call) error {
		r, err := c.VerifyAudit(c.ctx(), c.flag("head"))
		if err != nil {
			return err
		}
		err = details(c, r, itself, []column[client.AuditReport]{
			{"Entries", func(r client.AuditReport) string { return strconv.FormatInt(r.Entries, 10) }},
			{"Before the chain", func(r client.AuditReport) string {
				if r.Unchained == 0 {
					return ""
				}
				return strconv.FormatInt(r.Unchained, 10)
			}},
			{"Head", func(r client.AuditReport) string { return r.Head }},
		})
		if err != nil {
			return err
		}
		if !r.Intact {
			return notIntact(r)
		}
		c.done("The log is whole. Note its head elsewhere, and give it to the next check.")
		return nil
	})
	cmd.Flags().String("head", "", "head that an earlier check showed; it must be on the chain")
	return cmd
}

func notIntact(r client.AuditReport) error {
	e := &client.Error{Code: "AuditLogNotIntact", Message: "The log of uses is not whole.",
		Advice: "Treat the server's database as written by somebody else: compare with the copies that were shipped elsewhere, and with backups of the database."}
	for _, f := range r.Findings {
		e.Details = append(e.Details, &client.Error{Code: fmt.Sprintf("Entry %d", f.Sequence), Message: f.What})
	}
	return e
}
