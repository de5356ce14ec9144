package store

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

const (
	formatTable = "table"
	formatJSON  = "json"
)

// print prints a result: as JSON, or as people says it.
func (c *call) print(v any, people func(w io.Writer)) error {
	if c.out == formatJSON {
		e := json.NewEncoder(c.cmd.OutOrStdout())
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(c.cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	people(w)
	return w.Flush()
}

// row prints the cells of one row of a table.
func row(w io.Writer, cells ...any) {
	for i, cell := range cells {
		if i > 0 {
			_, _ = fmt.Fprint(w, "\t")
		}
		_, _ = fmt.Fprint(w, cell)
	}
	_, _ = fmt.Fprintln(w)
}

// size is a number of bytes for people.
type size int64

func (s size) String() string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	n, u := float64(s), 0
	for n >= 1024 && u < len(units)-1 {
		n /= 1024
		u++
	}
	if u == 0 {
		return fmt.Sprintf("%d B", int64(s))
	}
	return fmt.Sprintf("%.1f %s", n, units[u])
}

// seconds is a duration as JSON tells it.
func seconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e6 }
