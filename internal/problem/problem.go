// Package problem is the error a person reads: what happened, to which thing, and what to do.
//
// Services translate the plain errors of the engines below them into an *Error with a code from the
// Azure vocabulary; only the doors (package api/arm and the Key Vault door) turn it into JSON, and only
// they know HTTP status numbers. Callers branch on Kind, clients on Code, people on Message and Advice.
//
// An Error never carries anything secret: Message, Advice and Target are shown to callers and stored
// with failed jobs. Err, the cause, is for the log only and is never sent.
package problem

import (
	"errors"
	"fmt"
)

// Kind says what sort of failure this is; doors map it to a status.
type Kind int

// The kinds, in no order that matters. The zero value is Internal: an error nobody classified is ours.
const (
	Internal        Kind = iota // a defect or a broken disk; the text goes to the log only
	Invalid                     // the request can never work as it stands
	Unauthenticated             // no token, or one that is not valid
	Denied                      // the caller is known and may not
	NotFound                    // the thing does not exist
	Conflict                    // the thing is in a state that forbids this now
	TooLarge                    // the body exceeds the limit
	Unsupported                 // a thing this service does not do, and says so
	Unavailable                 // something that is needed is away; the same call may work later
)

// Error is a failure with a code, a message for a person and the action that mends it.
type Error struct {
	Kind    Kind
	Code    string // Azure's code where Azure has one, e.g. "UserErrorKeyVaultPermissionsNotConfigured"
	Target  string // the thing: a resource id, a parameter, a file
	Message string // what happened, one or two sentences
	Advice  string // the recommended action; may be empty only for protocol errors
	Details []*Error
	Err     error // the cause; for logs
}

// Error returns code and message, and the cause where there is one.
func (e *Error) Error() string {
	s := e.Code + ": " + e.Message
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Of returns the *Error inside err, or nil if there is none.
func Of(err error) *Error {
	var p *Error
	if errors.As(err, &p) {
		return p
	}
	return nil
}

// KindOf returns the kind of the *Error inside err, Internal if there is none.
func KindOf(err error) Kind {
	if p := Of(err); p != nil {
		return p.Kind
	}
	return Internal
}

// Is reports whether err carries the given code.
func Is(err error, code string) bool {
	p := Of(err)
	return p != nil && p.Code == code
}

// New makes an Error; the message is formatted with args.
func New(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithAdvice returns a copy that tells what to do.
func (e *Error) WithAdvice(format string, args ...any) *Error {
	c := *e
	c.Advice = fmt.Sprintf(format, args...)
	return &c
}

// WithTarget returns a copy that names the thing.
func (e *Error) WithTarget(target string) *Error {
	c := *e
	c.Target = target
	return &c
}

// WithCause returns a copy that keeps the cause for the log.
func (e *Error) WithCause(err error) *Error {
	c := *e
	c.Err = err
	return &c
}
