package backup

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"kluis/internal/armid"
)

// Policy says when the items it is given to are backed up, and for how long each recovery point is
// kept. The JSON names are those of Azure's AzureIaaSVMProtectionPolicy: the document is stored and
// shown as it was sent, and what it says is read from it.
type Policy struct {
	ID   armid.ID         `json:"-"`
	Body PolicyProperties `json:"properties"`
}

// PolicyProperties is the body of a policy for virtual machines. Properties that say nothing about
// schedule and retention are kept as they came.
type PolicyProperties struct {
	BackupManagementType string          `json:"backupManagementType"`
	PolicyType           string          `json:"policyType,omitempty"`
	InstantRPDetails     json.RawMessage `json:"instantRPDetails,omitempty"`
	Schedule             Schedule        `json:"schedulePolicy"`
	Retention            Retention       `json:"retentionPolicy"`
	TieringPolicy        json.RawMessage `json:"tieringPolicy,omitempty"`
	InstantRetentionDays int             `json:"instantRpRetentionRangeInDays,omitempty"`
	TimeZone             string          `json:"timeZone,omitempty"`
	ProtectedItemsCount  int             `json:"protectedItemsCount"`
}

// enhanced reports whether it is a policy of Azure's second kind.
func (p PolicyProperties) enhanced() bool { return p.PolicyType == "V2" }

// Schedule is Azure's SimpleSchedulePolicy: daily, or weekly on some days, at one time of the day.
type Schedule struct {
	Type            string      `json:"schedulePolicyType"`
	Frequency       string      `json:"scheduleRunFrequency"`
	Days            []string    `json:"scheduleRunDays,omitempty"`
	Times           []time.Time `json:"scheduleRunTimes"` // only hours and minutes count
	WeeklyFrequency int         `json:"scheduleWeeklyFrequency"`
}

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
	Times    []time.Time `json:"retentionTimes,omitempty"`
	Duration Duration    `json:"retentionDuration"`
}

// WeeklyRetention keeps those of some days of the week.
type WeeklyRetention struct {
	Days     []string    `json:"daysOfTheWeek"`
	Times    []time.Time `json:"retentionTimes,omitempty"`
	Duration Duration    `json:"retentionDuration"`
}

// MonthlyRetention keeps those of some days of the month.
type MonthlyRetention struct {
	Format   string      `json:"retentionScheduleFormatType"` // Daily or Weekly
	Dates    *DatesOf    `json:"retentionScheduleDaily,omitempty"`
	Weekdays *WeekdaysOf `json:"retentionScheduleWeekly,omitempty"`
	Times    []time.Time `json:"retentionTimes,omitempty"`
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

// Limits of Azure Backup for a standard policy. Whatever the unit, nothing is kept for longer than 99 years.
const (
	maxRetentionYears   = 99
	minRetentionDays    = 7
	defaultRetention    = 30 * 24 * time.Hour // of a backup on demand
	maxScheduleRunTimes = 1
)

var maxRetention = map[string]int{"Days": 9999, "Weeks": 5163, "Months": 1188, "Years": maxRetentionYears}

// defaultPolicy is the policy that every new vault has: daily at 22:00 UTC, kept for 30 days.
func defaultPolicy(vault armid.ID, now time.Time) Policy {
	at := time.Date(now.Year(), now.Month(), now.Day(), 22, 0, 0, 0, time.UTC)
	return Policy{
		ID: vault.Child("backupPolicies", "DefaultPolicy"),
		Body: PolicyProperties{
			BackupManagementType: managementType,
			InstantRPDetails:     json.RawMessage(`{}`),
			Schedule:             Schedule{Type: "SimpleSchedulePolicy", Frequency: "Daily", Times: []time.Time{at}},
			Retention: Retention{Type: "LongTermRetentionPolicy",
				Daily: &DailyRetention{Times: []time.Time{at}, Duration: Duration{30, "Days"}}},
			InstantRetentionDays: 2,
			TimeZone:             "UTC",
		},
	}
}

// check says what is wrong with a policy, in words for the person who wrote it; nil if nothing is.
func (p PolicyProperties) check() error {
	if p.BackupManagementType != managementType {
		return fmt.Errorf("backupManagementType is %q; only %s is backed up here", p.BackupManagementType, managementType)
	}
	if p.TimeZone != "" && p.TimeZone != "UTC" {
		return fmt.Errorf("timeZone is %q; schedules run in UTC here", p.TimeZone)
	}
	if p.Schedule.Type != "SimpleSchedulePolicy" {
		return fmt.Errorf("schedulePolicyType is %q; SimpleSchedulePolicy is the one that runs here", p.Schedule.Type)
	}
	if len(p.Schedule.Times) != maxScheduleRunTimes {
		return fmt.Errorf("scheduleRunTimes has %d times; a policy runs at one", len(p.Schedule.Times))
	}
	switch p.Schedule.Frequency {
	case "Daily":
		if p.Retention.Daily == nil {
			return fmt.Errorf("a daily schedule needs retentionPolicy.dailySchedule")
		}
	case "Weekly":
		if len(p.Schedule.Days) == 0 {
			return fmt.Errorf("a weekly schedule needs scheduleRunDays")
		}
		if p.Retention.Weekly == nil {
			return fmt.Errorf("a weekly schedule needs retentionPolicy.weeklySchedule")
		}
	default:
		return fmt.Errorf("scheduleRunFrequency is %q; it is Daily or Weekly", p.Schedule.Frequency)
	}
	if err := checkNames(p.Schedule.Days, "scheduleRunDays", isWeekday); err != nil {
		return err
	}
	return p.Retention.check()
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

func checkNames(names []string, where string, ok func(string) bool) error {
	for _, n := range names {
		if !ok(n) {
			return fmt.Errorf("%s has %q", where, n)
		}
	}
	return nil
}

func isWeekday(s string) bool {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if d.String() == s {
			return true
		}
	}
	return false
}

func isMonth(s string) bool {
	for m := time.January; m <= time.December; m++ {
		if m.String() == s {
			return true
		}
	}
	return false
}

func isWeekOfMonth(s string) bool {
	return slices.Contains([]string{"First", "Second", "Third", "Fourth", "Last"}, s)
}

// Next returns the first scheduled time after the given one.
func (s Schedule) Next(after time.Time) time.Time {
	after = after.UTC()
	at := s.Times[0].UTC()
	for day := 0; ; day++ {
		next := time.Date(after.Year(), after.Month(), after.Day()+day, at.Hour(), at.Minute(), 0, 0, time.UTC)
		if next.After(after) && (s.Frequency == "Daily" || slices.Contains(s.Days, next.Weekday().String())) {
			return next
		}
	}
}

// Expiry returns until when a recovery point of a scheduled backup is kept.
func (r Retention) Expiry(taken time.Time) time.Time {
	taken = taken.UTC()
	var expiry time.Time
	keep := func(applies bool, d Duration) {
		if until := d.after(taken); applies && until.After(expiry) {
			expiry = until
		}
	}
	if r.Daily != nil {
		keep(true, r.Daily.Duration)
	}
	if r.Weekly != nil {
		keep(slices.Contains(r.Weekly.Days, taken.Weekday().String()), r.Weekly.Duration)
	}
	if r.Monthly != nil {
		keep(r.Monthly.covers(taken), r.Monthly.Duration)
	}
	if r.Yearly != nil {
		keep(slices.Contains(r.Yearly.Months, taken.Month().String()) && r.Yearly.covers(taken), r.Yearly.Duration)
	}
	if expiry.IsZero() { // falls under no rule, such as a weekly backup that ran late: never lost for that
		return taken.Add(defaultRetention)
	}
	return expiry
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
