package nbd

import "context"

// Forwarded is an export of another server as a disk, so that a Server of ours can offer it in another place:
// what is behind TLS there, on a socket here.
type Forwarded struct{ *Client }

// maxLook is how far ahead Forwarded asks for data at once.
const maxLook = 1 << 30

// NextData implements Disk. A server that says nothing about allocation has data everywhere.
func (f Forwarded) NextData(ctx context.Context, off int64) (start, n int64, err error) {
	if off < 0 || off >= f.Size() {
		return f.Size(), 0, nil
	}
	if !f.Has(ContextAllocation) {
		return off, f.Size() - off, nil
	}
	for off < f.Size() {
		span := min(f.Size()-off, maxLook)
		for e, err := range f.BlockStatus(ctx, ContextAllocation, off, span) {
			if err != nil {
				return 0, 0, err
			}
			if e.Flags&StateZero == 0 {
				return e.Offset, e.Length, nil
			}
		}
		off += span
	}
	return f.Size(), 0, nil
}
