// Package deployment evaluates a deployment template and creates what it describes.
//
// A deployment happens in two steps. First the whole template is evaluated: parameters, variables,
// conditions, the name, type and body of every resource, and their order. Only if that succeeds, and
// every type is one that can be created here, is anything created; then resource after resource, as the
// caller. What a resource refuses ends the deployment, is named in its error together with the resource,
// and what was created before stays, as in Azure: deploying again goes on from there.
//
// Files: lex.go reads expressions, functions.go gives them values, template.go makes the plan, this file
// keeps deployments and applies them.
package deployment

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/problem"
)

// Deployer creates or updates one resource, as the caller in ctx.
type Deployer func(ctx context.Context, id armid.ID, apiVersion string, body json.RawMessage) error

// Authorizer decides whether the principal in ctx may do an action at a scope.
type Authorizer interface {
	Authorize(ctx context.Context, action string, scope armid.ID) error
}

// Options are the parts of a Service.
type Options struct {
	DB         *database.DB
	Authorizer Authorizer
	TenantID   string
	// GroupLocation returns where a resource group is; its error says that there is none.
	GroupLocation func(ctx context.Context, group string) (string, error)
	// Fetch reads the template that a link names.
	Fetch     func(ctx context.Context, uri string) ([]byte, error)
	Deployers map[string]Deployer // by resource type
	Now       func() time.Time
	NewID     func() string
}

// Service deploys templates. It is safe for concurrent use.
type Service struct {
	o         Options
	deployers map[string]Deployer // by type in lower case
}

// New returns the service.
func New(o Options) *Service {
	s := &Service{o: o, deployers: map[string]Deployer{}}
	for typ, d := range o.Deployers {
		s.deployers[strings.ToLower(typ)] = d
	}
	return s
}

// Properties are what a deployment is asked for with.
type Properties struct {
	Mode         string                    `json:"mode"`
	Template     json.RawMessage           `json:"template,omitempty"`
	TemplateLink *Link                     `json:"templateLink,omitempty"`
	Parameters   map[string]ParameterValue `json:"parameters,omitempty"`
}

// Link names a document.
type Link struct {
	URI            string `json:"uri"`
	ContentVersion string `json:"contentVersion,omitempty"`
}

// ParameterValue is the value of one parameter.
type ParameterValue struct {
	Value json.RawMessage `json:"value"`
}

// Deployment is a deployment that happened. Values of secure parameters are not in it.
type Deployment struct {
	ID          armid.ID              `json:"id"`
	Correlation string                `json:"correlation"`
	Started     time.Time             `json:"started"`
	Ended       time.Time             `json:"ended"`
	State       string                `json:"state"` // Running, Succeeded, Failed
	Mode        string                `json:"mode"`
	Parameters  map[string]TypedValue `json:"parameters,omitempty"`
	Outputs     map[string]TypedValue `json:"outputs,omitempty"`
	Resources   []armid.ID            `json:"resources,omitempty"` // created, in order
	Failure     *Failure              `json:"failure,omitempty"`
}

// TypedValue is a parameter or an output as Azure shows it.
type TypedValue struct {
	Type  string `json:"type"`
	Value any    `json:"value,omitempty"`
}

// Failure is why a deployment failed.
type Failure struct {
	Resource armid.ID `json:"resource"`
	Code     string   `json:"code"`
	Message  string   `json:"message"`
	Advice   string   `json:"advice,omitempty"`
}

const deploymentActions = "Microsoft.Resources/deployments"

// Deploy evaluates and applies a template. It returns when all is created; the deployment tells what
// became of it, and only a request that could not even begin is an error.
func (s *Service) Deploy(ctx context.Context, id armid.ID, p Properties) (Deployment, error) {
	if err := s.o.Authorizer.Authorize(ctx, deploymentActions+"/write", id); err != nil {
		return Deployment{}, err
	}
	sc, t, plan, err := s.evaluate(ctx, id, p)
	if err != nil {
		return Deployment{}, err
	}
	d := Deployment{ID: id, Correlation: s.o.NewID(), Started: s.o.Now(), State: "Running", Mode: p.Mode, Parameters: shown(t, sc)}
	if err := s.put(ctx, d); err != nil {
		return Deployment{}, err
	}
	s.apply(ctx, &d, plan)
	if d.Failure == nil {
		if d.Outputs, err = t.outputs(sc); err != nil {
			d.Failure = &Failure{Resource: id, Code: "DeploymentOutputEvaluationFailed", Message: err.Error()}
		}
	}
	d.Ended, d.State = s.o.Now(), "Succeeded"
	if d.Failure != nil {
		d.State = "Failed"
	}
	// What happened is written down also when the caller has gone.
	return d, s.put(context.WithoutCancel(ctx), d)
}

// Validate evaluates a template and creates nothing. It returns the ids of what would be created.
func (s *Service) Validate(ctx context.Context, id armid.ID, p Properties) ([]armid.ID, error) {
	if err := s.o.Authorizer.Authorize(ctx, deploymentActions+"/validate/action", id); err != nil {
		return nil, err
	}
	_, _, plan, err := s.evaluate(ctx, id, p)
	ids := make([]armid.ID, len(plan))
	for i, r := range plan {
		ids[i] = r.ID
	}
	return ids, err
}

func (s *Service) evaluate(ctx context.Context, id armid.ID, p Properties) (*scope, *Template, []Resource, error) {
	if !strings.EqualFold(p.Mode, "Incremental") {
		return nil, nil, nil, modeNotSupported(p.Mode)
	}
	location, err := s.o.GroupLocation(ctx, id.ResourceGroup)
	if err != nil {
		return nil, nil, nil, err
	}
	text, err := s.templateOf(ctx, p)
	if err != nil {
		return nil, nil, nil, err
	}
	t, err := parseTemplate(text)
	if err != nil {
		return nil, nil, nil, invalidTemplate(id, err)
	}
	given := map[string]any{}
	for name, v := range p.Parameters {
		if given[name], err = decodeValue(v.Value); err != nil {
			return nil, nil, nil, invalidTemplate(id, fmt.Errorf("parameter %q: %w", name, err))
		}
	}
	sc := &scope{group: id.Scope(), location: location, tenant: s.o.TenantID, name: id.Name(), parameters: map[string]any{}, variables: map[string]any{}}
	if err := t.bind(sc, given); err != nil {
		return nil, nil, nil, invalidTemplate(id, err)
	}
	plan, err := t.plan(sc)
	if err != nil {
		return nil, nil, nil, invalidTemplate(id, err)
	}
	for _, r := range plan {
		if s.deployers[strings.ToLower(r.ID.Type())] == nil {
			return nil, nil, nil, typeNotDeployable(r.ID, slices.Sorted(maps.Keys(s.o.Deployers)))
		}
	}
	return sc, t, plan, nil
}

func (s *Service) templateOf(ctx context.Context, p Properties) ([]byte, error) {
	switch {
	case p.TemplateLink != nil && len(p.Template) > 0:
		return nil, templateTwice()
	case p.TemplateLink != nil:
		text, err := s.o.Fetch(ctx, p.TemplateLink.URI)
		if err != nil {
			return nil, linkNotReadable(p.TemplateLink.URI, err)
		}
		return text, nil
	case len(p.Template) == 0:
		return nil, templateMissing()
	}
	return p.Template, nil
}

func (s *Service) apply(ctx context.Context, d *Deployment, plan []Resource) {
	for _, r := range plan {
		if err := s.deployers[strings.ToLower(r.ID.Type())](ctx, r.ID, r.APIVersion, r.Body); err != nil {
			d.Failure = failureOf(r.ID, err)
			return
		}
		d.Resources = append(d.Resources, r.ID)
	}
}

func failureOf(id armid.ID, err error) *Failure {
	if p := problem.Of(err); p != nil {
		return &Failure{Resource: id, Code: p.Code, Message: p.Message, Advice: p.Advice}
	}
	return &Failure{Resource: id, Code: "InternalServerError", Message: "The resource could not be created.",
		Advice: "Try again; if it fails again, look in the server's log."}
}

// outputs evaluates what a template tells at the end.
func (t *Template) outputs(s *scope) (map[string]TypedValue, error) {
	values := map[string]TypedValue{}
	for name, o := range t.Outputs {
		v, err := s.evalJSON(o.Value)
		if err != nil {
			return nil, fmt.Errorf("output %q: %w", name, err)
		}
		values[name] = TypedValue{o.Type, hidden(o.Type, v)}
	}
	return values, nil
}

// shown are the parameters with their values, but for secure ones.
func shown(t *Template, s *scope) map[string]TypedValue {
	values := map[string]TypedValue{}
	for name, p := range t.Parameters {
		values[name] = TypedValue{p.Type, hidden(p.Type, s.parameters[name])}
	}
	return values
}

func hidden(typ string, v any) any {
	if strings.HasPrefix(strings.ToLower(typ), "secure") {
		return nil
	}
	return v
}

func (s *Service) put(ctx context.Context, d Deployment) error {
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error { return putDeployment(ctx, tx, d) })
}

// Deployment returns a deployment.
func (s *Service) Deployment(ctx context.Context, id armid.ID) (d Deployment, err error) {
	if err := s.o.Authorizer.Authorize(ctx, deploymentActions+"/read", id); err != nil {
		return Deployment{}, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		var found bool
		if d, found, err = selectDeployment(ctx, tx, id); err == nil && !found {
			return deploymentNotFound(id)
		}
		return err
	})
	return d, err
}

// Deployments returns the deployments of a resource group, by name.
func (s *Service) Deployments(ctx context.Context, group armid.ID) (all []Deployment, err error) {
	if err := s.o.Authorizer.Authorize(ctx, deploymentActions+"/read", group); err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		all, err = selectDeployments(ctx, tx, group)
		return err
	})
	return all, err
}

// Delete forgets a deployment; what it created stays.
func (s *Service) Delete(ctx context.Context, id armid.ID) (existed bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, deploymentActions+"/delete", id); err != nil {
		return false, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		existed, err = deleteDeployment(ctx, tx, id)
		return err
	})
	return existed, err
}
