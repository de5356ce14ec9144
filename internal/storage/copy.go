package storage

import (
	"context"
	"io"
)

// Source is what a blob, or a block of one, is copied from.
type Source struct {
	Size     int64
	Headers  Headers
	Metadata map[string]string
	Open     func(off, n int64) (io.ReadCloser, error) // n bytes from off on
}

// SourceBlob returns a blob to be copied, which is read with the right that ctx carries. What is read of it is of one
// state: where it is overwritten meanwhile, reading fails.
func (s *Service) SourceBlob(ctx context.Context, account, container, name string) (Source, error) {
	b, err := s.Blob(ctx, account, container, name)
	if err != nil {
		return Source{}, err
	}
	return Source{Size: b.Size, Headers: b.Headers, Metadata: b.Metadata, Open: func(off, n int64) (io.ReadCloser, error) {
		_, data, err := s.ReadBlobRange(ctx, account, container, name, off, n, IfMatch(b.ETag()))
		return data, err
	}}, nil
}

// PutBlobFrom writes a blob that has the bytes of a source.
func (s *Service) PutBlobFrom(ctx context.Context, account, container, name string, from Source, u Upload, conditions ...Condition) (Blob, error) {
	data, err := from.Open(0, from.Size)
	if err != nil {
		return Blob{}, err
	}
	defer func() { _ = data.Close() }() // it was only read
	u.Size = from.Size
	return s.PutBlob(ctx, account, container, name, u, data, conditions...)
}

// PutBlockFrom writes a block of a blob that has n bytes of a source, from off on.
func (s *Service) PutBlockFrom(ctx context.Context, account, container, name, id string, from Source, off, n int64, u Upload, conditions ...Condition) (md5 []byte, err error) {
	if n < 0 {
		n = from.Size - off
	}
	if off > from.Size || n > from.Size-off {
		return nil, invalidRange(off, from.Size)
	}
	data, err := from.Open(off, n)
	if err != nil {
		return nil, err
	}
	defer func() { _ = data.Close() }() // it was only read
	u.Size = n
	return s.PutBlock(ctx, account, container, name, id, u, data, conditions...)
}
