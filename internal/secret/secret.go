// Package secret holds bytes that never print.
//
// Whatever formats, logs or marshals a Bytes gets "[secret]". The one way to the value is Reveal, so
// every use of key material can be found by searching for that word. Wipe zeroes the memory; the
// runtime may have copied it before, so this narrows the window rather than closing it.
package secret

import (
	"fmt"
	"log/slog"
)

const redacted = "[secret]"

// Bytes is key material: a key, a passphrase, a secret's value. The zero value is empty.
type Bytes struct{ b []byte }

// New takes ownership of b: the caller must not use b afterwards.
func New(b []byte) Bytes { return Bytes{b} }

// Copy makes a Bytes from a copy of b.
func Copy(b []byte) Bytes { return Bytes{append([]byte(nil), b...)} }

// Reveal returns the value itself, not a copy. Don't keep it, don't print it.
func (s Bytes) Reveal() []byte { return s.b }

// Len is the number of bytes.
func (s Bytes) Len() int { return len(s.b) }

// Wipe zeroes the value in place.
func (s Bytes) Wipe() { clear(s.b) }

// String returns a placeholder.
func (Bytes) String() string { return redacted }

// GoString returns a placeholder.
func (Bytes) GoString() string { return redacted }

// Format writes a placeholder for every verb.
func (Bytes) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue returns a placeholder.
func (Bytes) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON returns a placeholder: key material is sealed before it is stored, never marshalled.
func (Bytes) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText returns a placeholder.
func (Bytes) MarshalText() ([]byte, error) { return []byte(redacted), nil }
