// Package tooltest finds the programs that tests need from Debian's packages.
package tooltest

import (
	"os"
	"os/exec"
	"testing"
)

// Need skips a test when one of the programs is not installed, or fails it where KLUIS_TEST_REQUIRE is
// set, as `make test` does: what is skipped has shown nothing.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err == nil {
			continue
		}
		if _, err := os.Stat("/usr/sbin/" + program); err == nil { // not on everybody's path
			continue
		}
		Missing(t, "%s is not installed; make test installs it, so does apt-get install", program)
	}
}

// Missing skips a test that lacks something, or fails it where everything is required.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("KLUIS_TEST_REQUIRE") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
