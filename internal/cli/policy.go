package cli

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"kluis/internal/client"
)

var policyColumns = []column[client.Policy]{
	nameColumn[client.PolicyProperties](),
	{"Runs", func(p client.Policy) string {
		s := p.Properties.SchedulePolicy
		var at []string
		for _, t := range s.RunTimes {
			// Of the time only hour and minute count: 2026-01-01T22:00:00Z.
			if _, clock, ok := strings.Cut(t, "T"); ok && len(clock) >= 5 {
				at = append(at, clock[:5])
			}
		}
		return strings.TrimSpace(strings.Join(append([]string{s.RunFrequency}, s.RunDays...), " ") + " " + strings.Join(at, ", ") + " " + p.Properties.TimeZone)
	}},
	{"Keeps", func(p client.Policy) string {
		var kept []string
		for _, s := range []*client.RetentionSchedule{p.Properties.RetentionPolicy.Daily, p.Properties.RetentionPolicy.Weekly} {
			if s != nil {
				kept = append(kept, fmt.Sprintf("%d %s", s.Duration.Count, strings.ToLower(s.Duration.Type)))
			}
		}
		return strings.Join(kept, ", ")
	}},
	{"Items", func(p client.Policy) string { return strconv.Itoa(p.Properties.ProtectedItemsCount) }},
}

var timeOfDay = regexp.MustCompile(`^([01]\d|2[0-3]):(00|30)$`)

func policyCommand() *cobra.Command {
	return withVault(noun("policy", "Backup policies: when, and how long",
		"A backup policy says when backups run and how long recovery points are kept. Every vault has DefaultPolicy.",
		verb("list", "List the backup policies of a vault", "kluis policy list", cobra.NoArgs, func(c *call) error {
			vault, err := c.vaultID()
			if err != nil {
				return err
			}
			all, err := c.Policies(c.ctx(), vault)
			if err != nil {
				return err
			}
			return table(c, all, rawOf, policyColumns)
		}),
		verb("show NAME", "Show a backup policy", "kluis policy show DefaultPolicy", cobra.ExactArgs(1), func(c *call) error {
			vault, err := c.vaultID()
			if err != nil {
				return err
			}
			p, err := c.Policy(c.ctx(), vault, c.args[0])
			if err != nil {
				return err
			}
			return details(c, p, rawOf, policyColumns)
		}),
		policyCreate(),
		verb("delete NAME", "Delete a backup policy that protects nothing", "kluis policy delete nightly", cobra.ExactArgs(1), func(c *call) error {
			vault, err := c.vaultID()
			if err != nil {
				return err
			}
			if err := c.DeletePolicy(c.ctx(), vault, c.args[0]); err != nil {
				return err
			}
			c.done("Deleted policy %s.", c.args[0])
			return nil
		}),
	))
}

func policyCreate() *cobra.Command {
	cmd := verb("create NAME", "Create a daily backup policy", "kluis policy create nightly --time 22:30 --days 60", cobra.ExactArgs(1), func(c *call) error {
		at := c.flag("time")
		if !timeOfDay.MatchString(at) {
			return usagef("--time %s: it is a full or half hour, such as 22:30", at)
		}
		days, err := c.cmd.Flags().GetInt("days")
		if err != nil {
			return err
		}
		vault, err := c.vaultID()
		if err != nil {
			return err
		}
		p, err := c.PutPolicy(c.ctx(), vault, c.args[0], client.DailyPolicy(at, days))
		if err != nil {
			return err
		}
		return details(c, p, rawOf, policyColumns)
	})
	cmd.Flags().String("time", "22:00", "when it runs, UTC")
	cmd.Flags().Int("days", 30, "how many days a recovery point is kept")
	return cmd
}
