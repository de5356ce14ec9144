package az_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"kluis/internal/tooltest"
	"kluis/test/conformance"
	"kluis/test/stage"
)

const location = stage.Location

// house is what the stories share: a server, and a folder in which az is signed in.
type house struct {
	*stage.Server
	folder string
	env    []string // of an az that is signed in
	held   string   // a file; while it is there, no image of a format other than raw is opened
}

// open makes the house when the first story begins. TestMain closes it.
var open = sync.OnceValues(func() (*house, error) {
	var err error
	if shared, err = newHouse(folder); err != nil {
		return nil, err
	}
	return shared, shared.signIn()
})

var (
	shared *house
	folder string
	update = flag.Bool("update", false, "list anew what az calls")
)

func TestMain(m *testing.M) {
	var err error
	if folder, err = os.MkdirTemp("", "kluis-az-"); err != nil {
		panic(err)
	}
	code := m.Run()
	if shared != nil {
		err := shared.Stop()
		if code == 0 && conformance.Whole() {
			err = errors.Join(err, conformance.AZ.Compare("../conformance/testdata", shared.Log(), *update))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	_ = os.RemoveAll(folder)
	os.Exit(code)
}

func newHouse(folder string) (*house, error) {
	h := &house{folder: folder, held: filepath.Join(folder, "held")}
	binary, err := stage.Build(context.Background(), folder)
	if err != nil {
		return nil, err
	}
	path, err := h.holdingQEMU()
	if err != nil {
		return nil, err
	}
	h.Server, err = stage.Start(binary, folder, "PATH="+path)
	return h, err
}

// signIn does what a person types: eval "$(kluis cloud az)".
func (h *house) signIn() error {
	sign := exec.Command("sh", "-c", `script=$("$0" cloud az --admin "$1" --config-dir "$2") && eval "$script" && env -0`, h.Binary, h.Admin(), filepath.Join(h.folder, "az"))
	var stderr bytes.Buffer
	sign.Stderr = &stderr
	out, err := sign.Output()
	if err != nil {
		return fmt.Errorf("sign az in: %w\n%s", err, &stderr)
	}
	h.env = strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
	return nil
}

// holdingQEMU makes a qemu-nbd that can be held back, so that there is time to stop a job that needs it, and returns a
// PATH where it is found first.
func (h *house) holdingQEMU() (string, error) {
	real, err := exec.LookPath("qemu-nbd")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(h.folder, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		return "", err
	}
	script := fmt.Sprintf("#!/bin/sh\nwhile [ -e '%s' ]; do sleep 0.1; done\nexec %s \"$@\"\n", h.held, real)
	return bin + string(os.PathListSeparator) + os.Getenv("PATH"), os.WriteFile(filepath.Join(bin, "qemu-nbd"), []byte(script), 0o700)
}

// story begins a story: it runs beside the others, in a resource group of its own.
func story(t *testing.T, group string) (*house, *az) {
	tooltest.Need(t, "az", "cryptsetup", "qemu-img", "mke2fs")
	t.Parallel()
	h, err := open()
	if err != nil {
		t.Fatal(err)
	}
	a := &az{t: t, dir: t.TempDir()}
	// Its own folder: several az in one would write its files at the same time.
	config := filepath.Join(a.dir, "config")
	if err := os.CopyFS(config, os.DirFS(filepath.Join(h.folder, "az"))); err != nil {
		t.Fatal(err)
	}
	a.env = append(slices.Clone(h.env), "AZURE_CONFIG_DIR="+config)
	a.prints(quote(group), "group create -n %s -l %s --query name", group, location)
	return h, a
}

// az runs the real thing.
type az struct {
	t   *testing.T
	dir string // where it runs, and writes files
	env []string
}

// run runs a command and returns what it prints. The command is words and spaces, as one types it.
func (a *az) run(command string, args ...any) []byte {
	a.t.Helper()
	out, stderr, err := a.try(command, args...)
	if err != nil {
		a.t.Fatalf("az %s: %v\n%s", fmt.Sprintf(command, args...), err, stderr)
	}
	return out
}

func (a *az) try(command string, args ...any) (stdout []byte, stderr string, err error) {
	words := strings.Fields(fmt.Sprintf(command, args...))
	cmd := exec.CommandContext(a.t.Context(), "az", append(words, "-o", "json")...)
	cmd.Dir, cmd.Env = a.dir, a.env
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err = cmd.Run()
	return out.Bytes(), said.String(), err
}

// prints runs a command, which must print this JSON.
func (a *az) prints(want, command string, args ...any) {
	a.t.Helper()
	got := a.run(command, args...)
	var compact bytes.Buffer
	if err := json.Compact(&compact, got); err != nil && want != "" {
		a.t.Fatalf("az %s prints %s: %v", fmt.Sprintf(command, args...), got, err)
	}
	if compact.String() != want {
		a.t.Errorf("az %s\nprints %s\nwant   %s", fmt.Sprintf(command, args...), &compact, want)
	}
}

// done runs a command that begins a job, which must end well, and returns its id. place is the vault.
func (a *az) done(operation, place, command string, args ...any) (job string) {
	a.t.Helper()
	job = a.word(command+place+" --query name", args...)
	a.prints(`["`+operation+`","Completed"]`, "backup job wait -n %s --query properties.[operation,status]"+place, job)
	return job
}

// refuses runs a command, which the server must refuse with this code.
func (a *az) refuses(code, command string, args ...any) {
	a.t.Helper()
	a.fails("("+code+")", command, args...)
}

// fails runs a command, which must fail and say these words.
func (a *az) fails(words, command string, args ...any) {
	a.t.Helper()
	out, stderr, err := a.try(command, args...)
	if err == nil || !strings.Contains(stderr, words) {
		a.t.Errorf("az %s: %v, want %s\n%s%s", fmt.Sprintf(command, args...), err, words, out, stderr)
	}
}

// word runs a command that prints one string.
func (a *az) word(command string, args ...any) (word string) {
	a.t.Helper()
	out := a.run(command, args...)
	if err := json.Unmarshal(out, &word); err != nil || word == "" {
		a.t.Fatalf("az %s prints %s", fmt.Sprintf(command, args...), out)
	}
	return word
}

// write puts a file where az finds it.
func (a *az) write(name string, content []byte) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), content, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *az) read(name string) []byte {
	a.t.Helper()
	content, err := os.ReadFile(filepath.Join(a.dir, name))
	if err != nil {
		a.t.Fatal(err)
	}
	return content
}

func quote(s string) string { return `"` + s + `"` }
