package nbd

import (
	"bufio"
	"errors"
	"io"
	"sync"
)

// Error numbers of replies; they are Linux's.
const (
	errnoPermission = 1
	errnoIO         = 5
	errnoInvalid    = 22
)

// maxExtents is how many extents one reply to block status has at most: 64 KiB of them.
const maxExtents = 8 << 10

// answer is the transmission phase: one request after the other is read, and answered by a goroutine of
// its own. It ends when the client says good-bye or is gone, after the last answer.
func (c *serverConn) answer() error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan []byte, inFlight) // the buffers; who has one may answer
	for range inFlight {
		slots <- nil // made when it is needed
	}
	r := bufio.NewReaderSize(c.conn, 16<<10)
	for {
		var b [requestSize]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return err
		}
		q := parseRequest(b[:])
		switch {
		case q.magic != magicRequest:
			return protocolErrorf("a request without its magic number")
		case q.command == cmdDisconnect:
			return nil
		case q.command == cmdWrite:
			if err := skipPayload(r, q.length); err != nil {
				return err
			}
		}
		buf := <-slots
		wg.Go(func() {
			if buf == nil {
				buf = make([]byte, dataAt+pieceSize)
			}
			if err := c.one(q, buf); err != nil {
				_ = c.raw.Close() // a reply that is not whole can't be mended
			}
			slots <- buf
		})
	}
}

// skipPayload reads what was to be written, to find the next request behind it.
func skipPayload(r io.Reader, n uint32) error {
	if n > maxWrite {
		return protocolErrorf("a write of %d bytes", n)
	}
	_, err := io.CopyN(io.Discard, r, int64(n))
	return err
}

// one answers one request. An error is the end of the connection.
func (c *serverConn) one(q request, buf []byte) error {
	size := uint64(c.export.Disk.Size())
	inside := q.off <= size && uint64(q.length) <= size-q.off
	switch q.command {
	case cmdRead:
		if q.length == 0 || q.length > maxRead || !inside {
			return c.fail(q, errnoInvalid, "the range is not one that can be read")
		}
		if c.structured {
			return c.read(q, buf)
		}
		return c.readSimple(q, buf)
	case cmdBlockStatus:
		if !c.status || q.length == 0 || !inside {
			return c.fail(q, errnoInvalid, "no block status of this")
		}
		return c.blockStatus(q)
	case cmdFlush:
		return c.fail(q, 0, "")
	case cmdWrite, cmdTrim, cmdWriteZeroes:
		return c.fail(q, errnoPermission, "the export is read-only")
	}
	return c.fail(q, errnoInvalid, "this command is not known")
}

// fail answers with an error number, of which 0 is success, instead of data.
func (c *serverConn) fail(q request, errno uint32, why string) error {
	if !c.structured || q.command != cmdRead && q.command != cmdBlockStatus {
		return c.sendLocked(appendSimple(nil, errno, q.cookie))
	}
	b := appendChunk(nil, chunkHeader{chunkDone, chunkError, q.cookie, uint32(6 + len(why))})
	b = be.AppendUint16(be.AppendUint32(b, errno), uint16(len(why)))
	return c.sendLocked(append(b, why...))
}

func (c *serverConn) sendLocked(b []byte) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	return c.send(b)
}

// dataAt is where data lies in a buffer; a header fits before it. The kernel copies a file's bytes to a multiple of 32 three
// times as fast as to the places between.
const dataAt = 32

// frame puts a header right before the n bytes of data in a buffer, and returns them together.
func frame(buf, header []byte, n int64) []byte {
	start := dataAt - len(header)
	copy(buf[start:], header)
	return buf[start : dataAt+n]
}

// read answers with a chunk for each piece of data and each hole. Other answers may come between them.
func (c *serverConn) read(q request, buf []byte) error {
	off, end := int64(q.off), int64(q.off)+int64(q.length)
	for off < end {
		n, hole, err := c.piece(off, end)
		if err != nil {
			return c.failRead(q, off, err)
		}
		flags := uint16(0)
		if off+n == end {
			flags = chunkDone
		}
		if hole {
			b := appendChunk(buf[:0], chunkHeader{flags, chunkOffsetHole, q.cookie, 12})
			err = c.sendLocked(be.AppendUint32(be.AppendUint64(b, uint64(off)), uint32(n)))
		} else {
			if err := c.readDisk(buf[dataAt:][:n], off); err != nil {
				return c.failRead(q, off, err)
			}
			b := appendChunk(buf[:0], chunkHeader{flags, chunkOffsetData, q.cookie, uint32(8 + n)})
			err = c.sendLocked(frame(buf, be.AppendUint64(b, uint64(off)), n))
		}
		if err != nil {
			return err
		}
		off += n
	}
	return nil
}

// piece returns how far the data or the hole at off goes, but not beyond end and, for data, the buffer.
func (c *serverConn) piece(off, end int64) (n int64, hole bool, err error) {
	start, length, err := c.export.Disk.NextData(c.s.ctx, off)
	if err != nil {
		return 0, false, err
	}
	if length <= 0 || start >= end {
		return end - off, true, nil
	}
	if start > off {
		return start - off, true, nil
	}
	n = min(start+length, end) - off
	// Data right behind it comes in the same piece.
	for n < pieceSize && off+n < end {
		start, length, err = c.export.Disk.NextData(c.s.ctx, off+n)
		if err != nil {
			return 0, false, err
		}
		if length <= 0 || start > off+n {
			break
		}
		n = min(start+length, end) - off
	}
	return min(n, pieceSize), false, nil
}

func (c *serverConn) readDisk(p []byte, off int64) error {
	n, err := c.export.Disk.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// failRead ends a reply because of the disk. The reason is for our log, and not for a client.
func (c *serverConn) failRead(q request, off int64, err error) error {
	if c.s.ctx.Err() == nil {
		c.s.log.Error("read for nbd client", "export", c.export.Name, "offset", off, "error", err)
	}
	return c.fail(q, errnoIO, "the disk cannot be read here")
}

// readSimple answers a client that knows no structured replies. The header of its reply says that all
// went well, so the first piece is read before; if a later one fails, only hanging up is left.
func (c *serverConn) readSimple(q request, buf []byte) error {
	off, end := int64(q.off), int64(q.off)+int64(q.length)
	data := buf[dataAt:]
	n := min(end-off, pieceSize)
	if err := c.readDisk(data[:n], off); err != nil {
		return c.failRead(q, off, err)
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	if err := c.send(frame(buf, appendSimple(buf[:0], 0, q.cookie), n)); err != nil {
		return err
	}
	for off += n; off < end; off += n {
		n = min(end-off, pieceSize)
		if err := c.readDisk(data[:n], off); err != nil {
			return err
		}
		if err := c.send(data[:n]); err != nil {
			return err
		}
	}
	return nil
}

// blockStatus answers with as many extents as there is room for. The client asks again for the rest.
func (c *serverConn) blockStatus(q request) error {
	most := maxExtents
	if q.flags&requestOne != 0 {
		most = 1
	}
	var extents []Extent
	for off, end := int64(q.off), int64(q.off)+int64(q.length); off < end; {
		start, n, err := c.export.Disk.NextData(c.s.ctx, off)
		if err != nil {
			return c.failRead(q, off, err)
		}
		e := Extent{Offset: off, Length: min(start+n, end) - off}
		if n <= 0 || start >= end {
			e = Extent{off, end - off, StateHole | StateZero}
		} else if start > off {
			e = Extent{off, start - off, StateHole | StateZero}
		}
		if last := len(extents) - 1; last >= 0 && extents[last].Flags == e.Flags {
			extents[last].Length += e.Length
		} else if len(extents) == most {
			break
		} else {
			extents = append(extents, e)
		}
		off += e.Length
	}
	b := appendChunk(nil, chunkHeader{chunkDone, chunkBlockStatus, q.cookie, uint32(4 + 8*len(extents))})
	b = be.AppendUint32(b, allocationID)
	for _, e := range extents {
		b = be.AppendUint32(be.AppendUint32(b, uint32(e.Length)), e.Flags)
	}
	return c.sendLocked(b)
}
