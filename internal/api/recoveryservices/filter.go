package recoveryservices

import (
	"slices"
	"strings"
	"time"

	"kluis/internal/api/arm"
)

// A $filter has been parsed by the router into names and values; what they mean is said here and by each
// list. A condition that a list does not know is refused: an answer without regard to it would be an
// answer to another question.

// conditions are a $filter's, names in lower case.
type conditions map[string]string

// filterOf returns the request's conditions, if the list knows them all.
func filterOf(r *arm.Request, known ...string) (conditions, error) {
	for name := range r.Filter {
		if !slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, name) }) {
			return nil, unknownCondition(name, known)
		}
	}
	return r.Filter, nil
}

// is reports whether an entry passes a condition, given the ways in which the entry's value is written.
// A condition that is not there lets everything pass.
func (c conditions) is(name string, values ...string) bool {
	want, there := c[strings.ToLower(name)]
	return !there || slices.ContainsFunc(values, func(v string) bool { return strings.EqualFold(v, want) })
}

// Times that are before and after all others.
var (
	always  = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	forever = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// period reads a pair of conditions as times. Both ends belong to the period.
func (c conditions) period(from, to string) (start, end time.Time, err error) {
	if start, err = c.time(from, always); err != nil {
		return start, end, err
	}
	end, err = c.time(to, forever)
	return start, end, err
}

func (c conditions) time(name string, absent time.Time) (time.Time, error) {
	text, there := c[strings.ToLower(name)]
	if !there {
		return absent, nil
	}
	t, ok := parseTime(text)
	if !ok {
		return time.Time{}, notATime(name)
	}
	return t, nil
}

// timeLayouts are the ways in which clients write a time. The first is az's.
var timeLayouts = []string{"2006-01-02 03:04:05 PM", clock24, time.RFC3339, "2006-01-02T15:04:05", time.DateOnly}

const clock24 = "2006-01-02 15:04:05"

// parseTime reads a time of a $filter; one without a zone is UTC. Azure's own documents put AM or PM also
// behind a clock of 24 hours ("13:00:00 PM").
func parseTime(text string) (time.Time, bool) {
	text = strings.ToUpper(strings.TrimSpace(text))
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, text); err == nil {
			return inTime(t)
		}
	}
	if clock, afternoon := strings.CutSuffix(text, " PM"); afternoon {
		if t, err := time.Parse(clock24, clock); err == nil {
			return inTime(t)
		}
	}
	return time.Time{}, false
}

func inTime(t time.Time) (time.Time, bool) {
	t = t.UTC()
	return t, !t.Before(always) && !t.After(forever)
}
