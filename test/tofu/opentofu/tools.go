//go:build tools

// Package opentofu pins OpenTofu, which `make test-tofu` builds: its module replaces one that it depends on, so that
// `go install` refuses it.
package opentofu

import _ "github.com/opentofu/opentofu/cmd/tofu"
