package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"kluis/internal/armid"
	"kluis/internal/client"
)

var jobColumns = []column[client.Job]{
	nameColumn[client.JobProperties](),
	{"Operation", func(j client.Job) string { return j.Properties.Operation }},
	{"Status", func(j client.Job) string { return j.Properties.Status }},
	{"Item", func(j client.Job) string { return j.Properties.EntityFriendlyName }},
	{"Started", func(j client.Job) string { return j.Properties.StartTime }},
	{"Duration", func(j client.Job) string { return duration(j.Properties.Duration) }},
}

// bagKeys are the entries of a job's property bag that people look for, in the order of the story.
var bagKeys = []string{
	"Recovery Point Id", "Backup Size", "Bytes read", "Bytes stored", "Bytes reused",
	"Restored disk(s)", "Target resource group", "Target Storage Account Name", "Config Blob Uri", "Template Blob Uri",
}

var jobDetails = jobDetailColumns()

func jobDetailColumns() []column[client.Job] {
	columns := append(jobColumns[:len(jobColumns):len(jobColumns)],
		column[client.Job]{"Progress", func(j client.Job) string { return percent(j.Properties.Percent()) }},
		column[client.Job]{"Tasks", func(j client.Job) string {
			if j.Properties.ExtendedInfo == nil {
				return ""
			}
			var tasks []string
			for _, t := range j.Properties.ExtendedInfo.Tasks {
				tasks = append(tasks, strings.TrimSpace(fmt.Sprintf("%s: %s %s", t.ID, t.Status, t.Details)))
			}
			return strings.Join(tasks, "\n\t")
		}},
		column[client.Job]{"Problems", func(j client.Job) string {
			var problems []string
			for _, e := range j.Properties.ErrorDetails {
				problems = append(problems, e.Title+": "+e.Message)
				problems = append(problems, e.Recommendations...)
			}
			return strings.Join(problems, "\n\t")
		}})
	for _, key := range bagKeys {
		columns = append(columns, column[client.Job]{key, func(j client.Job) string { return j.Properties.Bag(key) }})
	}
	return columns
}

// duration is an ISO 8601 duration without its letters' frame: PT1H2M3.4567S is 1h2m3.4567s.
func duration(s string) string {
	return strings.ToLower(strings.TrimPrefix(s, "PT"))
}

func noWait(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().Bool("no-wait", false, "print the job's id and don't wait for its end")
	return cmd
}

// followUnless follows a job that was started, or with --no-wait only names it.
func (c *call) followUnless(vault armid.ID, job string) error {
	if !c.is("no-wait") {
		return c.follow(vault, job)
	}
	return details(c, map[string]string{"job": job}, itself, []column[map[string]string]{{"Job", func(m map[string]string) string { return m["job"] }}})
}

func jobCommand() *cobra.Command {
	return withVault(noun("job", "Jobs: backups and restores, running or over",
		"Backups, restores and changes of protection are jobs of a vault, with tasks and progress.",
		jobList(),
		verb("show JOB", "Show a job with its tasks", "kluis job show fd2e6065-3968-4913-bf13-822392ba1326", cobra.ExactArgs(1), func(c *call) error {
			vault, err := c.vaultID()
			if err != nil {
				return err
			}
			j, err := c.Job(c.ctx(), vault, c.args[0])
			if err != nil {
				return err
			}
			return details(c, j, rawOf, jobDetails)
		}),
		verb("wait JOB", "Wait for a job; fail if it fails", "kluis job wait fd2e6065-3968-4913-bf13-822392ba1326", cobra.ExactArgs(1), func(c *call) error {
			vault, err := c.vaultID()
			if err != nil {
				return err
			}
			return c.follow(vault, c.args[0])
		}),
		verb("cancel JOB", "Ask a job to stop", "kluis job cancel fd2e6065-3968-4913-bf13-822392ba1326", cobra.ExactArgs(1), func(c *call) error {
			vault, err := c.vaultID()
			if err != nil {
				return err
			}
			if err := c.CancelJob(c.ctx(), vault, c.args[0]); err != nil {
				return err
			}
			c.done("Asked job %s to stop; kluis job wait tells when it has.", c.args[0])
			return nil
		}),
	))
}

func jobList() *cobra.Command {
	cmd := verb("list", "List the jobs of a vault", "kluis job list --status Failed", cobra.NoArgs, func(c *call) error {
		vault, err := c.vaultID()
		if err != nil {
			return err
		}
		var filter []string
		for _, key := range []string{"operation", "status"} {
			if value := c.flag(key); strings.Contains(value, "'") {
				return usagef("--%s %s: it holds a quote", key, value)
			} else if value != "" {
				filter = append(filter, fmt.Sprintf("%s eq '%s'", key, value))
			}
		}
		all, err := c.Jobs(c.ctx(), vault, strings.Join(filter, " and "))
		if err != nil {
			return err
		}
		return table(c, all, rawOf, jobColumns)
	})
	cmd.Flags().String("status", "", "InProgress, Completed, Failed, CompletedWithWarnings, Cancelled or Cancelling")
	cmd.Flags().String("operation", "", "Backup, Restore, ConfigureBackup, DisableBackup or DeleteBackupData")
	return cmd
}
