package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// part is what can be measured alone.
type part struct {
	name  string
	tools []string
	run   func(*bench, context.Context) error
	title string // of its section in the report; empty: rows of the first table
	write func(*bench, printer)
}

// printer adds a line to the report.
type printer func(format string, args ...any)

var parts = []part{
	{"store", []string{"restic", "borg", "cp"}, (*bench).ciphertext, "", nil},
	{"huge", nil, (*bench).huge, "", nil},
	{"mixed", []string{"restic", "mke2fs"}, (*bench).mixed, "", nil},
	{"proof", []string{"go"}, (*bench).prove, "The proof of a recovery point", (*bench).writeProofs},
	{"server", []string{"openssl", "cryptsetup"}, (*bench).service, "The server", (*bench).writeServer},
	{"nbd", []string{"qemu-nbd", "nbdcopy"}, (*bench).exports, "Exports over NBD", (*bench).writeNBD},
	{"live", []string{"virsh", "qemu-system-x86_64", "virtnbdbackup", "virtnbdrestore", "mcopy", "go"}, (*bench).live, "Machines that run", (*bench).writeLive},
}

func names() string {
	var all []string
	for _, p := range parts {
		all = append(all, p.name)
	}
	return strings.Join(all, ", ")
}

// choose returns the part of that name, or all.
func choose(only string) ([]part, error) {
	if only == "" {
		return parts, nil
	}
	for _, p := range parts {
		if p.name == only {
			return []part{p}, nil
		}
	}
	return nil, fmt.Errorf("there is no part %q, but %s", only, names())
}

// publish prints the report of the parts that were measured, and writes it.
func (b *bench) publish(measured []part) error {
	var text strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	if measured[0].title == "" {
		b.writeHead(p)
	}
	for _, one := range measured {
		if one.title == "" {
			continue
		}
		if text.Len() > 0 {
			p("")
		}
		p("## %s", one.title)
		p("")
		if b.only != "" {
			p("From a run of its own on %s (`go run ./bench -only %s`).", time.Now().Format("2 January 2006"), one.name)
			p("")
		}
		one.write(b, p)
	}
	fmt.Print(text.String())
	if b.write == "" {
		return nil
	}
	if b.only == "" {
		return os.WriteFile(b.write, []byte(text.String()), 0o644)
	}
	if measured[0].title == "" {
		return fmt.Errorf("%s has no section of its own that could be written", b.only)
	}
	old, err := os.ReadFile(b.write)
	if err != nil {
		return err
	}
	return os.WriteFile(b.write, []byte(replaceSection(string(old), measured[0].title, text.String())), 0o644)
}

// replaceSection puts a section into a document, in the place of the one of that title or else at the end.
func replaceSection(document, title, section string) string {
	head := "\n## " + title + "\n"
	start := strings.Index(document, head)
	if start < 0 {
		return document + "\n" + section
	}
	rest := ""
	if next := strings.Index(document[start+len(head):], "\n## "); next >= 0 {
		rest = document[start+len(head)+next:]
	}
	return document[:start+1] + section + rest
}
