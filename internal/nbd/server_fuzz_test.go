package nbd

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

// spoken is a connection whose client has said all it will ever say, and takes every answer.
type spoken struct {
	io.Reader
	answers int
}

func (s *spoken) Write(p []byte) (int, error)    { s.answers += len(p); return len(p), nil }
func (*spoken) Close() error                     { return nil }
func (*spoken) LocalAddr() net.Addr              { return nil }
func (*spoken) RemoteAddr() net.Addr             { return nil }
func (*spoken) SetDeadline(time.Time) error      { return nil }
func (*spoken) SetReadDeadline(time.Time) error  { return nil }
func (*spoken) SetWriteDeadline(time.Time) error { return nil }

// FuzzClient lets a server meet a client that says anything at all. It must not panic or hang, and what it
// answers stands in proportion to what was asked.
func FuzzClient(f *testing.F) {
	hello := be.AppendUint32(nil, flagFixedNewstyle|flagNoZeroes)
	structured := appendOption(hello, optStructuredReply, nil)
	query := append(be.AppendUint32(appendString(nil, "disk"), 1), appendString(nil, ContextAllocation)...)
	status := appendOption(structured, optSetMetaContext, query)
	choice := appendOption(nil, optGo, be.AppendUint16(appendString(nil, "disk"), 0))
	requests := appendRequest(nil, cmdRead, 1, 0, 1<<20)
	requests = appendRequest(requests, cmdBlockStatus, 2, 0, 1<<20)
	requests = append(appendRequest(requests, cmdWrite, 3, 0, 3), "abc"...)
	requests = appendRequest(appendRequest(requests, cmdFlush, 4, 0, 0), cmdDisconnect, 5, 0, 0)
	for _, s := range [][]byte{
		append(append(status[:len(status):len(status)], choice...), requests...),
		append(appendOption(hello, optExportName, []byte("disk")), requests...),
		appendOption(appendOption(structured, optListMetaContext, be.AppendUint32(appendString(nil, "disk"), 0)), optList, nil),
		appendOption(appendOption(hello, optStartTLS, nil), optAbort, nil),
		hello[:3],
	} {
		f.Add(s)
	}
	disk := patched(1 << 20)
	f.Fuzz(func(t *testing.T, says []byte) {
		s := NewServer(ServerOptions{Logger: slog.New(slog.DiscardHandler)})
		if err := s.Offer(Export{Name: "disk", Disk: disk}); err != nil {
			t.Fatal(err)
		}
		conn := &spoken{Reader: bytes.NewReader(says)}
		c := &serverConn{s: s, raw: conn, conn: conn, finished: make(chan struct{})}
		_ = c.serve() // every end is a good one
		if most := 4096 + (len(says)/16+1)*300 + (len(says)/requestSize+1)*2<<20; conn.answers > most {
			t.Errorf("%d bytes were answered to %d", conn.answers, len(says))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
