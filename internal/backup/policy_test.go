package backup

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kluis/internal/armid"
)

var vaultID = armid.Must("/subscriptions/s/resourceGroups/g/providers/Microsoft.RecoveryServices/vaults/v")

func at(s string) time.Time {
	t, err := time.Parse("2006-01-02 15:04", s)
	if err != nil {
		panic(err)
	}
	return t
}

func TestScheduleNext(t *testing.T) {
	daily := Schedule{Frequency: "Daily", Times: []time.Time{at("2020-01-01 22:00")}}
	weekly := Schedule{Frequency: "Weekly", Days: []string{"Monday", "Friday"}, Times: []time.Time{at("2020-01-01 03:30")}}
	for _, c := range []struct {
		schedule    Schedule
		after, want string
	}{
		{daily, "2026-11-23 10:00", "2026-11-23 22:00"},
		{daily, "2026-11-23 22:00", "2026-11-24 22:00"},
		{daily, "2026-12-31 23:00", "2027-01-01 22:00"},
		{weekly, "2026-11-23 03:00", "2026-11-23 03:30"}, // a Monday
		{weekly, "2026-11-23 03:30", "2026-11-27 03:30"},
		{weekly, "2026-11-27 04:00", "2026-11-30 03:30"},
	} {
		if got := c.schedule.Next(at(c.after)); !got.Equal(at(c.want)) {
			t.Errorf("%s after %s is %v, want %s", c.schedule.Frequency, c.after, got, c.want)
		}
	}
}

func TestRetentionExpiry(t *testing.T) {
	r := Retention{
		Daily:  &DailyRetention{Duration: Duration{10, "Days"}},
		Weekly: &WeeklyRetention{Days: []string{"Sunday"}, Duration: Duration{4, "Weeks"}},
		Monthly: &MonthlyRetention{Format: "Weekly", Weekdays: &WeekdaysOf{Days: []string{"Sunday"}, Weeks: []string{"Last"}},
			Duration: Duration{6, "Months"}},
		Yearly: &YearlyRetention{Months: []string{"December"}, MonthlyRetention: MonthlyRetention{Format: "Daily",
			Dates: &DatesOf{Days: []DateOf{{IsLast: true}}}, Duration: Duration{3, "Years"}}},
	}
	for _, c := range []struct{ taken, want, why string }{
		{"2026-11-23 22:00", "2026-12-03 22:00", "daily"},
		{"2026-11-22 22:00", "2026-12-20 22:00", "a Sunday: weekly"},
		{"2026-11-29 22:00", "2027-05-29 22:00", "the last Sunday: monthly"},
		{"2026-12-31 22:00", "2029-12-31 22:00", "the last day of December: yearly"},
		{"2026-12-30 22:00", "2027-01-09 22:00", "the last day but one: daily"},
		{"2026-08-23 22:00", "2026-09-20 22:00", "the fourth Sunday of five: weekly"},
		{"2026-08-30 22:00", "2027-03-02 22:00", "the fifth Sunday of five: monthly"},
	} {
		if got := r.Expiry(at(c.taken)); !got.Equal(at(c.want)) {
			t.Errorf("%s (%s): kept until %v, want %s", c.taken, c.why, got, c.want)
		}
	}
}

// Whatever the schedule, the next time lies ahead, at the right time of day, and within eight days.
func TestScheduleNextProperty(t *testing.T) {
	days := []string{"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"}
	rapid.Check(t, func(t *rapid.T) {
		s := Schedule{Frequency: rapid.SampledFrom([]string{"Daily", "Weekly"}).Draw(t, "frequency"),
			Days:  rapid.SliceOfNDistinct(rapid.SampledFrom(days), 1, 7, rapid.ID).Draw(t, "days"),
			Times: []time.Time{time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "time")/60*60, 0).UTC()}}
		after := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "after"), 0).UTC()
		next := s.Next(after)
		if !next.After(after) || next.Sub(after) > 8*24*time.Hour || next.Hour() != s.Times[0].Hour() || next.Minute() != s.Times[0].Minute() {
			t.Fatalf("after %v comes %v", after, next)
		}
	})
}

func TestPolicyCheck(t *testing.T) {
	good := func() PolicyProperties { return defaultPolicy(vaultID, at("2026-11-23 00:00")).Body }
	if err := good().check(); err != nil {
		t.Fatalf("the default policy is refused: %v", err)
	}
	for name, spoil := range map[string]func(*PolicyProperties){
		"management type": func(p *PolicyProperties) { p.BackupManagementType = "AzureSql" },
		"time zone":       func(p *PolicyProperties) { p.TimeZone = "Pacific Standard Time" },
		"schedule type":   func(p *PolicyProperties) { p.Schedule.Type = "LogSchedulePolicy" },
		"two times":       func(p *PolicyProperties) { p.Schedule.Times = append(p.Schedule.Times, p.Schedule.Times[0]) },
		"no time":         func(p *PolicyProperties) { p.Schedule.Times = nil },
		"frequency":       func(p *PolicyProperties) { p.Schedule.Frequency = "Hourly" },
		"weekly, no days": func(p *PolicyProperties) { p.Schedule.Frequency = "Weekly" },
		"no retention":    func(p *PolicyProperties) { p.Retention.Daily = nil },
		"too short":       func(p *PolicyProperties) { p.Retention.Daily.Duration.Count = 6 },
		"too long":        func(p *PolicyProperties) { p.Retention.Daily.Duration.Count = 10000 },
		"weeks":           func(p *PolicyProperties) { p.Retention.Daily.Duration = Duration{5164, "Weeks"} },
		"months":          func(p *PolicyProperties) { p.Retention.Daily.Duration = Duration{1189, "Months"} },
		"years":           func(p *PolicyProperties) { p.Retention.Daily.Duration = Duration{100, "Years"} },
		"nothing":         func(p *PolicyProperties) { p.Retention.Daily.Duration.Count = 0 },
		"unit":            func(p *PolicyProperties) { p.Retention.Daily.Duration.Type = "Hours" },
		"bad weekday": func(p *PolicyProperties) {
			p.Retention.Weekly = &WeeklyRetention{Days: []string{"Caturday"}, Duration: Duration{4, "Weeks"}}
		},
		"monthly without days": func(p *PolicyProperties) {
			p.Retention.Monthly = &MonthlyRetention{Format: "Daily", Duration: Duration{4, "Months"}}
		},
		"bad month": func(p *PolicyProperties) { p.Retention.Yearly = &YearlyRetention{Months: []string{"Brumaire"}} },
	} {
		p := good()
		spoil(&p)
		if err := p.check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Days of the month are those of the calendar: a date that a month has not is not there, its last day always is.
func TestMonthlyDates(t *testing.T) {
	on := func(d DateOf) MonthlyRetention {
		return MonthlyRetention{Format: "Daily", Dates: &DatesOf{Days: []DateOf{d}}}
	}
	for _, c := range []struct {
		rule  DateOf
		taken string
		want  bool
	}{
		{DateOf{Date: 1}, "2026-03-01 22:00", true},
		{DateOf{Date: 1}, "2026-03-31 22:00", false},
		{DateOf{Date: 31}, "2026-04-30 22:00", false},
		{DateOf{IsLast: true}, "2026-04-30 22:00", true},
		{DateOf{IsLast: true}, "2028-02-28 22:00", false},
		{DateOf{IsLast: true}, "2028-02-29 22:00", true},
		{DateOf{IsLast: true}, "2026-12-31 22:00", true},
	} {
		if got := on(c.rule).covers(at(c.taken)); got != c.want {
			t.Errorf("%+v covers %s: %t", c.rule, c.taken, got)
		}
	}
}

// A policy that is accepted keeps every recovery point for at least a week, as long as its longest rule that
// applies says, and until a time that can be written down.
func TestExpiryProperty(t *testing.T) {
	duration := rapid.Custom(func(t *rapid.T) Duration {
		unit := rapid.SampledFrom([]string{"Days", "Weeks", "Months", "Years"}).Draw(t, "unit")
		least := 1
		if unit == "Days" {
			least = minRetentionDays
		}
		return Duration{rapid.IntRange(least, maxRetention[unit]).Draw(t, "count"), unit}
	})
	days := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"Sunday", "Wednesday", "Saturday"}), rapid.ID[string])
	rapid.Check(t, func(t *rapid.T) {
		p := defaultPolicy(vaultID, at("2026-11-23 00:00")).Body
		p.Retention.Daily = &DailyRetention{Duration: duration.Draw(t, "daily")}
		p.Retention.Weekly = &WeeklyRetention{Days: days.Draw(t, "days"), Duration: duration.Draw(t, "weekly")}
		p.Retention.Monthly = &MonthlyRetention{Format: "Weekly", Duration: duration.Draw(t, "monthly"),
			Weekdays: &WeekdaysOf{Days: days.Draw(t, "month days"), Weeks: []string{"First", "Last"}}}
		p.Retention.Yearly = &YearlyRetention{Months: []string{"January", "June"}, MonthlyRetention: MonthlyRetention{Format: "Daily",
			Dates: &DatesOf{Days: []DateOf{{Date: 1}, {IsLast: true}}}, Duration: duration.Draw(t, "yearly")}}
		if err := p.check(); err != nil {
			t.Fatal(err)
		}
		taken := time.Unix(rapid.Int64Range(1.7e9, 4e9).Draw(t, "taken"), 0).UTC()
		expiry := p.Retention.Expiry(taken)
		if expiry.Before(taken.AddDate(0, 0, minRetentionDays)) || expiry.Before(p.Retention.Daily.Duration.after(taken)) || expiry.After(taken.AddDate(maxRetentionYears, 0, 1)) {
			t.Fatalf("taken %v, kept until %v", taken, expiry)
		}
		if _, err := json.Marshal(expiry); err != nil {
			t.Fatal(err)
		}
	})
}
