package recoveryservices

import (
	"fmt"
	"strings"
	"time"

	"kluis/internal/api/arm"
)

// versions are the api-versions of vaults and of all that is in them: from the first that PowerShell sends,
// 2016-06-01, on. Which ones Azure has published is told by azure-rest-api-specs.
var versions = map[string]arm.Versions{namespace: {
	"2025-08-01", "2025-02-01", "2025-01-01", "2024-10-01", "2024-04-01", "2024-02-01", "2024-01-01", "2023-08-01", "2023-06-01",
	"2023-04-01", "2023-02-01", "2023-01-01", "2022-10-01", "2022-09-10", "2022-09-01-preview", "2022-08-01", "2022-06-01-preview",
	"2022-04-01", "2022-03-01", "2022-02-01", "2022-01-01", "2021-12-01", "2021-11-15", "2021-10-01", "2021-08-01", "2021-07-01",
	"2021-06-01", "2021-04-01", "2021-03-01", "2021-02-10", "2021-02-01", "2021-01-01", "2020-12-01", "2020-10-01", "2020-02-02",
	"2019-06-15", "2019-05-13", "2018-12-20", "2018-07-10", "2018-01-10", "2017-07-01", "2016-12-01", "2016-08-10", "2016-06-01",
}}

// Before 2018 Azure wrote durations as .NET does, and some words as the numbers that its own enumerations have.
const wordsSince = "2018"

func old(r *arm.Request) bool { return r.APIVersion < wordsSince }

// numbers are those of words that clients of old api-versions read as numbers.
var numbers = map[string]int{"Cancellable": 1, "HardenedRP": 2, "Valid": 1}

// word is a word of an enumeration, as the request's api-version has it.
func word(r *arm.Request, name string) any {
	if old(r) {
		return numbers[name]
	}
	return name
}

// span is a duration, as the request's api-version has it.
func span(r *arm.Request, d time.Duration) string {
	if old(r) {
		return dotnet(d)
	}
	return iso(d)
}

// iso writes a duration as ISO 8601 does, to the millisecond: PT1H1M22.5S.
func iso(d time.Duration) string {
	d = max(d, 0).Round(time.Millisecond)
	s := "PT"
	if h := d / time.Hour; h > 0 {
		s += fmt.Sprintf("%dH", h)
	}
	if m := d % time.Hour / time.Minute; m > 0 {
		s += fmt.Sprintf("%dM", m)
	}
	if ms := d % time.Minute / time.Millisecond; ms > 0 || s == "PT" {
		s += strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%d.%03d", ms/1000, ms%1000), "0"), ".") + "S"
	}
	return s
}

// dotnet writes a duration as .NET's TimeSpan is written: [d.]hh:mm:ss.fffffff.
func dotnet(d time.Duration) string {
	const day = 24 * time.Hour
	s := ""
	if days := d / day; days > 0 {
		s = fmt.Sprintf("%d.", days)
	}
	ticks := d % time.Minute / 100 // of 100 ns
	return s + fmt.Sprintf("%02d:%02d:%02d.%07d", d%day/time.Hour, d%time.Hour/time.Minute, ticks/1e7, ticks%1e7)
}
