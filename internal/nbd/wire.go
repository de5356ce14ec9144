package nbd

import (
	"encoding/binary"
	"strings"
	"unicode"
)

// The protocol's numbers, from its specification (github.com/NetworkBlockDevice/nbd, doc/proto.md).
const (
	magicServer     = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption     = 0x49484156454f5054 // "IHAVEOPT"
	magicOptReply   = 0x0003e889045565a9
	magicRequest    = 0x25609513
	magicSimple     = 0x67446698
	magicStructured = 0x668e33ef

	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1

	optExportName      = 1
	optAbort           = 2
	optList            = 3
	optStartTLS        = 5
	optInfo            = 6
	optGo              = 7
	optStructuredReply = 8
	optListMetaContext = 9
	optSetMetaContext  = 10

	repAck         = 1
	repServer      = 2
	repInfo        = 3
	repMetaContext = 4
	repErrorBit    = 1 << 31

	repErrUnsupported = repErrorBit | 1
	repErrPolicy      = repErrorBit | 2
	repErrInvalid     = repErrorBit | 3
	repErrTLSRequired = repErrorBit | 5
	repErrUnknown     = repErrorBit | 6
	repErrTooBig      = repErrorBit | 9

	infoExport    = 0
	infoBlockSize = 3

	// Flags of an export.
	flagHasFlags        = 1 << 0
	flagReadOnly        = 1 << 1
	flagSendFlush       = 1 << 2
	flagSendFUA         = 1 << 3
	flagSendTrim        = 1 << 5
	flagSendWriteZeroes = 1 << 6
	flagCanMultiConn    = 1 << 8

	cmdRead        = 0
	cmdWrite       = 1
	cmdDisconnect  = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdWriteZeroes = 6
	cmdBlockStatus = 7

	requestSize = 28
	requestOne  = 1 << 3 // flag of block status: one extent is enough

	chunkDone        = 1 << 0
	chunkNone        = 0
	chunkOffsetData  = 1
	chunkOffsetHole  = 2
	chunkBlockStatus = 5
	chunkErrorBit    = 1 << 15
	chunkError       = chunkErrorBit | 1
	chunkErrorOffset = chunkErrorBit | 2
)

// Limits of what is taken from the other side.
const (
	maxString      = 4096     // names and messages; the specification's own limit
	maxOptReply    = 8192     // one reply in the handshake
	maxOptReplies  = 256      // replies to one option
	maxRead        = 32 << 20 // one read that a server of ours takes
	maxWrite       = 32 << 20 // one write; the same holds for it
	maxStatusSpan  = 1 << 30  // one block status, trim or write of zeroes
	maxStatusChunk = 4 + 8<<17
	maxPieces      = 1 << 14 // separate pieces of one read that are not yet joined
)

var be = binary.BigEndian

// How a read is asked for: the other side reads the next piece while one is on its way. QEMU answers pieces of a MiB more
// slowly than these.
const (
	readPiece = 256 << 10
	readAhead = 16 // pieces of one read in flight
)

// appendOption appends one option of the handshake.
func appendOption(b []byte, option uint32, data []byte) []byte {
	b = be.AppendUint64(b, magicOption)
	b = be.AppendUint32(b, option)
	b = be.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// appendString appends a counted string.
func appendString(b []byte, s string) []byte {
	b = be.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// appendRequest appends one request of the transmission phase.
func appendRequest(b []byte, command uint16, cookie uint64, off int64, n uint32) []byte {
	b = be.AppendUint32(b, magicRequest)
	b = be.AppendUint16(b, 0)
	b = be.AppendUint16(b, command)
	b = be.AppendUint64(b, cookie)
	b = be.AppendUint64(b, uint64(off))
	return be.AppendUint32(b, n)
}

// request is what a client sends in the transmission phase.
type request struct {
	magic          uint32
	flags, command uint16
	cookie         uint64
	off            uint64
	length         uint32
}

func parseRequest(b []byte) request {
	return request{be.Uint32(b), be.Uint16(b[4:]), be.Uint16(b[6:]), be.Uint64(b[8:]), be.Uint64(b[16:]), be.Uint32(b[24:])}
}

// chunkHeader is what stands before every chunk of a structured reply, after its magic.
type chunkHeader struct {
	flags, kind uint16
	cookie      uint64
	length      uint32
}

const chunkHeaderSize = 16

// appendChunk appends the header of one chunk, with its magic.
func appendChunk(b []byte, h chunkHeader) []byte {
	b = be.AppendUint32(b, magicStructured)
	b = be.AppendUint16(b, h.flags)
	b = be.AppendUint16(b, h.kind)
	b = be.AppendUint64(b, h.cookie)
	return be.AppendUint32(b, h.length)
}

// appendSimple appends a simple reply without data.
func appendSimple(b []byte, errno uint32, cookie uint64) []byte {
	b = be.AppendUint32(b, magicSimple)
	b = be.AppendUint32(b, errno)
	return be.AppendUint64(b, cookie)
}

// appendOptReply appends one reply to an option.
func appendOptReply(b []byte, option, kind uint32, data []byte) []byte {
	b = be.AppendUint64(b, magicOptReply)
	b = be.AppendUint32(b, option)
	b = be.AppendUint32(b, kind)
	b = be.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func parseChunkHeader(b []byte) chunkHeader {
	return chunkHeader{be.Uint16(b), be.Uint16(b[2:]), be.Uint64(b[4:]), be.Uint32(b[12:])}
}

// clean makes a server's words fit for an error message: printable, one line, bounded.
func clean(b []byte) string {
	if len(b) > 512 {
		b = b[:512]
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(b), " ")))
}
