package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"kluis/internal/client"
)

const (
	formatTable = "table"
	formatJSON  = "json"
)

// outputOf is the format that --output names; a command without that flag prints for people.
func outputOf(cmd *cobra.Command) string {
	if f := cmd.Flag("output"); f != nil {
		return f.Value.String()
	}
	return formatTable
}

// printError tells what happened and what to do.
func printError(cmd *cobra.Command, err error) {
	e, ok := errors.AsType[*client.Error](err)
	if outputOf(cmd) == formatJSON {
		if !ok {
			e = &client.Error{Code: "CommandFailed", Message: err.Error()}
		}
		_ = printJSON(cmd.ErrOrStderr(), map[string]any{"error": e})
		return
	}
	w := cmd.ErrOrStderr()
	if !ok {
		_, _ = fmt.Fprintf(w, "Error: %v\n", err)
		return
	}
	_, _ = fmt.Fprintf(w, "Error: %s\n%s\n", e.Code, e.Message)
	for _, d := range e.Details {
		_, _ = fmt.Fprintf(w, "  %s\n", strings.TrimSuffix(d.Error(), ": "))
	}
	if e.Advice != "" {
		_, _ = fmt.Fprintf(w, "Recommended action: %s\n", e.Advice)
	}
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// column is one column of a table, or one line of a single resource.
type column[T any] struct {
	title string
	value func(T) string
}

// table prints a list of things, for JSON as raw gives them.
func table[T any](c *call, all []T, raw func(T) any, columns []column[T]) error {
	if outputOf(c.cmd) == formatJSON {
		values := make([]any, len(all))
		for i, item := range all {
			values[i] = raw(item)
		}
		return printJSON(c.cmd.OutOrStdout(), values)
	}
	w := tabwriter.NewWriter(c.cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	row := func(cell func(column[T]) string) {
		cells := make([]string, len(columns))
		for i, col := range columns {
			cells[i] = cell(col)
		}
		_, _ = fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "\t"), "\t "))
	}
	row(func(col column[T]) string { return strings.ToUpper(col.title) })
	for _, item := range all {
		row(func(col column[T]) string { return col.value(item) })
	}
	return w.Flush()
}

// details prints one thing, a line a column; lines without a value are left out.
func details[T any](c *call, item T, raw func(T) any, columns []column[T]) error {
	if outputOf(c.cmd) == formatJSON {
		return printJSON(c.cmd.OutOrStdout(), raw(item))
	}
	w := tabwriter.NewWriter(c.cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	for _, col := range columns {
		if value := col.value(item); value != "" {
			_, _ = fmt.Fprintf(w, "%s\t%s\n", col.title, value)
		}
	}
	return w.Flush()
}

// rawOf is a resource as the server sent it.
func rawOf[P any](r client.Resource[P]) any { return r.Raw }

// itself is for things that are printed as they are.
func itself[T any](v T) any { return v }

// name, location and id are columns that every resource has.
func nameColumn[P any]() column[client.Resource[P]] {
	return column[client.Resource[P]]{"Name", func(r client.Resource[P]) string { return r.Name }}
}

func groupColumn[P any]() column[client.Resource[P]] {
	return column[client.Resource[P]]{"Group", func(r client.Resource[P]) string { return r.ARMID().ResourceGroup }}
}

func locationColumn[P any]() column[client.Resource[P]] {
	return column[client.Resource[P]]{"Location", func(r client.Resource[P]) string { return r.Location }}
}

func idColumn[P any]() column[client.Resource[P]] {
	return column[client.Resource[P]]{"Id", func(r client.Resource[P]) string { return r.ID }}
}

// done tells, to people only, that something without a result has happened.
func (c *call) done(format string, args ...any) {
	if outputOf(c.cmd) == formatTable {
		_, _ = fmt.Fprintf(c.cmd.OutOrStdout(), format+"\n", args...)
	}
}

// size is a number of bytes for a person.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for ; f >= 1024 && i < len(units)-1; i++ {
		f /= 1024
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
