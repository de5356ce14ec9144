package store

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"kluis/internal/recovery"
)

// watch shows how far a command is, on standard error, until stop is called: a bar at a terminal, else a
// line of JSON a second.
func (c *call) watch(what string) (progress recovery.Progress, stop func()) {
	w := c.cmd.ErrOrStderr()
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return bar(f, what)
	}
	return lines(w, what, c.now), func() {}
}

func bar(f *os.File, what string) (recovery.Progress, func()) {
	bars := mpb.New(mpb.WithOutput(f), mpb.WithWidth(64), mpb.WithRefreshRate(200*time.Millisecond))
	b := bars.New(0, mpb.BarStyle(), mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(what+" "), decor.CountersKibiByte("% .1f / % .1f")),
		mpb.AppendDecorators(decor.Percentage(decor.WC{W: 5}), decor.AverageSpeed(decor.SizeB1024(0), "  % .1f"), decor.AverageETA(decor.ET_STYLE_GO, decor.WC{W: 8})))
	progress := func(done, total int64) {
		b.SetTotal(total, false)
		b.SetCurrent(done)
	}
	return progress, func() {
		b.Abort(true)
		bars.Wait()
	}
}

// line is one line of progress for programs.
type line struct {
	Task             string  `json:"task"`
	Done             int64   `json:"done"`
	Total            int64   `json:"total"`
	BytesPerSecond   int64   `json:"bytesPerSecond"`
	SecondsRemaining float64 `json:"secondsRemaining"`
}

// lines tells a line a second, and nothing of what is over before the first second is.
func lines(w io.Writer, what string, now func() time.Time) recovery.Progress {
	start := now()
	last := start
	return func(done, total int64) {
		t := now()
		if t.Sub(last) < time.Second || done == 0 {
			return
		}
		last = t
		elapsed := t.Sub(start).Seconds()
		rate := float64(done) / elapsed
		text, err := json.Marshal(line{what, done, total, int64(rate), float64(int64(float64(total-done)/rate*10)) / 10})
		if err == nil {
			_, _ = fmt.Fprintln(w, string(text))
		}
	}
}
