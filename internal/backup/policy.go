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

// Schedule is Azure's SimpleSchedulePolicy: daily, or weekly on some days; and its second kind, which also runs every few
// hours of a window, and which writes days and times in members of their own. Azure runs at one time of the day, here
// there can be several.
type Schedule struct {
	Type            string          `json:"schedulePolicyType"`
	Frequency       string          `json:"scheduleRunFrequency"`
	Days            []string        `json:"scheduleRunDays,omitempty"`
	Times           TimesOfDay      `json:"scheduleRunTimes,omitempty"` // only hours and minutes count
	WeeklyFrequency int             `json:"scheduleWeeklyFrequency"`
	Hourly          *HourlySchedule `json:"hourlySchedule,omitempty"`
	Daily           *DailySchedule  `json:"dailySchedule,omitempty"`
	Weekly          *WeeklySchedule `json:"weeklySchedule,omitempty"`
}

// TimesOfDay are times of which only hours and minutes count. Azure writes them with some date; Terraform's provider sends
// them without one.
type TimesOfDay []time.Time

// UnmarshalJSON reads 2026-01-31T23:00:00Z and 23:00:00Z.
func (t *TimesOfDay) UnmarshalJSON(data []byte) error {
	var texts []string
	if err := json.Unmarshal(data, &texts); err != nil {
		return err
	}
	*t = nil
	for _, text := range texts {
		at, err := time.Parse(time.RFC3339, text)
		if clock, noDate := time.Parse("15:04:05Z07:00", text); err != nil && noDate == nil {
			at, err = clock.AddDate(2000, 0, 0), nil
		}
		if err != nil {
			return fmt.Errorf("%q is not a time such as 2026-01-31T23:00:00Z or 23:00:00Z", text)
		}
		*t = append(*t, at)
	}
	return nil
}

// HourlySchedule runs every few hours, from the start of a window to its end.
type HourlySchedule struct {
	Interval int       `json:"interval"` // hours
	Start    time.Time `json:"scheduleWindowStartTime"`
	Window   int       `json:"scheduleWindowDuration"` // hours
}

// DailySchedule runs every day.
type DailySchedule struct {
	Times TimesOfDay `json:"scheduleRunTimes"`
}

// WeeklySchedule runs on some days of the week.
type WeeklySchedule struct {
	Days  []string   `json:"scheduleRunDays"`
	Times TimesOfDay `json:"scheduleRunTimes"`
}

// The kinds of schedule. The second is that of an enhanced policy.
const (
	scheduleV1 = "SimpleSchedulePolicy"
	scheduleV2 = "SimpleSchedulePolicyV2"
)

// Limits of Azure Backup for policies, but for the number of times.
const (
	maxRunTimes    = 24
	maxRetained    = 99 // years, whatever the unit
	defaultInstant = 2  // days, of a standard policy
	weeklyInstant  = 5
	maxInstant     = 30 // of an enhanced policy
	dayInstant     = 7
)

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

// enhancedPolicy is the other policy that every new vault has: every four hours from 8:00 to 20:00 UTC, kept for 30 days.
func enhancedPolicy(vault armid.ID, now time.Time) Policy {
	at := time.Date(now.Year(), now.Month(), now.Day(), 8, 0, 0, 0, time.UTC)
	return Policy{
		ID: vault.Child("backupPolicies", "EnhancedPolicy"),
		Body: PolicyProperties{
			BackupManagementType: managementType,
			PolicyType:           "V2",
			InstantRPDetails:     json.RawMessage(`{}`),
			Schedule:             Schedule{Type: scheduleV2, Frequency: "Hourly", Hourly: &HourlySchedule{Interval: 4, Start: at, Window: 12}},
			Retention: Retention{Type: "LongTermRetentionPolicy",
				Daily: &DailyRetention{Times: []time.Time{at}, Duration: Duration{30, "Days"}}},
			InstantRetentionDays: dayInstant,
			TimeZone:             "UTC",
		},
	}
}

// complete fills in what nobody has said: Azure's defaults.
func (p PolicyProperties) complete() PolicyProperties {
	if p.InstantRetentionDays == 0 {
		switch {
		case p.enhanced():
			p.InstantRetentionDays = dayInstant
		case p.Schedule.Frequency == "Weekly":
			p.InstantRetentionDays = weeklyInstant
		default:
			p.InstantRetentionDays = defaultInstant
		}
	}
	if p.TimeZone == "" {
		p.TimeZone = "UTC"
	}
	return p
}

// check says what is wrong with a policy, in words for the person who wrote it; nil if nothing is.
func (p PolicyProperties) check() error {
	if p.BackupManagementType != managementType {
		return fmt.Errorf("backupManagementType is %q; only %s is backed up here", p.BackupManagementType, managementType)
	}
	if _, err := zone(p.TimeZone); err != nil {
		return err
	}
	if err := p.checkKind(); err != nil {
		return err
	}
	if err := p.Schedule.check(); err != nil {
		return err
	}
	switch {
	case p.Schedule.Frequency == "Weekly" && p.Retention.Weekly == nil:
		return fmt.Errorf("a weekly schedule needs retentionPolicy.weeklySchedule")
	case p.Schedule.Frequency != "Weekly" && p.Retention.Daily == nil:
		return fmt.Errorf("a schedule that runs every day needs retentionPolicy.dailySchedule")
	}
	if err := p.Retention.check(); err != nil {
		return err
	}
	return p.checkInstant()
}

// checkKind sees that policy and schedule are of one kind.
func (p PolicyProperties) checkKind() error {
	switch {
	case p.PolicyType != "" && p.PolicyType != "V1" && p.PolicyType != "V2":
		return fmt.Errorf("policyType is %.40q; it is V1 or V2", p.PolicyType)
	case p.enhanced() && p.Schedule.Type != scheduleV2:
		return fmt.Errorf("schedulePolicyType is %.60q; that of an enhanced policy (V2) is %s", p.Schedule.Type, scheduleV2)
	case !p.enhanced() && p.Schedule.Type != scheduleV1:
		return fmt.Errorf("schedulePolicyType is %.60q; that of a standard policy is %s, and %s belongs to policyType V2", p.Schedule.Type, scheduleV1, scheduleV2)
	}
	return nil
}

// checkInstant bounds for how long snapshots are kept, which here are the points of an hourly schedule within the day.
func (p PolicyProperties) checkInstant() error {
	least, most := 1, weeklyInstant
	switch {
	case p.enhanced():
		most = maxInstant
	case p.Schedule.Frequency == "Weekly":
		least = weeklyInstant
	}
	if days := p.InstantRetentionDays; days < least || days > most {
		return fmt.Errorf("instantRpRetentionRangeInDays is %d; for this policy it is %d to %d", days, least, most)
	}
	return nil
}

// instantExceeds reports whether snapshots would be kept for longer than what is kept of every day.
func (p PolicyProperties) instantExceeds() bool {
	d := p.Retention.Daily
	return d != nil && d.Duration.Type == "Days" && p.InstantRetentionDays >= d.Duration.Count
}

func (s Schedule) check() error {
	if err := checkNames(s.days(), "scheduleRunDays", isWeekday); err != nil {
		return err
	}
	switch {
	case s.Frequency == "Hourly" && s.Type == scheduleV2:
		return s.Hourly.check()
	case s.Frequency != "Daily" && s.Frequency != "Weekly":
		return fmt.Errorf("scheduleRunFrequency is %.40q; it is Daily or Weekly, or Hourly in an enhanced policy (V2)", s.Frequency)
	case s.Frequency == "Weekly" && len(s.days()) == 0:
		return fmt.Errorf("a weekly schedule needs scheduleRunDays")
	}
	if n := len(s.runTimes()); n < 1 || n > maxRunTimes {
		return fmt.Errorf("scheduleRunTimes has %d times; it has 1 to %d", n, maxRunTimes)
	}
	return nil
}

func (h *HourlySchedule) check() error {
	switch {
	case h == nil:
		return fmt.Errorf("an hourly schedule needs hourlySchedule")
	case !slices.Contains([]int{4, 6, 8, 12, 24}, h.Interval):
		return fmt.Errorf("hourlySchedule.interval is %d; it is 4, 6, 8, 12 or 24 hours", h.Interval)
	case h.Window < 4 || h.Window > 24:
		return fmt.Errorf("hourlySchedule.scheduleWindowDuration is %d; it is 4 to 24 hours", h.Window)
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
