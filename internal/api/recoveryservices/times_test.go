package recoveryservices

import (
	"strings"
	"testing"
	"time"

	"kluis/internal/backup"
	"kluis/internal/job"
)

func TestParseTime(t *testing.T) {
	day := func(h, m, s int) time.Time { return time.Date(2026, 11, 23, h, m, s, 0, time.UTC) }
	for text, want := range map[string]time.Time{
		"2026-11-23 12:00:00 AM":    day(0, 0, 0),
		"2026-11-23 00:00:00 AM":    day(0, 0, 0),
		"2026-11-23 09:30:05 AM":    day(9, 30, 5),
		"2026-11-23 12:00:00 PM":    day(12, 0, 0),
		"2026-11-23 09:30:05 pm":    day(21, 30, 5),
		"2026-11-23 21:30:05 PM":    day(21, 30, 5),
		" 2026-11-23 21:30:05 ":     day(21, 30, 5),
		"2026-11-23T21:30:05Z":      day(21, 30, 5),
		"2026-11-23t21:30:05.000z":  day(21, 30, 5),
		"2026-11-23T22:30:05+01:00": day(21, 30, 5),
		"2026-11-23T21:30:05":       day(21, 30, 5),
		"2026-11-23":                day(0, 0, 0),
		"0001-01-01T00:00:00Z":      always,
		"9999-12-31 11:59:59 PM":    forever,
	} {
		if got, ok := parseTime(text); !ok || !got.Equal(want) {
			t.Errorf("parseTime(%q) = %v, %v; want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "yesterday", "2026-11-23 21:30:05 AM", "2026-13-01", "2026-11-23 25:00:00", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2026-11-23 PM"} {
		if got, ok := parseTime(text); ok {
			t.Errorf("parseTime(%q) = %v", text, got)
		}
	}
}

// What is read as a time lies within Azure's times and is read again from how az writes it.
func FuzzParseTime(f *testing.F) {
	for _, seed := range []string{"2026-11-23 12:00:00 AM", "2026-11-23 00:00:00 AM", "2026-11-23 21:30:05 PM", "2026-11-23T21:30:05.1234567Z", "0000-01-01T00:00:00-23:59", "2026-11-23", "PM"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := parseTime(text)
		if !ok {
			return
		}
		if got.Before(always) || got.After(forever) || got.Location() != time.UTC {
			t.Fatalf("%q is %v", text, got)
		}
		plain := got.Format(timeLayouts[0])
		if again, ok := parseTime(plain); !ok || !again.Equal(got.Truncate(time.Second)) {
			t.Fatalf("%q is %v, but %q is %v, %v", text, got, plain, again, ok)
		}
	})
}

func TestISO(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "PT0S", -time.Hour: "PT0S", time.Microsecond: "PT0S", 10 * time.Second: "PT10S", 1500 * time.Millisecond: "PT1.5S", time.Minute: "PT1M",
		time.Hour + time.Minute + 22*time.Second + 29*time.Millisecond: "PT1H1M22.029S", 100 * time.Hour: "PT100H", time.Hour - time.Microsecond: "PT1H",
	} {
		got := iso(d)
		if got != want {
			t.Errorf("iso(%v) = %s, want %s", d, got, want)
		}
		// Go writes the same numbers with small letters.
		if back, err := time.ParseDuration(strings.ToLower(strings.TrimPrefix(got, "PT"))); err != nil || back != max(d, 0).Round(time.Millisecond) {
			t.Errorf("%s is %v, %v", got, back, err)
		}
	}
}

func TestProgress(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	running := []job.Task{{Started: now.Add(-time.Hour), Ended: now.Add(-time.Minute)}, {Started: now.Add(-time.Minute)}, {}}
	for name, c := range map[string]struct {
		j         backup.Job
		percent   float64
		remaining string
	}{
		"not begun":        {backup.Job{State: job.Queued}, 0, ""},
		"nothing moved":    {backup.Job{State: job.Running, Total: 100, Tasks: running}, 0, ""},
		"a quarter":        {backup.Job{State: job.Running, Done: 25, Total: 100, Tasks: running}, 25, "PT3M"},
		"all moved":        {backup.Job{State: job.Running, Done: 100, Total: 100, Tasks: running}, 100, "PT0S"},
		"more than all":    {backup.Job{State: job.Running, Done: 101, Total: 100, Tasks: running}, 100, ""},
		"hardly moved":     {backup.Job{State: job.Running, Done: 1, Total: 1 << 62, Tasks: running}, float64(100) / (1 << 62), "PT1000H"},
		"between tasks":    {backup.Job{State: job.Running, Done: 25, Total: 100, Tasks: running[:1]}, 25, ""},
		"done, no bytes":   {backup.Job{State: job.Ended, Outcome: job.Completed, Ended: now}, 100, "PT0S"},
		"done with a flaw": {backup.Job{State: job.Ended, Outcome: job.CompletedWithWarnings, Ended: now, Done: 99, Total: 100}, 100, "PT0S"},
		"failed halfway":   {backup.Job{State: job.Ended, Outcome: job.Failed, Ended: now, Done: 50, Total: 100}, 50, "PT0S"},
	} {
		if got := percentage(c.j); got != c.percent {
			t.Errorf("%s: %v %%, want %v", name, got, c.percent)
		}
		if got := remaining(c.j, now); got != c.remaining {
			t.Errorf("%s: %q remain, want %q", name, got, c.remaining)
		}
	}
}
