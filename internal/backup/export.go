package backup

import (
	"context"

	"kluis/internal/armid"
)

// Published is a document that can be fetched for a quarter of an hour, at a URL with a signature as its query.
type Published struct{ URL, Query string }

// ExportJobs publishes a vault's list of jobs, which was written down for the caller.
func (s *Service) ExportJobs(ctx context.Context, vault armid.ID, name, contentType string, data []byte) (Published, error) {
	if err := s.o.Authorizer.Authorize(ctx, vaultType+"/backupJobsExport/action", vault); err != nil {
		return Published{}, err
	}
	if _, err := s.lookupVault(ctx, vault); err != nil {
		return Published{}, err
	}
	url, query, err := s.o.Artifacts.Publish(ctx, name, contentType, data)
	return Published{url, query}, err
}
