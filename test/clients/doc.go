// Package clients holds no code: its tests run the official Azure SDK clients for Go and those of which Terraform's
// provider is made (hashicorp/go-azure-sdk), unmodified, against a server of ours.
// It is a module of its own, so that users of Kluis don't download the clients.
package clients
