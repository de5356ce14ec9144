package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// writeHead is the first part of the report: the machine, the day and the store.
func (b *bench) writeHead(p printer) {
	p("# Performance")
	p("")
	p("Measured by `make bench` on %s: %d processors (%s), %s of memory, Linux %s, %s.", time.Now().Format("2 January 2006"), runtime.NumCPU(), processor(), memoryOf(), kernel(), runtime.Version())
	p("Peers: %s; %s. Images of %s. Each figure is the median of %d runs of the whole process, side by side in one run.", version("restic", "version"), version("borg", "--version"), amount(b.size), b.rounds)
	if b.cold {
		p("Before each step the page cache was emptied and the step's input read into it.")
	} else {
		p("The page cache could not be emptied before each step (that needs root), so the figures vary more than they should.")
	}
	p("Image A is 60%% ciphertext and 40%% holes; image B is an ext4 file system half full of programs, libraries and documentation.")
	p("")
	store := &b.table
	reached := store.print(p)
	p("")
	p("%d of %d goals reached.", reached, len(b.rows))
	p("")
	p("A backup that has ended is on the disk: it waits for that, as restic does, and `cp` does not. Where there is memory enough to hold the")
	p("copy, `cp` measures the memory, and what a backup takes beyond a copy that is synced is what Kluis itself costs.")
	p("`kluis store get` ends when `cp` would, unless `--sync` is given.")
	for _, note := range b.notes {
		p("")
		p("%s", note)
	}
}

// print adds the rows and returns how many goals were reached.
func (t *table) print(p printer) (reached int) {
	p("| what | beside | ratio | goal | | figures |")
	p("|---|---|---|---|---|---|")
	for _, r := range t.rows {
		sign, mark := "≤", "not reached"
		if r.atLeast {
			sign = "≥"
		}
		if r.reached() {
			mark = "reached"
			reached++
		}
		p("| %s | %s | %.2f | %s %g | %s | %s |", r.what, r.against, r.ratio, sign, r.limit, mark, r.figures)
	}
	return reached
}

func (b *bench) writeProofs(p printer) {
	p("Of a disk of 1 TiB, with the cheapest key derivation that the volume allows (the guest chooses how dear it is):")
	p("")
	p("| volume | time | read from the disk |")
	p("|---|---|---|")
	for _, one := range b.proofs {
		p("| %s | %s | %s |", one.volume, one.time, one.read)
	}
}

func (b *bench) writeServer(p printer) {
	p("Calls over HTTPS by %d callers at once on the same machine, with %d VMs, %d recovery points and %d secrets:", callers, manyVMs, manyVMs*manyPoints, manySecrets)
	p("")
	p("| call | SQLite | PostgreSQL | SQLite over PostgreSQL |")
	p("|---|---|---|---|")
	for _, a := range b.asked {
		p("| %s | %s | %s | %.2f |", a.what, a.sqlite, a.postgres, a.sqlite.perSecond/a.postgres.perSecond)
	}
	if unwrapped := b.calls(unwrapping); b.rsa > 0 && unwrapped.sqlite.perSecond > 0 {
		p("")
		p("`openssl speed` does %.0f private operations of RSA 3072 a second on all processors, so an unwrap over HTTPS, its caller included, reaches %.2f of what the arithmetic allows.",
			b.rsa, unwrapped.sqlite.perSecond/b.rsa)
	}
	for _, note := range b.served {
		p("")
		p("%s", note)
	}
}

func (b *bench) writeNBD(p printer) {
	p("An export of %s of ciphertext, over TLS of %s, all of it in the page cache, is read to its end on the machine that offers it. Peers: %s; %s.",
		amount(b.sizeOver(false)), amount(b.sizeOver(true)), version("nbdcopy", "--version"), version("qemu-nbd", "--version"))
	p("Our client reads as a backup does: over two connections, with as many readers as there are processors, each a MiB at a time. nbdcopy chooses by itself.")
	p("Each figure is the median of %d runs of the whole process that reads.", b.rounds)
	p("")
	b.nbd.print(p)
}

// amount is a number of bytes for people.
func amount(n int64) string {
	switch {
	case n >= 1<<40:
		return fmt.Sprintf("%.1f TiB", float64(n)/(1<<40))
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

func version(command ...string) string {
	out, err := exec.Command(command[0], command[1:]...).Output()
	if err != nil {
		return command[0]
	}
	words := strings.Fields(string(out))
	return strings.Join(words[:min(2, len(words))], " ")
}

// lineOf returns the value of the first line of a file of /proc that begins with key.
func lineOf(path, key string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func processor() string { return lineOf("/proc/cpuinfo", "model name") }

func memoryOf() string {
	var kib int64
	if _, err := fmt.Sscan(lineOf("/proc/meminfo", "MemTotal"), &kib); err != nil {
		return "an unknown amount"
	}
	return amount(kib << 10)
}

func kernel() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}
