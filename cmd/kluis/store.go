package main

import (
	"context"
	"fmt"
	"path/filepath"

	"kluis/internal/objects"
	"kluis/internal/objects/cloud"
	"kluis/internal/objects/folder"
)

// store is the place where recovery stores and blobs are kept.
type store interface {
	objects.Bucket
	Close() error
}

// checkStore returns the place in the form that openStore takes, or says what is wrong with it.
func checkStore(place string) (string, error) {
	if !cloud.Is(place) {
		return filepath.Abs(place)
	}
	if err := cloud.Check(place); err != nil {
		return "", fmt.Errorf("store: %w; want a folder, s3://BUCKET/PREFIX?region=… or azblob://CONTAINER/PREFIX?storage_account=…", err)
	}
	return place, nil
}

// openStore opens a folder, which is made if need be, or a bucket, which must exist.
func openStore(ctx context.Context, place string) (store, error) {
	if cloud.Is(place) {
		b, err := cloud.Open(ctx, place)
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		return b, nil
	}
	f, err := folder.Open(place)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return f, nil
}
