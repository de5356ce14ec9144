package house_test

import (
	"go/parser"
	"go/token"
	"testing"
)

func importsSQL(t *testing.T, file string) bool {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range parsed.Imports {
		if i.Path.Value == `"database/sql"` {
			return true
		}
	}
	return false
}
