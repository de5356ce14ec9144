package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// proof is what it takes to prove one disk.
type proof struct{ volume, time, read string }

// prove measures the proof with the benchmark of its own room: it reads so little that a whole process
// would mostly measure its own start.
func (b *bench) prove(ctx context.Context) error {
	say("proofs")
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkProve$", "-benchtime", "2s", "./internal/proof").CombinedOutput()
	if err != nil {
		return fmt.Errorf("go test: %w\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		// BenchmarkProve/LUKS2-2   206   5700000 ns/op   324000 bytes-read/op
		words := strings.Fields(line)
		if len(words) < 6 || !strings.HasPrefix(words[0], "BenchmarkProve/") {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(words[0], "BenchmarkProve/"), "-")
		ns, err := strconv.ParseFloat(words[2], 64)
		if err != nil {
			return fmt.Errorf("read %q: %w", line, err)
		}
		one := proof{volume: name, time: time.Duration(ns).Round(10 * time.Microsecond).String()}
		for i, unit := range words {
			if n, err := strconv.ParseFloat(words[max(0, i-1)], 64); unit == "bytes-read/op" && err == nil {
				one.read = fmt.Sprintf("%.0f KiB", n/1024)
			}
		}
		b.proofs = append(b.proofs, one)
	}
	return nil
}
