package backup

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // not every host has the database of time zones
)

// Azure names time zones as Windows does ("W. Europe Standard Time"), people as everybody else does ("Europe/Berlin").
// Both are understood. The times of a policy are clock times in its zone, also where the clock is changed in spring and
// autumn, which Azure leaves to people: a time that is skipped runs at the one that the clock shows then, a time that
// comes twice runs once.

// windowsZones are pairs of both names, from the Unicode Consortium's CLDR (windowsZones.xml, territory 001).
//
//go:embed windowszones.txt
var windowsZones string

var zoneNames = sync.OnceValue(func() map[string]string {
	names := map[string]string{}
	for line := range strings.Lines(windowsZones) {
		windows, iana, _ := strings.Cut(strings.TrimSpace(line), "\t")
		names[strings.ToLower(windows)] = iana
	}
	return names
})

// zone finds a time zone by either name; none is UTC.
func zone(name string) (*time.Location, error) {
	if name == "" || strings.EqualFold(name, "UTC") {
		return time.UTC, nil
	}
	if strings.EqualFold(name, "Local") { // would be whatever this server has
		return nil, fmt.Errorf("timeZone is %q, which is no name of a time zone", name)
	}
	iana, ok := zoneNames()[strings.ToLower(name)]
	if !ok {
		iana = name
	}
	location, err := time.LoadLocation(iana)
	if err != nil {
		return nil, fmt.Errorf("timeZone is %.60q; use a name such as W. Europe Standard Time, Europe/Berlin or UTC", name)
	}
	return location, nil
}

// location is the zone of a policy that has been checked.
func (p PolicyProperties) location() *time.Location {
	if location, err := zone(p.TimeZone); err == nil {
		return location
	}
	return time.UTC
}
