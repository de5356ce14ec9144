package keyvault

import (
	"testing"
	"time"
)

func TestPeriods(t *testing.T) {
	start := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"P90D":       start.AddDate(0, 0, 90),
		"P2Y":        start.AddDate(2, 0, 0),
		"P1Y6M3D":    start.AddDate(1, 6, 3),
		"P2W":        start.AddDate(0, 0, 14),
		"P1DT2H3M":   start.AddDate(0, 0, 1).Add(2*time.Hour + 3*time.Minute),
		"PT36H":      start.Add(36 * time.Hour),
		"P0Y0M0DT0S": start,
	} {
		p, err := parsePeriod(text)
		if err != nil || !p.after(start).Equal(want) {
			t.Errorf("%s after %s is %s, %v; want %s", text, start, p.after(start), err, want)
		}
	}
	for _, text := range []string{"", "P", "PT", "P1", "1D", "P1DT", "PD", "P1D1Y", "P1D2D", "P-1D", "P1.5D", "P99999D", "P1H", "PT1D", "p1d", "P1Dx", " P1D"} {
		if p, err := parsePeriod(text); err == nil {
			t.Errorf("%q is taken for %+v", text, p)
		}
	}
}

func FuzzPeriod(f *testing.F) {
	for _, s := range []string{"P90D", "P1Y6M3DT4H5M6S", "P2W", "PT"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePeriod(s)
		if err == nil && (p.months < 0 || p.ds < 0 || p.clock < 0 || p.days() < 0 || p.days() > 9999*400*2) {
			t.Errorf("%q is taken for %+v", s, p)
		}
	})
}
