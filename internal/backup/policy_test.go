package backup

import (
	"encoding/json"
	"strings"
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

func policyOf(s Schedule, timeZone string) PolicyProperties {
	if s.Type == "" {
		s.Type = scheduleV1
	}
	return PolicyProperties{Schedule: s, TimeZone: timeZone}
}

func clock(times ...string) (all []time.Time) {
	for _, t := range times {
		all = append(all, at("2020-01-01 "+t))
	}
	return all
}

func TestScheduleNext(t *testing.T) {
	daily := policyOf(Schedule{Frequency: "Daily", Times: clock("22:00")}, "")
	twice := policyOf(Schedule{Frequency: "Daily", Times: clock("22:00", "06:00")}, "")
	weekly := policyOf(Schedule{Frequency: "Weekly", Days: []string{"Monday", "Friday"}, Times: clock("03:30")}, "")
	berlin := policyOf(Schedule{Frequency: "Daily", Times: clock("22:00")}, "W. Europe Standard Time")
	night := policyOf(Schedule{Frequency: "Daily", Times: clock("02:30")}, "Europe/Berlin") // changed at 2:00 and 3:00
	india := policyOf(Schedule{Frequency: "Weekly", Days: []string{"Sunday"}, Times: clock("01:00")}, "India Standard Time")
	hourly := policyOf(Schedule{Type: scheduleV2, Frequency: "Hourly", Hourly: &HourlySchedule{Interval: 6, Start: clock("08:00")[0], Window: 12}}, "")
	always := policyOf(Schedule{Type: scheduleV2, Frequency: "Hourly", Hourly: &HourlySchedule{Interval: 8, Start: clock("20:30")[0], Window: 24}}, "")
	second := policyOf(Schedule{Type: scheduleV2, Frequency: "Weekly", Weekly: &WeeklySchedule{Days: []string{"Sunday"}, Times: clock("10:00")}}, "")
	for _, c := range []struct {
		name        string
		policy      PolicyProperties
		after, want string
	}{
		{"daily", daily, "2026-11-23 10:00", "2026-11-23 22:00"},
		{"daily", daily, "2026-11-23 22:00", "2026-11-24 22:00"},
		{"daily", daily, "2026-12-31 23:00", "2027-01-01 22:00"},
		{"twice a day", twice, "2026-11-23 05:00", "2026-11-23 06:00"},
		{"twice a day", twice, "2026-11-23 06:00", "2026-11-23 22:00"},
		{"weekly", weekly, "2026-11-23 03:00", "2026-11-23 03:30"}, // a Monday
		{"weekly", weekly, "2026-11-23 03:30", "2026-11-27 03:30"},
		{"weekly", weekly, "2026-11-27 04:00", "2026-11-30 03:30"},
		{"in winter", berlin, "2026-11-23 10:00", "2026-11-23 21:00"},
		{"in summer", berlin, "2026-07-23 10:00", "2026-07-23 20:00"},
		{"the evening before the clock changes", berlin, "2026-03-28 10:00", "2026-03-28 21:00"},
		{"the evening after", berlin, "2026-03-28 21:00", "2026-03-29 20:00"},
		{"a time that is skipped", night, "2026-03-28 10:00", "2026-03-29 01:30"},
		{"the night after", night, "2026-03-29 01:30", "2026-03-30 00:30"},
		{"a time that comes twice", night, "2026-10-24 10:00", "2026-10-25 01:30"},
		{"and runs once", night, "2026-10-25 01:30", "2026-10-26 01:30"},
		{"Sunday there, Saturday here", india, "2026-11-23 10:00", "2026-11-28 19:30"},
		{"hourly", hourly, "2026-11-23 07:00", "2026-11-23 08:00"},
		{"hourly", hourly, "2026-11-23 08:00", "2026-11-23 14:00"},
		{"the end of the window", hourly, "2026-11-23 14:00", "2026-11-23 20:00"},
		{"the next window", hourly, "2026-11-23 20:00", "2026-11-24 08:00"},
		{"round the clock", always, "2026-11-23 20:30", "2026-11-24 04:30"},
		{"round the clock", always, "2026-11-24 04:30", "2026-11-24 12:30"},
		{"round the clock", always, "2026-11-24 12:30", "2026-11-24 20:30"},
		{"weekly, enhanced", second, "2026-11-23 10:00", "2026-11-29 10:00"},
	} {
		if got := c.policy.Next(at(c.after)); !got.Equal(at(c.want)) {
			t.Errorf("%s after %s is %v, want %s", c.name, c.after, got.UTC(), c.want)
		}
		if got := c.policy.Previous(at(c.want)); !got.Equal(at(c.want)) {
			t.Errorf("%s at %s is %v", c.name, c.want, got.UTC())
		}
	}
}

// Whatever schedule and zone, the next time lies ahead, within eight days and at a time of the clock that the schedule names;
// nothing lies between it and the one before.
func TestScheduleNextProperty(t *testing.T) {
	days := []string{"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"}
	rapid.Check(t, func(t *rapid.T) {
		p := policyOf(Schedule{Frequency: rapid.SampledFrom([]string{"Daily", "Weekly"}).Draw(t, "frequency"),
			Days:  rapid.SliceOfNDistinct(rapid.SampledFrom(days), 1, 7, rapid.ID).Draw(t, "days"),
			Times: []time.Time{time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "time")/60*60, 0).UTC()}},
			rapid.SampledFrom([]string{"", "Romance Standard Time", "America/St_Johns", "Lord Howe Standard Time", "Asia/Kolkata"}).Draw(t, "zone"))
		after := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "after"), 0).UTC()
		next := p.Next(after)
		if !next.After(after) || next.Sub(after) > 8*24*time.Hour+2*time.Hour {
			t.Fatalf("after %v comes %v", after, next)
		}
		local := next.In(p.location())
		if off := (local.Hour()*60 + local.Minute() - minuteOf(p.Schedule.Times[0]) + 24*60) % (24 * 60); off > 60 && off < 23*60 { // the clock was changed
			t.Fatalf("after %v comes %v", after, local)
		}
		if previous := p.Previous(next.Add(-1)); !p.Next(previous).Equal(next) || previous.After(after) {
			t.Fatalf("before %v comes %v", next, previous)
		}
	})
}

// Every zone of the table is there.
func TestZones(t *testing.T) {
	if len(zoneNames()) < 130 {
		t.Fatalf("the table has %d zones", len(zoneNames()))
	}
	for name := range zoneNames() {
		if _, err := zone(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"Local", "Nowhere/At_all", "../etc/passwd", "/etc/localtime", "W. Europe"} {
		if _, err := zone(name); err == nil {
			t.Errorf("%q is taken for a time zone", name)
		}
	}
}

func TestPolicyCheck(t *testing.T) {
	good := func() PolicyProperties { return defaultPolicy(vaultID, at("2026-11-23 00:00")).Body }
	if err := good().check(); err != nil {
		t.Fatalf("the default policy is refused: %v", err)
	}
	if p := enhancedPolicy(vaultID, at("2026-11-23 00:00")).Body; p.check() != nil || p.instantExceeds() {
		t.Fatalf("the enhanced policy is refused: %v", p.check())
	}
	for name, spoil := range map[string]func(*PolicyProperties){
		"management type":            func(p *PolicyProperties) { p.BackupManagementType = "AzureSql" },
		"time zone":                  func(p *PolicyProperties) { p.TimeZone = "Pacific Time" },
		"schedule type":              func(p *PolicyProperties) { p.Schedule.Type = "LogSchedulePolicy" },
		"too many times":             func(p *PolicyProperties) { p.Schedule.Times = make([]time.Time, 25) },
		"kind of policy":             func(p *PolicyProperties) { p.PolicyType = "V3" },
		"kind of schedule, enhanced": func(p *PolicyProperties) { p.PolicyType = "V2" },
		"kind of schedule, standard": func(p *PolicyProperties) { p.Schedule.Type = scheduleV2 },
		"enhanced, no times": func(p *PolicyProperties) {
			p.PolicyType, p.Schedule = "V2", Schedule{Type: scheduleV2, Frequency: "Daily"}
		},
		"hourly, no window": func(p *PolicyProperties) {
			p.PolicyType, p.Schedule = "V2", Schedule{Type: scheduleV2, Frequency: "Hourly"}
		},
		"hourly, interval": func(p *PolicyProperties) { hourlyOf(p, HourlySchedule{Interval: 5, Window: 12}) },
		"hourly, window":   func(p *PolicyProperties) { hourlyOf(p, HourlySchedule{Interval: 4, Window: 25}) },
		"snapshots, daily": func(p *PolicyProperties) { p.InstantRetentionDays = 6 },
		"snapshots, enhanced": func(p *PolicyProperties) {
			hourlyOf(p, HourlySchedule{Interval: 4, Window: 12})
			p.InstantRetentionDays = 31
		},
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

func hourlyOf(p *PolicyProperties, h HourlySchedule) {
	p.PolicyType, p.InstantRetentionDays, p.Schedule = "V2", 7, Schedule{Type: scheduleV2, Frequency: "Hourly", Hourly: &h}
}

// Clients write the times of a policy with a date, as Azure does, or without one.
func TestTimesOfDay(t *testing.T) {
	for text, want := range map[string]string{
		`["2026-01-31T23:00:00Z"]`:                  "2026-01-31T23:00:00Z",
		`["23:00:00Z"]`:                             "2000-01-01T23:00:00Z",
		`["06:30:00Z","2016-06-11T14:00:00.0000Z"]`: "2000-01-01T06:30:00Z 2016-06-11T14:00:00Z",
		`[]`: "", `null`: "",
		`["23:00"]`: "refused", `["25:00:00Z"]`: "refused", `[""]`: "refused", `"23:00:00Z"`: "refused", `[7]`: "refused",
	} {
		var times TimesOfDay
		err := json.Unmarshal([]byte(text), &times)
		got := make([]string, len(times))
		for i, at := range times {
			got[i] = at.Format(time.RFC3339)
		}
		if all := strings.Join(got, " "); (err != nil) != (want == "refused") || err == nil && all != want {
			t.Errorf("%s is %q, %v; want %q", text, all, err, want)
		}
	}
}
