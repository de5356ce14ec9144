package storage

import (
	"strings"
	"time"
)

// Condition is what must hold of the blob that is there, if one is, for a call to do anything.
type Condition struct {
	holds func(b Blob, found bool) error
	lease string // whose lease must be held, if it is about that
}

func (c Condition) namesLease() bool { return c.lease != "" }

// IfMatch wants a blob with one of these etags, "*" for any; ConditionNotMet otherwise.
func IfMatch(etags string) Condition {
	return Condition{holds: func(b Blob, found bool) error {
		if !found || !lists(etags, b) {
			return conditionNotMet()
		}
		return nil
	}}
}

// IfNoneMatch wants no blob with one of these etags; ConditionNotMet otherwise. "*" stands for any blob:
// BlobAlreadyExists.
func IfNoneMatch(etags string) Condition {
	return Condition{holds: func(b Blob, found bool) error {
		switch {
		case !found || !lists(etags, b):
			return nil
		case strings.TrimSpace(etags) == "*":
			return blobExists(b.Name)
		}
		return conditionNotMet()
	}}
}

// IfModifiedSince wants a blob that was written after a time, in whole seconds as HTTP tells them;
// ConditionNotMet otherwise.
func IfModifiedSince(t time.Time) Condition {
	return Condition{holds: func(b Blob, found bool) error {
		if found && !b.Modified.Truncate(time.Second).After(t) {
			return conditionNotMet()
		}
		return nil
	}}
}

// IfUnmodifiedSince wants no blob that was written after a time; ConditionNotMet otherwise.
func IfUnmodifiedSince(t time.Time) Condition {
	return Condition{holds: func(b Blob, found bool) error {
		if found && b.Modified.Truncate(time.Second).After(t) {
			return conditionNotMet()
		}
		return nil
	}}
}

// lists reports whether a list of etags, as HTTP writes it, has the blob's. Some clients leave the quotes out.
func lists(etags string, b Blob) bool {
	for e := range strings.SplitSeq(etags, ",") {
		if e = strings.TrimSpace(e); e == "*" || strings.Trim(e, `"`) == b.etag {
			return true
		}
	}
	return false
}

// Check is nil if all conditions hold of a blob.
func Check(conditions []Condition, b Blob, found bool, now time.Time) error {
	for _, c := range conditions {
		var err error
		if c.namesLease() {
			err = b.Lease.heldBy(c.lease, "WithBlobOperation", now)
		} else {
			err = c.holds(b, found)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
