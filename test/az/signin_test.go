package az_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"kluis/internal/client"
)

// A person signs in with a code that az shows, and works with what he may do; az gets further tokens by itself, until
// an administrator signs the person out.
func TestDeviceCode(t *testing.T) {
	h, a := story(t, "signin")
	ada, err := h.CreateUser(t.Context(), client.NewUser{SignInName: "ada@example.com", Password: "correct horse battery staple"})
	if err != nil {
		t.Fatal(err)
	}
	a.run("role assignment create --assignee ada@example.com --role Reader -g signin")
	a.prints(`["ada@example.com"]`, "role assignment list -g signin --query [].principalName")

	person := *a
	person.env = append(person.env, "AZURE_CONFIG_DIR="+filepath.Join(a.dir, "person"))
	config := filepath.Join(a.dir, "config", "clouds.config")
	person.copyCloud(config)
	person.signInWithCode(h, "ada@example.com", "correct horse battery staple")
	person.prints(`["ada@example.com","user","`+h.TenantID()+`"]`, "account show --query [user.name,user.type,tenantId]")
	person.prints(`["signin"]`, "group list --query [].name")
	person.prints(`"`+ada.Name+`"`, "ad signed-in-user show --query id")
	person.word("account get-access-token --resource https://storage.azure.com --query accessToken")
	person.refuses("AuthorizationFailed", "group delete -n signin --yes")

	if err := h.EndSessions(t.Context(), ada.Name); err != nil {
		t.Fatal(err)
	}
	person.refuses("InvalidAuthenticationToken", "group list")
	person.fails("az login", "account get-access-token --resource https://vault.azure.net")
}

// A person signs in at the page that az opens, and is led back to az.
func TestBrowser(t *testing.T) {
	h, a := story(t, "browser")
	if _, err := h.CreateUser(t.Context(), client.NewUser{SignInName: "bob", Password: "correct horse battery staple", Role: "Reader",
		Scope: h.Subscription().Group("browser").String()}); err != nil {
		t.Fatal(err)
	}
	opened := filepath.Join(a.dir, "opened")
	if err := syscall.Mkfifo(opened, 0o600); err != nil {
		t.Fatal(err)
	}
	person := *a
	person.write("open", []byte("#!/bin/sh\nprintf %s \"$1\" > '"+opened+"'\n"))
	if err := os.Chmod(filepath.Join(a.dir, "open"), 0o700); err != nil {
		t.Fatal(err)
	}
	person.env = append(person.env, "AZURE_CONFIG_DIR="+filepath.Join(a.dir, "person"), "BROWSER="+filepath.Join(a.dir, "open"))
	person.copyCloud(filepath.Join(a.dir, "config", "clouds.config"))
	led := make(chan error, 1)
	go func() {
		address, err := os.ReadFile(opened) // waits until the browser has been opened
		if err == nil {
			err = browse(t.Context(), h, string(address), url.Values{"username": {"bob"}, "password": {"correct horse battery staple"}, "action": {"allow"}})
		}
		led <- err
	}()
	person.prints(`["bob"]`, "login --query [].user.name")
	if err := <-led; err != nil {
		t.Error(err)
	}
	person.prints(`["browser"]`, "group list --query [].name")
}

// copyCloud gives a fresh az the cloud that another one knows.
func (a *az) copyCloud(config string) {
	a.t.Helper()
	text, err := os.ReadFile(config)
	if err != nil {
		a.t.Fatal(err)
	}
	dir := filepath.Join(a.dir, "person")
	if err := os.Mkdir(dir, 0o700); err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "clouds.config"), text, 0o600); err != nil {
		a.t.Fatal(err)
	}
	a.run("cloud set -n Kluis --only-show-errors")
}

var shown = regexp.MustCompile(`open the page (\S+) and enter the code (\S+) to authenticate`)

// signInWithCode runs az login, and does at a browser what az says.
func (a *az) signInWithCode(h *house, name, password string) {
	a.t.Helper()
	cmd := exec.CommandContext(a.t.Context(), "az", "login", "--use-device-code", "-o", "none")
	cmd.Dir, cmd.Env = a.dir, a.env
	said, err := cmd.StderrPipe()
	if err != nil {
		a.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	var all strings.Builder
	for lines := bufio.NewScanner(said); lines.Scan(); {
		all.WriteString(lines.Text() + "\n")
		if m := shown.FindStringSubmatch(lines.Text()); m != nil {
			if err := enterCode(a.t.Context(), h, m[1], m[2], name, password); err != nil {
				a.t.Error(err)
				_ = cmd.Process.Kill()
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		a.t.Fatalf("az login: %v\n%s", err, &all)
	}
}

var hidden = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)

// enterCode types in the code, and signs in.
func enterCode(ctx context.Context, h *house, address, code, name, password string) error {
	return browse(ctx, h, address, url.Values{"user_code": {code}, "action": {"next"}}, url.Values{"username": {name}, "password": {password}, "action": {"allow"}})
}

// browse is a person at a browser, who opens a page and fills in its form, and those to which it leads at the same address.
func browse(ctx context.Context, h *house, address string, forms ...url.Values) error {
	pem, err := os.ReadFile(h.CAFile())
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	browser := &http.Client{Transport: transport, Jar: jar}
	page, err := show(ctx, browser, http.MethodGet, address, nil)
	for _, fields := range forms {
		if err != nil {
			return err
		}
		for _, m := range hidden.FindAllStringSubmatch(page, -1) {
			if !fields.Has(m[1]) {
				fields.Set(m[1], html.UnescapeString(m[2]))
			}
		}
		page, err = show(ctx, browser, http.MethodPost, address, fields)
	}
	return err
}

func show(ctx context.Context, browser *http.Client, method, address string, fields url.Values) (string, error) {
	r, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(fields.Encode()))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := browser.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, text)
	}
	return string(text), err
}
