package clients_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"
)

// person sits at a browser: it keeps cookies, follows where it is led, and fills in forms.
type person struct {
	*http.Client
	name, password string
}

func (s *server) newPerson(t *testing.T, name string, roles ...string) person {
	t.Helper()
	const password = "correct horse battery staple"
	for _, role := range roles {
		s.pipe(t, password, "user", "create", name, "--role", role)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	ours, _ := s.transport.(*http.Transport)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ours.TLSClientConfig.RootCAs, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return person{&http.Client{Transport: transport, Jar: jar}, name, password}
}

var (
	hidden     = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
	formAction = regexp.MustCompile(`<form method="post" action="([^"]*)">`)
)

// open shows a page.
func (p person) open(ctx context.Context, address string) (page string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	return p.read(r)
}

// submit fills in the form of a page, and returns the page to which that leads.
func (p person) submit(ctx context.Context, address, page string, pairs ...string) (string, error) {
	form := url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(page, -1) {
		form.Set(m[1], html.UnescapeString(m[2]))
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return p.read(r)
}

func (p person) read(r *http.Request) (string, error) {
	response, err := p.Do(r)
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

// signInAt signs in at the page to which a program has led, and goes back there: that page leads on by a form.
func (p person) signInAt(ctx context.Context, address string) error {
	page, err := p.open(ctx, address)
	if err == nil {
		page, err = p.submit(ctx, address, page, "username", p.name, "password", p.password, "action", "allow")
	}
	if back := formAction.FindStringSubmatch(page); err == nil && back != nil {
		_, err = p.submit(ctx, back[1], page)
	}
	return err
}

// enter types in the code that a program shows, and signs in.
func (p person) enter(ctx context.Context, address, code string) error {
	page, err := p.open(ctx, address)
	if err == nil {
		page, err = p.submit(ctx, address, page, "user_code", code, "action", "next")
	}
	if err == nil {
		_, err = p.submit(ctx, address, page, "username", p.name, "password", p.password, "action", "allow")
	}
	return err
}

// worksFor lists resource groups, and gets a token for key vaults without asking the person again.
func (s *server) worksFor(ctx context.Context, t *testing.T, credential azcore.TokenCredential) {
	t.Helper()
	groups, err := armresources.NewResourceGroupsClient(s.subscription, credential, &arm.ClientOptions{ClientOptions: s.options})
	if err != nil {
		t.Fatal(err)
	}
	page, err := groups.NewListPager(nil).NextPage(ctx)
	if err != nil || len(page.Value) != 1 || *page.Value[0].Name != "prod" {
		t.Errorf("groups: %v, %v", page.Value, err)
	}
	token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}, EnableCAE: true})
	if err != nil || token.Token == "" {
		t.Errorf("a token for key vaults: %v", err)
	}
	if _, err := groups.CreateOrUpdate(ctx, "other", armresources.ResourceGroup{Location: new(string)}, nil); err == nil || !strings.Contains(err.Error(), "AuthorizationFailed") {
		t.Errorf("a Reader makes a group: %v", err)
	}
}

// Azure's own credentials for people sign in: with a browser, and with a code for another device.
func TestPeopleSignIn(t *testing.T) {
	s := start(t)
	s.run(t, "group", "create", "prod")
	ada := s.newPerson(t, "ada", "Reader")

	t.Run("device code", func(t *testing.T) {
		asked := 0
		credential, err := azidentity.NewDeviceCodeCredential(&azidentity.DeviceCodeCredentialOptions{ClientOptions: s.options, DisableInstanceDiscovery: true, TenantID: s.tenant,
			UserPrompt: func(ctx context.Context, m azidentity.DeviceCodeMessage) error {
				asked++
				return ada.enter(ctx, m.VerificationURL, m.UserCode)
			}})
		if err != nil {
			t.Fatal(err)
		}
		if s.worksFor(t.Context(), t, credential); asked != 1 {
			t.Errorf("asked %d times", asked)
		}
	})
	t.Run("browser", func(t *testing.T) {
		opened := s.replaceBrowser(t)
		credential, err := azidentity.NewInteractiveBrowserCredential(&azidentity.InteractiveBrowserCredentialOptions{ClientOptions: s.options, DisableInstanceDiscovery: true})
		if err != nil {
			t.Fatal(err)
		}
		ctx, giveUp := context.WithCancelCause(t.Context()) // else the credential waits for ever
		var beside sync.WaitGroup
		beside.Go(func() {
			address, err := os.ReadFile(opened) // waits until the browser has been opened
			if err == nil {
				err = ada.signInAt(ctx, string(address))
			}
			if err != nil {
				giveUp(err)
			}
		})
		s.worksFor(ctx, t, credential)
		beside.Wait()
		if err := context.Cause(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Run("who is signed out signs in again", func(t *testing.T) {
		asked := 0
		credential, err := azidentity.NewDeviceCodeCredential(&azidentity.DeviceCodeCredentialOptions{ClientOptions: s.options, DisableInstanceDiscovery: true, TenantID: s.tenant,
			UserPrompt: func(ctx context.Context, m azidentity.DeviceCodeMessage) error {
				asked++
				return ada.enter(ctx, m.VerificationURL, m.UserCode)
			}})
		if err != nil {
			t.Fatal(err)
		}
		s.worksFor(t.Context(), t, credential)
		s.run(t, "user", "sign-out", "ada")
		if _, err := credential.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://storage.azure.com/.default"}, EnableCAE: true}); err != nil || asked != 2 {
			t.Errorf("asked %d times, %v", asked, err)
		}
	})
}

// replaceBrowser has programs open addresses by writing them to a pipe.
func (s *server) replaceBrowser(t *testing.T) (pipe string) {
	t.Helper()
	dir := t.TempDir()
	pipe = filepath.Join(dir, "opened")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte("#!/bin/sh\nprintf %s \"$1\" > '"+pipe+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return pipe
}
