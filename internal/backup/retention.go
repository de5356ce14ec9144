package backup

import (
	"fmt"
	"slices"
	"time"
)

// How long a recovery point is kept: daily, weekly, monthly and yearly rules, of which the longest that applies counts
// (grandfather, father, son). Which rules apply follows from the time for which the backup was scheduled, in the policy's
// zone, and not from when it came to run: a backup of Sunday evening that a server was late for is Sunday's.
//
// Of a day with several backups the last stands for the day under the weekly, monthly and yearly rules. Under an hourly
// schedule it does also under the daily rule; Azure keeps the others as snapshots only, and so they are kept for the days
// that the policy keeps snapshots (instantRpRetentionRangeInDays).
//
// A rule that is changed counts for what was already taken, too (Service.reevaluate). Recovery points that somebody asked
// for have an expiry of their own and follow no rule.

// Retention is Azure's LongTermRetentionPolicy. A recovery point is kept as long as the longest rule
// that it falls under says.
type Retention struct {
	Type    string            `json:"retentionPolicyType"`
	Daily   *DailyRetention   `json:"dailySchedule,omitempty"`
	Weekly  *WeeklyRetention  `json:"weeklySchedule,omitempty"`
	Monthly *MonthlyRetention `json:"monthlySchedule,omitempty"`
	Yearly  *YearlyRetention  `json:"yearlySchedule,omitempty"`
}

// Duration is a count of days, weeks, months or years.
type Duration struct {
	Count int    `json:"count"`
	Type  string `json:"durationType"`
}

// DailyRetention keeps every recovery point.
type DailyRetention struct {
	Times    TimesOfDay `json:"retentionTimes,omitempty"`
	Duration Duration   `json:"retentionDuration"`
}

// WeeklyRetention keeps those of some days of the week.
type WeeklyRetention struct {
	Days     []string   `json:"daysOfTheWeek"`
	Times    TimesOfDay `json:"retentionTimes,omitempty"`
	Duration Duration   `json:"retentionDuration"`
}

// MonthlyRetention keeps those of some days of the month.
type MonthlyRetention struct {
	Format   string      `json:"retentionScheduleFormatType"` // Daily or Weekly
	Dates    *DatesOf    `json:"retentionScheduleDaily,omitempty"`
	Weekdays *WeekdaysOf `json:"retentionScheduleWeekly,omitempty"`
	Times    TimesOfDay  `json:"retentionTimes,omitempty"`
	Duration Duration    `json:"retentionDuration"`
}

// YearlyRetention keeps those of some days of some months.
type YearlyRetention struct {
	Months []string `json:"monthsOfYear"`
	MonthlyRetention
}

// DatesOf names days by their number in the month.
type DatesOf struct {
	Days []DateOf `json:"daysOfTheMonth"`
}

// DateOf is one date of a month; IsLast is its last day, however long it is.
type DateOf struct {
	Date   int  `json:"date"`
	IsLast bool `json:"isLast"`
}

// WeekdaysOf names days such as "the first and last Sunday".
type WeekdaysOf struct {
	Days  []string `json:"daysOfTheWeek"`
	Weeks []string `json:"weeksOfTheMonth"` // First, Second, Third, Fourth, Last
}

const (
	minRetentionDays = 7
	defaultRetention = 30 * 24 * time.Hour // of a backup on demand, and of one that falls under no rule
)

// maxRetention is the most of each unit. Whatever the unit, nothing is kept for longer than 99 years.
var maxRetention = map[string]int{"Days": 9999, "Weeks": 5163, "Months": 1188, "Years": maxRetained}

// Expiry returns until when a recovery point is kept that was scheduled for one time and taken at another.
func (p PolicyProperties) Expiry(scheduled, taken time.Time) time.Time {
	scheduled, taken = scheduled.In(p.location()), taken.In(p.location())
	last := p.Schedule.lastOfDay(scheduled)
	if p.Schedule.Frequency == "Hourly" && !last {
		return taken.AddDate(0, 0, p.InstantRetentionDays)
	}
	var expiry time.Time
	for _, rule := range p.Retention.rules() {
		if (rule.always || last && rule.covers(scheduled)) && rule.duration.after(taken).After(expiry) {
			expiry = rule.duration.after(taken)
		}
	}
	if expiry.IsZero() { // never lost for that
		return taken.Add(defaultRetention)
	}
	return expiry
}

// rule is one line of a retention policy.
type rule struct {
	always   bool // applies to every backup of a day
	covers   func(day time.Time) bool
	duration Duration
}

func (r Retention) rules() (all []rule) {
	if r.Daily != nil {
		all = append(all, rule{always: true, duration: r.Daily.Duration})
	}
	if r.Weekly != nil {
		all = append(all, rule{covers: r.Weekly.covers, duration: r.Weekly.Duration})
	}
	if r.Monthly != nil {
		all = append(all, rule{covers: r.Monthly.covers, duration: r.Monthly.Duration})
	}
	if r.Yearly != nil {
		all = append(all, rule{covers: r.Yearly.covers, duration: r.Yearly.Duration})
	}
	return all
}

func (w WeeklyRetention) covers(t time.Time) bool {
	return slices.Contains(w.Days, t.Weekday().String())
}

func (y YearlyRetention) covers(t time.Time) bool {
	return slices.Contains(y.Months, t.Month().String()) && y.MonthlyRetention.covers(t)
}

func (m MonthlyRetention) covers(t time.Time) bool {
	last := t.AddDate(0, 0, 1).Month() != t.Month()
	if m.Format == "Daily" {
		return slices.ContainsFunc(m.Dates.Days, func(d DateOf) bool { return d.Date == t.Day() || d.IsLast && last })
	}
	if !slices.Contains(m.Weekdays.Days, t.Weekday().String()) {
		return false
	}
	week := (t.Day() - 1) / 7
	names := []string{"First", "Second", "Third", "Fourth"}
	if week < len(names) && slices.Contains(m.Weekdays.Weeks, names[week]) {
		return true
	}
	return t.AddDate(0, 0, 7).Month() != t.Month() && slices.Contains(m.Weekdays.Weeks, "Last")
}

func (d Duration) after(t time.Time) time.Time {
	switch d.Type {
	case "Weeks":
		return t.AddDate(0, 0, 7*d.Count)
	case "Months":
		return t.AddDate(0, d.Count, 0)
	case "Years":
		return t.AddDate(d.Count, 0, 0)
	}
	return t.AddDate(0, 0, d.Count)
}

func (r Retention) check() error {
	if r.Type != "LongTermRetentionPolicy" {
		return fmt.Errorf("retentionPolicyType is %q; it is LongTermRetentionPolicy", r.Type)
	}
	if r.Daily != nil {
		if err := r.Daily.Duration.check("dailySchedule"); err != nil {
			return err
		}
	}
	if r.Weekly != nil {
		if err := r.Weekly.Duration.check("weeklySchedule"); err != nil {
			return err
		}
		if err := checkNames(r.Weekly.Days, "weeklySchedule.daysOfTheWeek", isWeekday); err != nil {
			return err
		}
	}
	if r.Monthly != nil {
		if err := r.Monthly.check("monthlySchedule"); err != nil {
			return err
		}
	}
	if r.Yearly != nil {
		if err := checkNames(r.Yearly.Months, "yearlySchedule.monthsOfYear", isMonth); err != nil {
			return err
		}
		return r.Yearly.check("yearlySchedule")
	}
	return nil
}

func (m MonthlyRetention) check(where string) error {
	switch {
	case m.Format == "Daily" && m.Dates != nil:
	case m.Format == "Weekly" && m.Weekdays != nil:
		if err := checkNames(m.Weekdays.Days, where+".daysOfTheWeek", isWeekday); err != nil {
			return err
		}
		if err := checkNames(m.Weekdays.Weeks, where+".weeksOfTheMonth", isWeekOfMonth); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s.retentionScheduleFormatType is %q without its schedule", where, m.Format)
	}
	return m.Duration.check(where)
}

func (d Duration) check(where string) error {
	most, ok := maxRetention[d.Type]
	if !ok {
		return fmt.Errorf("%s.retentionDuration.durationType is %q; it is Days, Weeks, Months or Years", where, d.Type)
	}
	if d.Count < 1 || d.Count > most {
		return fmt.Errorf("%s.retentionDuration.count is %d; for %s it is 1 to %d", where, d.Count, d.Type, most)
	}
	if d.Type == "Days" && d.Count < minRetentionDays {
		return fmt.Errorf("%s keeps recovery points for %d days; the least is %d", where, d.Count, minRetentionDays)
	}
	return nil
}
