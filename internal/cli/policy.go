package cli

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"kluis/internal/client"
)

var policyColumns = []column[client.Policy]{
	nameColumn[client.PolicyProperties](),
	{"Runs", func(p client.Policy) string {
		return strings.Join(append(runs(p.Properties.SchedulePolicy), p.Properties.TimeZone), " ")
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

// runs says when a schedule runs, in words.
func runs(s client.SchedulePolicy) []string {
	switch {
	case s.Hourly != nil:
		return []string{fmt.Sprintf("every %d hours for %d hours from %s", s.Hourly.Interval, s.Hourly.Window, clockOf(s.Hourly.Start))}
	case s.Daily != nil:
		s.RunTimes = s.Daily.Times
	case s.Weekly != nil:
		s.RunDays, s.RunTimes = s.Weekly.Days, s.Weekly.Times
	}
	var at []string
	for _, t := range s.RunTimes {
		at = append(at, clockOf(t))
	}
	return append(append([]string{s.RunFrequency}, s.RunDays...), strings.Join(at, ", "))
}

// clockOf takes hour and minute, which are all that counts, of a time such as 2026-01-01T22:00:00Z.
func clockOf(t string) string {
	if _, clock, ok := strings.Cut(t, "T"); ok && len(clock) >= 5 {
		return clock[:5]
	}
	return t
}

var timeOfDay = regexp.MustCompile(`^([01]\d|2[0-3]):(00|30)$`)

func policyCommand() *cobra.Command {
	return withVault(noun("policy", "Backup policies: when, and how long",
		"A backup policy says when backups run and how long recovery points are kept. Every vault has DefaultPolicy and EnhancedPolicy.",
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
		policyCreate(), policySet(),
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
		p, err := c.PutPolicy(c.ctx(), vault, c.args[0], client.DailyPolicy(at, c.flag("time-zone"), days))
		if err != nil {
			return err
		}
		return details(c, p, rawOf, policyColumns)
	})
	cmd.Flags().String("time", "22:00", "when it runs, by the clock of the time zone")
	cmd.Flags().String("time-zone", "UTC", "a name such as Europe/Amsterdam or W. Europe Standard Time")
	cmd.Flags().Int("days", 30, "how many days a recovery point is kept")
	return cmd
}

func policySet() *cobra.Command {
	cmd := verb("set NAME", "Create or change a backup policy from a JSON document",
		"kluis policy set monthly --file policy.json", cobra.ExactArgs(1), func(c *call) error {
			document, err := os.ReadFile(c.flag("file"))
			if err != nil {
				return usagef("--file: %v", err)
			}
			vault, err := c.vaultID()
			if err != nil {
				return err
			}
			p, err := c.PutPolicyDocument(c.ctx(), vault, c.args[0], document)
			if err != nil {
				return err
			}
			return details(c, p, rawOf, policyColumns)
		})
	cmd.Flags().String("file", "", "the policy, as 'kluis policy show' prints it with --output json")
	_ = cmd.MarkFlagRequired("file") // there is such a flag
	return cmd
}
