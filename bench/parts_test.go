package main

import "testing"

func TestReplaceSection(t *testing.T) {
	const document = "# Performance\n\nhead\n\n## One\n\nfirst\n\n## Two\n\nsecond\n"
	for title, want := range map[string]string{
		"One":   "# Performance\n\nhead\n\n## One\n\nnew\n\n## Two\n\nsecond\n",
		"Two":   "# Performance\n\nhead\n\n## One\n\nfirst\n\n## Two\n\nnew\n",
		"Three": document + "\n## Three\n\nnew\n",
	} {
		if got := replaceSection(document, title, "## "+title+"\n\nnew\n"); got != want {
			t.Errorf("%s: %q, want %q", title, got, want)
		}
	}
}
