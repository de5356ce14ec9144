package backup

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// What is kept until when: the longest rule that applies to the time for which a backup was scheduled counts, from the time
// at which it was taken.
func TestExpiry(t *testing.T) {
	rules := Retention{
		Daily:  &DailyRetention{Duration: Duration{10, "Days"}},
		Weekly: &WeeklyRetention{Days: []string{"Sunday"}, Duration: Duration{4, "Weeks"}},
		Monthly: &MonthlyRetention{Format: "Weekly", Weekdays: &WeekdaysOf{Days: []string{"Sunday"}, Weeks: []string{"Last"}},
			Duration: Duration{6, "Months"}},
		Yearly: &YearlyRetention{Months: []string{"December"}, MonthlyRetention: MonthlyRetention{Format: "Daily",
			Dates: &DatesOf{Days: []DateOf{{IsLast: true}}}, Duration: Duration{3, "Years"}}},
	}
	daily := PolicyProperties{Schedule: Schedule{Type: scheduleV1, Frequency: "Daily", Times: clock("22:00")}, Retention: rules}
	twice := daily
	twice.Schedule.Times = clock("10:00", "22:00")
	tokyo := daily
	tokyo.TimeZone, tokyo.Schedule.Times = "Tokyo Standard Time", clock("06:00") // 21:00 UTC of the day before
	hourly := PolicyProperties{PolicyType: "V2", InstantRetentionDays: 5, Retention: rules,
		Schedule: Schedule{Type: scheduleV2, Frequency: "Hourly", Hourly: &HourlySchedule{Interval: 4, Start: clock("08:00")[0], Window: 12}}}
	weekly := PolicyProperties{Schedule: Schedule{Type: scheduleV1, Frequency: "Weekly", Days: []string{"Sunday", "Monday"}, Times: clock("22:00")},
		Retention: Retention{Weekly: rules.Weekly}}
	for _, c := range []struct {
		policy           PolicyProperties
		scheduled, taken string
		want, why        string
	}{
		{daily, "2026-11-23 22:00", "2026-11-23 22:00", "2026-12-03 22:00", "daily"},
		{daily, "2026-11-22 22:00", "2026-11-22 22:00", "2026-12-20 22:00", "a Sunday: weekly"},
		{daily, "2026-11-22 22:00", "2026-11-23 02:00", "2026-12-21 02:00", "a Sunday's that ran late: weekly"},
		{daily, "2026-11-29 22:00", "2026-11-29 22:00", "2027-05-29 22:00", "the last Sunday: monthly"},
		{daily, "2026-12-31 22:00", "2026-12-31 22:00", "2029-12-31 22:00", "the last day of December: yearly"},
		{daily, "2026-12-31 22:00", "2027-01-01 00:10", "2030-01-01 00:10", "the last day of December, late: yearly"},
		{daily, "2026-12-30 22:00", "2026-12-30 22:00", "2027-01-09 22:00", "the last day but one: daily"},
		{daily, "2026-08-23 22:00", "2026-08-23 22:00", "2026-09-20 22:00", "the fourth Sunday of five: weekly"},
		{daily, "2026-08-30 22:00", "2026-08-30 22:00", "2027-03-02 22:00", "the fifth Sunday of five: monthly"},
		{twice, "2026-11-22 10:00", "2026-11-22 10:00", "2026-12-02 10:00", "a Sunday's first of two: daily"},
		{twice, "2026-11-22 22:00", "2026-11-22 22:00", "2026-12-20 22:00", "a Sunday's last of two: weekly"},
		{tokyo, "2026-11-21 21:00", "2026-11-21 21:00", "2026-12-19 21:00", "Sunday morning in Tokyo: weekly"},
		{tokyo, "2026-11-22 21:00", "2026-11-22 21:00", "2026-12-02 21:00", "Monday morning in Tokyo: daily"},
		{hourly, "2026-11-22 08:00", "2026-11-22 08:00", "2026-11-27 08:00", "within the day: as long as snapshots"},
		{hourly, "2026-11-23 20:00", "2026-11-23 20:00", "2026-12-03 20:00", "the last of the day: daily"},
		{hourly, "2026-11-22 20:00", "2026-11-22 20:00", "2026-12-20 20:00", "the last of a Sunday: weekly"},
		{weekly, "2026-11-22 22:00", "2026-11-22 22:00", "2026-12-20 22:00", "a Sunday: weekly"},
		{weekly, "2026-11-23 22:00", "2026-11-23 22:00", "2026-12-23 22:00", "a Monday, of which nothing is said: 30 days"},
	} {
		if got := c.policy.Expiry(at(c.scheduled), at(c.taken)); !got.Equal(at(c.want)) {
			t.Errorf("%s, taken %s (%s): kept until %v, want %s", c.scheduled, c.taken, c.why, got.UTC(), c.want)
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
		expiry := p.Expiry(taken, taken)
		if expiry.Before(taken.AddDate(0, 0, minRetentionDays)) || expiry.Before(p.Retention.Daily.Duration.after(taken)) || expiry.After(taken.AddDate(maxRetained, 0, 1)) {
			t.Fatalf("taken %v, kept until %v", taken, expiry)
		}
		if _, err := json.Marshal(expiry); err != nil {
			t.Fatal(err)
		}
	})
}
