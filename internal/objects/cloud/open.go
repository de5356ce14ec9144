package cloud

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"gocloud.dev/blob"
	"gocloud.dev/blob/azureblob"
	"gocloud.dev/blob/s3blob"

	"kluis/internal/objects"
)

// ErrNoCondition means that the storage lets two writers put the same name.
var ErrNoCondition = errors.New("this storage ignores conditional writes (If-None-Match), so two servers could overwrite each other: it cannot keep a recovery store")

// settings are the query parameters that a URL may hold, none of them a secret.
var settings = map[string][]string{
	s3blob.Scheme: {"region", "endpoint", "profile", "role", "use_path_style", "hostname_immutable", "disable_https", "dualstack", "fips",
		"accelerate", "ssetype", "kmskeyid", "request_checksum_calculation", answerChecksums},
	azureblob.Scheme: {"storage_account", "domain", "protocol", "cdn", "localemu"},
}

const answerChecksums = "response_checksum_validation"

// Is tells whether a place is written as a URL, and so not a folder.
func Is(place string) bool { return strings.Contains(place, "://") }

// Open opens the bucket that a URL names, such as
//
//	s3://bucket/prefix?region=eu-central-1
//	s3://bucket?region=us-east-1&endpoint=https://s3.example.com&use_path_style=true
//	azblob://container/prefix?storage_account=name
//
// and finds out whether it keeps what Put promises. Credentials come from where the SDKs look for them
// (environment, files, the machine's identity), never from the URL. The bucket must exist.
func Open(ctx context.Context, rawURL string) (*Bucket, error) {
	u, prefix, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	place := u.Scheme + "://" + u.Host + "/" + prefix
	blobs, err := blob.OpenBucket(ctx, u.String())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", place, plain(err))
	}
	if prefix != "" {
		blobs = blob.PrefixedBucket(blobs, prefix)
	}
	b := &Bucket{blobs: blobs, stall: stallTime}
	if err := b.probe(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", place, err), b.Close())
	}
	return b, nil
}

// Check tells what is wrong with a URL, without asking anybody.
func Check(rawURL string) error {
	_, _, err := parse(rawURL)
	return err
}

// parse takes a URL apart. No error repeats a part of it that could hold a secret.
func parse(rawURL string) (u *url.URL, prefix string, err error) {
	u, err = url.Parse(rawURL)
	if err != nil {
		return nil, "", errors.New("the URL cannot be read")
	}
	allowed, known := settings[u.Scheme]
	switch {
	case !known:
		return nil, "", fmt.Errorf("%q is not s3 or azblob", u.Scheme)
	case u.User != nil:
		return nil, "", errors.New("the URL holds credentials; they belong into the environment")
	case u.Host == "":
		return nil, "", errors.New("the URL names no bucket")
	case u.Fragment != "":
		return nil, "", errors.New("the URL has a fragment")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, "", errors.New("the settings in the URL cannot be read")
	}
	for name := range query {
		if !slices.Contains(allowed, name) {
			return nil, "", fmt.Errorf("%q is not a setting of %s (%s)", name, u.Scheme, strings.Join(allowed, ", "))
		}
	}
	if prefix, err = joinPrefix(u.Path); err != nil {
		return nil, "", err
	}
	u.Path = ""
	if u.Scheme == s3blob.Scheme && !query.Has(answerChecksums) {
		query.Set(answerChecksums, "when_required") // whoever keeps objects here authenticates them, and ranges have no checksum
		u.RawQuery = query.Encode()
	}
	return u, prefix, nil
}

// probe writes a name twice. The name begins with a dot, so it is no object.
func (b *Bucket) probe(ctx context.Context) (err error) {
	name := ".probe-" + rand.Text()
	if _, err := b.upload(ctx, name, rand.Text(), 5, strings.NewReader("first")); err != nil {
		return fmt.Errorf("write a probe: %w", err)
	}
	defer func() {
		if deleteErr := b.blobs.Delete(context.WithoutCancel(ctx), name); deleteErr != nil {
			err = errors.Join(err, fmt.Errorf("remove the probe: %w", plain(deleteErr)))
		}
	}()
	_, err = b.upload(ctx, name, rand.Text(), 6, strings.NewReader("second"))
	if err == nil {
		return ErrNoCondition
	} else if !errors.Is(err, objects.ErrExists) {
		return fmt.Errorf("write a probe again: %w", err)
	}
	r, err := b.blobs.NewReader(ctx, name, nil)
	if err != nil {
		return fmt.Errorf("read a probe: %w", plain(err))
	}
	content, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("read a probe: %w", plain(err))
	}
	if string(content) != "first" {
		return ErrNoCondition
	}
	return nil
}
