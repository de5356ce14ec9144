package backup

import (
	"slices"
	"time"
)

// When a policy runs: on some days, at some times of the day, in its zone. Everything else follows from day and times.

// Next returns the first scheduled time after the given one.
func (p PolicyProperties) Next(after time.Time) time.Time {
	zone := p.location()
	for day := noonOf(after, zone); ; day = nextDay(day, 1) {
		for _, t := range p.Schedule.on(day) {
			if t.After(after) {
				return t
			}
		}
	}
}

// Previous returns the last scheduled time that is not after the given one.
func (p PolicyProperties) Previous(now time.Time) time.Time {
	for day := nextDay(noonOf(now, p.location()), 1); ; day = nextDay(day, -1) { // a time may be put off to the next day
		for _, t := range slices.Backward(p.Schedule.on(day)) {
			if !t.After(now) {
				return t
			}
		}
	}
}

// noonOf stands for a day: midnight is not there on every day.
func noonOf(t time.Time, zone *time.Location) time.Time {
	y, m, d := t.In(zone).Date()
	return time.Date(y, m, d, 12, 0, 0, 0, zone)
}

func nextDay(day time.Time, by int) time.Time { return day.AddDate(0, 0, by) }

// on returns the times at which the schedule runs on a day, ascending.
func (s Schedule) on(day time.Time) []time.Time {
	if days := s.days(); days != nil && !slices.Contains(days, day.Weekday().String()) {
		return nil
	}
	var all []time.Time
	for _, at := range s.timesOfDay() {
		all = append(all, time.Date(day.Year(), day.Month(), day.Day(), 0, at, 0, 0, day.Location()))
	}
	slices.SortFunc(all, time.Time.Compare)
	return slices.CompactFunc(all, time.Time.Equal)
}

// days are the weekdays on which the schedule runs; nil is every day.
func (s Schedule) days() []string {
	switch {
	case s.Frequency != "Weekly":
		return nil
	case s.Weekly != nil:
		return s.Weekly.Days
	}
	return s.Days
}

// runTimes are the times of the day as they were written.
func (s Schedule) runTimes() []time.Time {
	switch {
	case s.Type != scheduleV2:
		return s.Times
	case s.Frequency == "Daily" && s.Daily != nil:
		return s.Daily.Times
	case s.Frequency == "Weekly" && s.Weekly != nil:
		return s.Weekly.Times
	}
	return nil
}

// timesOfDay are the minutes after midnight at which the schedule runs, ascending.
func (s Schedule) timesOfDay() []int {
	var all []int
	for _, t := range s.runTimes() {
		all = append(all, minuteOf(t))
	}
	if s.Frequency == "Hourly" {
		const day = 24 * 60
		for hours := 0; hours <= s.Hourly.Window; hours += s.Hourly.Interval { // both ends of the window
			all = append(all, (minuteOf(s.Hourly.Start)+hours*60)%day)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// minuteOf is all that counts of a time that a policy names: the zone is the policy's, whatever is written behind it.
func minuteOf(t time.Time) int { return t.UTC().Hour()*60 + t.UTC().Minute() }

// lastOfDay reports whether a scheduled time is the last one of its day.
func (s Schedule) lastOfDay(scheduled time.Time) bool {
	times := s.on(noonOf(scheduled, scheduled.Location()))
	return len(times) == 0 || !scheduled.Before(times[len(times)-1])
}
