package deployment

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/problem"
)

type anybody struct{}

func (anybody) Authorize(context.Context, string, armid.ID) error { return nil }

// open makes a service that creates networks by deploy.
func open(db *database.DB, deploy Deployer) *Service {
	return New(Options{DB: db, Authorizer: anybody{}, TenantID: "tenant", NewID: func() string { return "correlation" },
		Now:           func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) },
		GroupLocation: func(context.Context, string) (string, error) { return "westeurope", nil },
		Fetch:         func(context.Context, string) ([]byte, error) { return nil, errors.New("nothing is there") },
		Deployers:     map[string]Deployer{"Microsoft.Network/virtualNetworks": deploy}})
}

func incrementalOf(resources string) Properties {
	return Properties{Mode: "incremental", Template: json.RawMessage(strings.Replace(template(``), `"resources":[]`, `"resources":[`+resources+`]`, 1))}
}

const oneNetwork = `{"type":"Microsoft.Network/virtualNetworks","apiVersion":"1","name":"n"}`

// While a deployment runs it can be seen running, and another under its name is refused.
func TestRunningDeployment(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		var s *Service
		s = open(db, func(ctx context.Context, _ armid.ID, _ string, _ json.RawMessage) error {
			if d, err := s.Deployment(ctx, deploymentID); err != nil || d.State != running {
				t.Errorf("while it runs it is %s, %v", d.State, err)
			}
			if _, err := s.Deploy(ctx, deploymentID, incrementalOf("")); !problem.Is(err, "DeploymentActive") {
				t.Errorf("a second one: %v", err)
			}
			return nil
		})
		d, err := s.Deploy(t.Context(), deploymentID, incrementalOf(oneNetwork))
		if err != nil || d.State != succeeded || len(d.Resources) != 1 {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

// A deployment whose process was killed shows as failed, with what to do; deployed again, it succeeds.
func TestInterruptedDeployment(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		type killed struct{}
		dying := open(db, func(context.Context, armid.ID, string, json.RawMessage) error { panic(killed{}) })
		func() {
			defer func() {
				if p := recover(); p != (killed{}) {
					t.Fatalf("recovered %v", p)
				}
			}()
			_, _ = dying.Deploy(t.Context(), deploymentID, incrementalOf(oneNetwork))
		}()
		s := open(db, func(context.Context, armid.ID, string, json.RawMessage) error { return nil })
		d, err := s.Deployment(t.Context(), deploymentID)
		if err != nil || d.State != failed || d.Failure == nil || d.Failure.Code != "DeploymentInterrupted" || d.Failure.Advice == "" {
			t.Errorf("after the kill it is %+v, %v", d, err)
		}
		if all, err := s.Deployments(t.Context(), deploymentID.Scope()); err != nil || len(all) != 1 || all[0].State != failed {
			t.Errorf("after the kill the list is %+v, %v", all, err)
		}
		if d, err := s.Deploy(t.Context(), deploymentID, incrementalOf(oneNetwork)); err != nil || d.State != succeeded {
			t.Errorf("deployed again it is %+v, %v", d, err)
		}
	})
}

// What became of a deployment is written down also when the caller has gone meanwhile.
func TestCallerHasGone(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		ctx, cancel := context.WithCancel(t.Context())
		s := open(db, func(ctx context.Context, _ armid.ID, _ string, _ json.RawMessage) error {
			cancel()
			return ctx.Err()
		})
		if _, err := s.Deploy(ctx, deploymentID, incrementalOf(oneNetwork)); err != nil {
			t.Fatal(err)
		}
		if d, err := s.Deployment(t.Context(), deploymentID); err != nil || d.State != failed || d.Failure.Code == "DeploymentInterrupted" {
			t.Errorf("it is %+v, %v", d, err)
		}
	})
}

// A resource that is refused may repeat a value; the deployment does not when the template has secure ones.
func TestRefusalThatTellsASecret(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := open(db, func(_ context.Context, _ armid.ID, _ string, body json.RawMessage) error {
			return problem.New(problem.Invalid, "InvalidTag", "what is %s", body).WithAdvice("not %s", body)
		})
		for kind, told := range map[string]bool{"string": true, "secureString": false, "SECUREOBJECT": false} {
			value := map[bool]string{true: `"hush"`, false: `{"a":"hush"}`}[kind != "SECUREOBJECT"]
			p := Properties{Mode: incremental, Parameters: map[string]ParameterValue{"key": {json.RawMessage(value)}},
				Template: json.RawMessage(strings.Replace(template(`,"parameters":{"key":{"type":"`+kind+`"}}`), `"resources":[]`,
					`"resources":[{"type":"Microsoft.Network/virtualNetworks","apiVersion":"1","name":"n","tags":"[parameters('key')]"}]`, 1))}
			if _, err := s.Deploy(t.Context(), deploymentID, p); err != nil {
				t.Fatal(err)
			}
			d, err := s.Deployment(t.Context(), deploymentID)
			text, _ := json.Marshal(d)
			if err != nil || d.State != failed || d.Failure.Code != "InvalidTag" || strings.Contains(string(text), "hush") != told {
				t.Errorf("%s: %s, %v", kind, text, err)
			}
		}
	})
}

var update = flag.Bool("update", false, "rewrite golden files")

// All that can be said to a person is in one file, to be read; each says what to do.
func TestProblems(t *testing.T) {
	var text strings.Builder
	for _, p := range []*problem.Error{
		invalidTemplate(deploymentID, errors.New("resource 1: type, name and apiVersion are required")),
		typeNotDeployable(armid.Must(network+"n"), []string{"Microsoft.Compute/disks", "Microsoft.Compute/virtualMachines"}),
		modeNotSupported("Complete"), templateMissing(), templateTwice(), linkNotReadable("https://example.com/t.json", errors.New("inside")),
		scopeNotSupported(deploymentID), parametersLinkNotSupported(), deploymentActive(deploymentID), deploymentNotFound(deploymentID),
	} {
		if p.Code == "" || p.Message == "" || p.Advice == "" {
			t.Errorf("%s lacks code, message or advice", p.Code)
		}
		fmt.Fprintf(&text, "%s\n\t%s\n\t-> %s\n", p.Code, p.Message, p.Advice)
	}
	for _, f := range []*Failure{failureOf(deploymentID, errors.New("inside")), interrupted(deploymentID),
		withheld(failureOf(deploymentID, templateMissing()))} {
		fmt.Fprintf(&text, "%s\n\t%s\n\t-> %s\n", f.Code, f.Message, f.Advice)
	}
	if strings.Contains(text.String(), "inside") {
		t.Error("a cause is told to a person")
	}
	golden(t, "testdata/problems.golden", text.String())
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("problems differ from %s (run with -update and read the difference):\n%s", path, got)
	}
}
