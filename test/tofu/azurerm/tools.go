//go:build tools

// Package azurerm pins Terraform's provider for Azure, which `make test-tofu` builds.
package azurerm

import _ "github.com/hashicorp/terraform-provider-azurerm"
