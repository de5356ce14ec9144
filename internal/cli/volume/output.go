package volume

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"kluis/internal/volume"
)

const (
	formatTable = "table"
	formatJSON  = "json"
)

func (c *inspection) print(r report) error {
	out := c.cmd.OutOrStdout()
	if c.out == formatJSON {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	r.people(w)
	return w.Flush()
}

// people prints the report: the disk in a line, its volumes in a table, and what there is to know of each
// that is encrypted or damaged.
func (r report) people(w io.Writer) {
	table := map[string]string{"none": "no partition table", "mbr": "MBR", "gpt": "GPT"}[r.Scheme]
	_, _ = fmt.Fprintf(w, "%s: %s, %s, %s\n", r.Image, r.Format, size(r.Size), table)
	for _, damage := range r.Damage {
		_, _ = fmt.Fprintf(w, "Damage: %s\n", damage)
	}
	_, _ = fmt.Fprintln(w, "\nPARTITION\tOFFSET\tSIZE\tHOLDS")
	for _, v := range r.Volumes {
		partition := "-"
		if v.Partition > 0 {
			partition = strings.TrimSpace(fmt.Sprintf("%d %s", v.Partition, v.Name))
		}
		_, _ = fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", partition, v.Offset, size(v.Size), describe(kindOf(v), v.UUID, v.Label))
	}
	for _, v := range r.Volumes {
		if v.Encrypted || len(v.Damage) > 0 {
			r.details(w, v)
		}
	}
}

func (r report) details(w io.Writer, v volume.Volume) {
	title := "The disk"
	if v.Partition > 0 {
		title = fmt.Sprintf("Partition %d", v.Partition)
	}
	_, _ = fmt.Fprintf(w, "\n%s: %s\n", title, kindOf(v))
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "  %s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	if v.Cipher != "" {
		line("Cipher", "%s, key of %d bits, sectors of %d bytes", v.Cipher, v.KeyBits, v.SectorSize)
	}
	if v.Header != nil {
		line("Header", "on partition %d, at %d", v.Header.Partition, v.Header.Offset)
	}
	for _, s := range v.KeySlots {
		if s.MemoryKiB > 0 {
			line(fmt.Sprintf("Key slot %d", s.ID), "%s, %d passes over %s, %d threads", s.KDF, s.Iterations, size(int64(s.MemoryKiB)<<10), s.Threads)
			continue
		}
		line(fmt.Sprintf("Key slot %d", s.ID), "%s with %s, %d iterations", s.KDF, s.Hash, s.Iterations)
	}
	for _, p := range v.Protectors {
		line("Protector", "%s %s", p.ID, p.Kind)
	}
	if state := stateOf(v); state != "" {
		line("State", "%s", state)
	}
	for _, damage := range v.Damage {
		line("Damage", "%s", damage)
	}
	for _, k := range r.Key {
		if k.Partition == v.Partition {
			line("Key", "%s", k)
		}
	}
}

// stateOf is empty when there is nothing to say.
func stateOf(v volume.Volume) string {
	switch {
	case v.Conversion != "" && v.Converted > 0:
		return fmt.Sprintf("%s: %s of %s are encrypted", v.Conversion, size(v.Converted), size(v.Size))
	case v.Conversion != "":
		return v.Conversion
	case v.Unsupported != "":
		return v.Unsupported
	case v.Unprotected:
		return "not protected: the key lies in clear on the volume"
	}
	return ""
}

func (k tried) String() string {
	if k.Opens {
		return fmt.Sprintf("opens it by %s; inside: %s", k.By, k.Holds)
	}
	return "doesn't open it: " + k.Reason
}

// kindOf is the kind of a volume as people write it.
func kindOf(v volume.Volume) string {
	switch v.Kind {
	case volume.LUKS, volume.LUKS1, volume.LUKS2:
		return strings.ToUpper(v.Kind)
	case volume.BitLocker:
		return "BitLocker"
	case volume.Unknown:
		return "nothing known"
	}
	return v.Kind
}

// describe puts what is known of a volume in one cell.
func describe(kind, uuid, label string) string {
	out := kind
	if uuid != "" {
		out += " " + uuid
	}
	if label != "" {
		out += fmt.Sprintf(" %q", label)
	}
	return out
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
