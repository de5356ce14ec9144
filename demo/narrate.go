package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"kluis/internal/client"
)

// narrator prints one line a step, the facts of the step below it, and a live bar while it lasts.
type narrator struct {
	out      io.Writer
	terminal bool
	facts    []string
	passed   int
	failed   int
	bars     *mpb.Progress
	bar      *mpb.Bar
	note     atomic.Value // the bar is drawn by a goroutine of its own
}

func newNarrator(out *os.File) *narrator {
	return &narrator{out: out, terminal: term.IsTerminal(int(out.Fd()))}
}

func (n *narrator) say(format string, args ...any) { _, _ = fmt.Fprintf(n.out, format, args...) }

// fact adds a line below the step that is running.
func (n *narrator) fact(format string, args ...any) {
	n.facts = append(n.facts, fmt.Sprintf(format, args...))
}

// step runs f and tells how it went; it reports whether the story can go on.
func (n *narrator) step(chapter int, name string, f func() error) bool {
	n.facts = nil
	begin := time.Now()
	err := f()
	n.endBar()
	mark := "ok  "
	if err != nil {
		mark = "FAIL"
		n.failed++
	} else {
		n.passed++
	}
	n.say("%s %d  %-78s %6.1fs\n", mark, chapter, name, time.Since(begin).Seconds())
	for _, f := range n.facts {
		n.say("          %s\n", f)
	}
	if err != nil {
		for _, line := range strings.Split(explain(err), "\n") {
			n.say("     !    %s\n", line)
		}
	}
	return err == nil
}

// progress moves the step's bar to a part of the whole; the first call shows the bar. Without a terminal
// there is no bar.
func (n *narrator) progress(part float64, note string) {
	if !n.terminal {
		return
	}
	n.note.Store(note)
	if n.bar == nil {
		n.bars = mpb.New(mpb.WithOutput(n.out), mpb.WithWidth(40), mpb.WithRefreshRate(100*time.Millisecond))
		n.bar = n.bars.New(1000, mpb.BarStyle().Lbound("     ["), mpb.BarRemoveOnComplete(),
			mpb.AppendDecorators(decor.Percentage(decor.WC{W: 5}), decor.Any(func(decor.Statistics) string { return "  " + n.note.Load().(string) })))
	}
	n.bar.SetCurrent(min(int64(part*1000), 999))
}

func (n *narrator) endBar() {
	if n.bar == nil {
		return
	}
	n.bar.Abort(true)
	n.bars.Wait()
	n.bar, n.bars = nil, nil
}

// watch shows a job on the bar.
func (n *narrator) watch(j client.Job) {
	task := j.Properties.Task()
	note := task.ID
	if task.Details != "" {
		note += ": " + task.Details
	}
	n.progress(j.Properties.Percent()/100, note)
}

// refused checks that err is the refusal with the given code, and tells it.
func (n *narrator) refused(err error, code string) error {
	if err == nil {
		return fmt.Errorf("it was not refused; %s was expected", code)
	}
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Code != code {
		return fmt.Errorf("%s was expected, but: %w", code, err)
	}
	n.fact("code    %s", e.Code)
	n.fact("message %s", e.Message)
	n.fact("do      %s", e.Advice)
	if e.Advice == "" {
		return fmt.Errorf("the error %s recommends nothing", code)
	}
	return nil
}

// explain is an error with the advice that comes with it.
func explain(err error) string {
	text := err.Error()
	if e, ok := errors.AsType[*client.Error](err); ok {
		for _, d := range e.Details {
			text += "\n" + d.Error()
		}
		if e.Advice != "" {
			text += "\nrecommended: " + e.Advice
		}
	}
	return text
}

// human is a size for a person.
func human(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
