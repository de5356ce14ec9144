package objects

import "errors"

// ErrLocked is returned by Lock when another holds the lock.
var ErrLocked = errors.New("locked by another")

// Locker is a Bucket that can keep others off for as long as a process lives.
type Locker interface {
	// Lock takes a lock, or returns ErrLocked. It is let go by unlock, or by the end of the process, however
	// that comes; never by the passing of time. A bucket that has no such lock returns
	// errors.ErrUnsupported.
	Lock(name string) (unlock func() error, err error)
}

// Lock takes a lock in the bucket within, if that has any.
func (p prefixed) Lock(name string) (unlock func() error, err error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	l, ok := p.bucket.(Locker)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return l.Lock(p.prefix + name)
}

var _ Locker = prefixed{}
