package blob

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"kluis/internal/storage"
)

// leaseOf is what lists and headers tell of a lease. Its id is told to nobody who does not have it.
func leaseOf(l storage.Lease, now time.Time) Lease {
	told := Lease{Status: "unlocked", State: l.State(now)}
	if l.IsHeld(now) {
		told.Status = "locked"
	}
	if told.State == "leased" {
		told.Duration = "fixed"
		if l.Expires.IsZero() {
			told.Duration = "infinite"
		}
	}
	return told
}

func tellLease(h http.Header, told Lease) {
	h.Set("X-Ms-Lease-State", told.State)
	h.Set("X-Ms-Lease-Status", told.Status)
	if told.Duration != "" {
		h.Set("X-Ms-Lease-Duration", told.Duration)
	}
}

// leaseHeader is the condition that the caller's lease makes, if they name one.
func (x request) leaseHeader() []storage.Condition {
	if id := x.Header.Get("X-Ms-Lease-Id"); id != "" {
		return []storage.Condition{storage.HoldsLease(id)}
	}
	return nil
}

// leaseAction is what the headers say is to be done to a lease.
func (x request) leaseAction() (a storage.LeaseAction, err error) {
	a = storage.LeaseAction{Verb: strings.ToLower(x.Header.Get("X-Ms-Lease-Action")), ID: strings.ToLower(x.Header.Get("X-Ms-Lease-Id")),
		Proposed: strings.ToLower(x.Header.Get("X-Ms-Proposed-Lease-Id")), Period: -1}
	switch a.Verb {
	case "acquire":
		if a.Seconds, err = strconv.Atoi(x.Header.Get("X-Ms-Lease-Duration")); err != nil {
			return a, invalidHeader("x-ms-lease-duration", "it is no number")
		}
	case "break":
		text := x.Header.Get("X-Ms-Lease-Break-Period")
		if text == "" {
			return a, nil
		}
		if a.Period, err = strconv.Atoi(text); err != nil || a.Period < 0 {
			return a, invalidHeader("x-ms-lease-break-period", "it is not a number from 0 on")
		}
	case "renew", "change", "release":
	default:
		return a, invalidHeader("x-ms-lease-action", "it is not acquire, renew, change, release or break")
	}
	return a, nil
}

func (d *door) leaseBlob(ctx context.Context, w http.ResponseWriter, x request) error {
	action, err := x.leaseAction()
	if err != nil {
		return err
	}
	x.Header.Del("X-Ms-Lease-Id") // it is the action's
	conditions, err := x.conditions()
	if err != nil {
		return err
	}
	b, err := d.s.LeaseBlob(ctx, x.account, x.container, x.blob, action, conditions...)
	if err != nil {
		return err
	}
	tell(w.Header(), b)
	return answerLease(w, action, b.Lease, d.o.Now())
}

func (d *door) leaseContainer(ctx context.Context, w http.ResponseWriter, x request) error {
	action, err := x.leaseAction()
	if err != nil {
		return err
	}
	c, err := d.s.LeaseContainer(ctx, x.account, x.container, action)
	if err != nil {
		return err
	}
	tellContainer(w.Header(), c)
	return answerLease(w, action, c.Lease, d.o.Now())
}

func answerLease(w http.ResponseWriter, action storage.LeaseAction, l storage.Lease, now time.Time) error {
	status := http.StatusOK
	switch action.Verb {
	case "acquire":
		status = http.StatusCreated
		w.Header().Set("X-Ms-Lease-Id", l.ID)
	case "renew", "change":
		w.Header().Set("X-Ms-Lease-Id", l.ID)
	case "break":
		status = http.StatusAccepted
		w.Header().Set("X-Ms-Lease-Time", strconv.Itoa(l.Left(now)))
	}
	w.WriteHeader(status)
	return nil
}
