package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"kluis/internal/armid"
	"kluis/internal/client"
)

// follow waits for a job and shows it on standard error while it runs: a bar at a terminal, else a line
// of JSON whenever something changes. The job itself is the result.
func (c *call) follow(vault armid.ID, job string) error {
	watch, stop := progressOn(c.cmd.ErrOrStderr())
	j, err := c.WaitJob(c.ctx(), vault, job, watch)
	stop()
	if j.ID != "" {
		if printed := details(c, j, rawOf, jobDetails); printed != nil {
			return printed
		}
	}
	return err
}

func progressOn(w io.Writer) (watch func(client.Job), stop func()) {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return barOn(f)
	}
	last := ""
	return func(j client.Job) {
		task := j.Properties.Task()
		line, err := json.Marshal(map[string]any{
			"job": j.Name, "status": j.Properties.Status, "task": task.ID, "taskStatus": task.Status, "percent": int(j.Properties.Percent()),
		})
		if err == nil && string(line) != last {
			last = string(line)
			_, _ = fmt.Fprintln(w, last)
		}
	}, func() {}
}

func barOn(f *os.File) (watch func(client.Job), stop func()) {
	var note atomic.Value // the bar is drawn by a goroutine of its own
	note.Store("")
	bars := mpb.New(mpb.WithOutput(f), mpb.WithWidth(40), mpb.WithRefreshRate(200*time.Millisecond))
	bar := bars.New(1000, mpb.BarStyle(), mpb.BarRemoveOnComplete(),
		mpb.AppendDecorators(decor.Percentage(decor.WC{W: 5}), decor.Any(func(decor.Statistics) string { return "  " + note.Load().(string) })))
	watch = func(j client.Job) {
		task := j.Properties.Task()
		text := task.ID
		if task.Details != "" {
			text += ": " + task.Details
		}
		note.Store(text)
		bar.SetCurrent(min(int64(j.Properties.Percent()*10), 999))
	}
	return watch, func() {
		bar.Abort(true)
		bars.Wait()
	}
}

func percent(p float64) string {
	if p == 0 {
		return ""
	}
	return strconv.Itoa(int(p)) + "%"
}
