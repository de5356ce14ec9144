// Package tofu holds no code: its test runs the real OpenTofu with the real azurerm provider against a server of ours.
//
// Both are built from the module proxy, each from a module of its own (opentofu, azurerm), which takes twenty minutes on
// two processors; `make test-tofu` does it and keeps what it built, and is no part of `make test`.
package tofu
