package keyvault

import (
	"errors"
	"strings"
	"time"
)

// period is an ISO 8601 duration. Months differ in length, so it is no time.Duration until it begins somewhere.
type period struct {
	months, ds int
	clock      time.Duration
}

var errPeriod = errors.New("not an ISO 8601 duration such as P90D, P2Y or P1Y6M")

// A number of a period has at most so many digits: nothing overflows.
const maxPeriodDigits = 4

// parsePeriod reads PnYnMnWnDTnHnMnS. Each part may be missing, but not all.
func parsePeriod(s string) (p period, err error) {
	rest, ok := strings.CutPrefix(s, "P")
	date, clock, timed := strings.Cut(rest, "T")
	if !ok || date == "" && clock == "" || timed && clock == "" {
		return period{}, errPeriod
	}
	err = eachPart(date, "YMWD", func(n int, unit byte) {
		switch unit {
		case 'Y':
			p.months += 12 * n
		case 'M':
			p.months += n
		case 'W':
			p.ds += 7 * n
		case 'D':
			p.ds += n
		}
	})
	if err != nil {
		return period{}, err
	}
	err = eachPart(clock, "HMS", func(n int, unit byte) {
		p.clock += time.Duration(n) * map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second}[unit]
	})
	if err != nil {
		return period{}, err
	}
	return p, nil
}

// eachPart reads numbers, each with one of the units, which come in their order and at most once.
func eachPart(s, units string, part func(n int, unit byte)) error {
	n, digits := 0, 0
	for i := range len(s) {
		c := s[i]
		if isDigit(c) {
			if digits++; digits > maxPeriodDigits {
				return errPeriod
			}
			n = 10*n + int(c-'0')
			continue
		}
		at := strings.IndexByte(units, c)
		if at < 0 || digits == 0 {
			return errPeriod
		}
		part(n, c)
		units = units[at+1:]
		n, digits = 0, 0
	}
	if digits != 0 {
		return errPeriod
	}
	return nil
}

func (p period) after(t time.Time) time.Time  { return t.AddDate(0, p.months, p.ds).Add(p.clock) }
func (p period) before(t time.Time) time.Time { return t.AddDate(0, -p.months, -p.ds).Add(-p.clock) }

// days is about how long the period is, for comparisons with bounds: a year is 365 days, a month 30.
func (p period) days() int {
	return p.months/12*365 + p.months%12*30 + p.ds + int(p.clock/(24*time.Hour))
}
