package conformance

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Client is one that others wrote. Testdata has a list of what it calls when it plays its story, which the test that
// lets it play compares with the server's log.
type Client struct {
	Name   string
	agents []string // its requests call themselves by one of these words
	renew  string   // the command that makes the list anew
}

// Azure's own az; the SDKs for Go, Azure's and HashiCorp's; and OpenTofu with the azurerm provider.
var (
	AZ   = Client{"az", []string{"AZURECLI/"}, "go test ./test/az -update"}
	Go   = Client{"go", []string{"azsdk-go-", "go-azure-sdk/"}, "cd test/clients && go test -update"}
	Tofu = Client{"tofu", []string{"terraform-provider-azurerm"}, "KLUIS_TEST_TOFU=$PWD/bin/tofu go test ./test/tofu -update"}
)

// Clients are all that the report tells of.
func Clients() []Client { return []Client{AZ, Go, Tofu} }

// own begins what Kluis's own client calls itself, with which tests set the stage.
const own = "azsdk-go-kluis/"

func (c Client) is(agent string) bool {
	return !strings.Contains(agent, own) && slices.ContainsFunc(c.agents, func(word string) bool { return strings.Contains(agent, word) })
}

// Whole reports whether the tests that have run were all that there are: fewer have called less.
func Whole() bool {
	for _, choice := range []string{"test.run", "test.skip"} {
		if f := flag.Lookup(choice); f != nil && f.Value.String() != "" {
			return false
		}
	}
	return true
}

// Compare reports whether the client has called what its list in the folder says; update writes the list anew.
func (c Client) Compare(folder, log string, update bool) error {
	path := c.list(folder)
	got := []byte(strings.Join(Trace(log, c.is), "\n") + "\n")
	if update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			return err
		}
	}
	want, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(got, want) {
		err = errors.New("the client has called other operations than are listed:\n" + difference(lines(want), lines(got)))
	}
	if err != nil {
		return fmt.Errorf("%s: %w; `%s` lists them, and then `go test ./test/conformance -update` makes docs/conformance.md anew", path, err, c.renew)
	}
	return nil
}

func (c Client) list(folder string) string { return filepath.Join(folder, c.Name+".txt") }

// difference names what is missing with a minus, and what is new with a plus.
func difference(want, got map[string]bool) string {
	var all []string
	for line := range want {
		if !got[line] {
			all = append(all, "- "+line)
		}
	}
	for line := range got {
		if !want[line] {
			all = append(all, "+ "+line)
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// lines are those of a text.
func lines(text []byte) map[string]bool {
	set := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		set[strings.TrimSpace(line)] = true
	}
	return set
}
