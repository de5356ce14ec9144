package cloud_test

import (
	"os"
	"os/exec"
	"testing"

	"kluis/internal/tooltest"
)

// The story of the product, told by the tests of cmd/kluis on a server that keeps its backups in a bucket.
func TestStory(t *testing.T) {
	each(t, func(t *testing.T, s *service) {
		cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-v", "-run", "^TestStory$/^sqlite$", "./cmd/kluis")
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "KLUIS_TEST_STORE="+s.url(bucket, "story"))
		before := s.requests()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if s.requests() == before {
			tooltest.Missing(t, "the story was not told:\n%s", out)
		}
	})
}
