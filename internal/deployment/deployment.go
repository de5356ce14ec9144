// Package deployment evaluates a deployment template and creates what it describes.
//
// A deployment happens in two steps. First the whole template is evaluated: parameters, variables,
// conditions, the name, type and body of every resource, and their order. Only if that succeeds, and
// every type is one that can be created here, is anything created; then resource after resource, as the
// caller. What a resource refuses ends the deployment, is named in its error together with the resource,
// and what was created before stays, as in Azure: deploying again goes on from there.
//
// A deployment ends with the call that asked for it, or with the process: one that is found running and
// is nobody's call any more was interrupted, and has failed.
//
// The value of a secure parameter goes into the resources that the template puts it in, and nowhere else:
// not into the record, and not into an error: of what expressions have evaluated to, errors repeat only
// names and types of resources. A resource that is refused may say in its own words what was wrong with a value,
// so these words are not repeated of a template that has secure parameters.
//
// Files: lex.go reads expressions, eval.go and functions.go give them values, template.go makes the plan,
// sql.go keeps deployments, this file applies them.
package deployment

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
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
	Logger    *slog.Logger // gets what goes wrong inside; nil logs nothing
}

// Service deploys templates. It is safe for concurrent use.
type Service struct {
	o         Options
	deployers map[string]Deployer // by type in lower case
	running   sync.Map            // keys of the deployments that a call is at
}

// New returns the service.
func New(o Options) *Service {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{o: o, deployers: map[string]Deployer{}}
	for typ, d := range o.Deployers {
		s.deployers[strings.ToLower(typ)] = d
	}
	return s
}

// Properties are what a deployment is asked for with.
type Properties struct {
	Mode           string                    `json:"mode"`
	Template       json.RawMessage           `json:"template,omitempty"`
	TemplateLink   *Link                     `json:"templateLink,omitempty"`
	Parameters     map[string]ParameterValue `json:"parameters,omitempty"`
	ParametersLink *Link                     `json:"parametersLink,omitempty"` // refused
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
	State       string                `json:"state"`
	Mode        string                `json:"mode"`
	Parameters  map[string]TypedValue `json:"parameters,omitempty"`
	Outputs     map[string]TypedValue `json:"outputs,omitempty"`
	Hash        string                `json:"hash,omitempty"`      // of the template's text, a decimal number
	Planned     []Planned             `json:"planned,omitempty"`   // what the template asks for
	Resources   []armid.ID            `json:"resources,omitempty"` // created, in order
	Failure     *Failure              `json:"failure,omitempty"`
}

// Planned is a resource that a template asks for.
type Planned struct {
	ID       armid.ID   `json:"id"`
	Location string     `json:"location,omitempty"`
	Needs    []armid.ID `json:"needs,omitempty"` // of the same template, created before it
}

// incremental is the mode that there is: what the template does not name stays as it is.
const incremental = "Incremental"

// The states of a deployment.
const (
	running   = "Running"
	succeeded = "Succeeded"
	failed    = "Failed"
)

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
	e, err := s.evaluate(ctx, id, p)
	if err != nil {
		return Deployment{}, err
	}
	if _, busy := s.running.LoadOrStore(id.Key(), nil); busy {
		return Deployment{}, deploymentActive(id)
	}
	defer s.running.Delete(id.Key())
	d := Deployment{ID: id, Correlation: s.o.NewID(), Started: s.o.Now(), State: running, Mode: incremental, Parameters: e.parameters, Hash: e.hash, Planned: e.planned()}
	if err := s.put(ctx, d); err != nil {
		return Deployment{}, err
	}
	s.apply(ctx, &d, e)
	d.Ended = s.o.Now()
	if d.State = failed; d.Failure == nil {
		d.State, d.Outputs = succeeded, e.outputs
	}
	// What happened is written down also when the caller has gone.
	return d, s.put(context.WithoutCancel(ctx), d)
}

// Validate evaluates a template and creates nothing. It returns the ids of what would be created.
func (s *Service) Validate(ctx context.Context, id armid.ID, p Properties) ([]armid.ID, error) {
	if err := s.o.Authorizer.Authorize(ctx, deploymentActions+"/validate/action", id); err != nil {
		return nil, err
	}
	e, err := s.evaluate(ctx, id, p)
	ids := make([]armid.ID, len(e.plan))
	for i, r := range e.plan {
		ids[i] = r.ID
	}
	return ids, err
}

func (s *Service) evaluate(ctx context.Context, id armid.ID, p Properties) (evaluated, error) {
	if id.ResourceGroup == "" {
		return evaluated{}, scopeNotSupported(id)
	}
	if !strings.EqualFold(p.Mode, incremental) {
		return evaluated{}, modeNotSupported(p.Mode)
	}
	if p.ParametersLink != nil {
		return evaluated{}, parametersLinkNotSupported()
	}
	location, err := s.o.GroupLocation(ctx, id.ResourceGroup)
	if err != nil {
		return evaluated{}, err
	}
	text, err := s.templateOf(ctx, p)
	if err != nil {
		return evaluated{}, err
	}
	t, err := parseTemplate(text)
	if err != nil {
		return evaluated{}, invalidTemplate(id, err)
	}
	e, err := t.evaluate(newScope(id, location, s.o.TenantID), p.Parameters)
	if err != nil {
		return evaluated{}, invalidTemplate(id, err)
	}
	sum := sha256.Sum256(text)
	e.hash = strconv.FormatUint(binary.BigEndian.Uint64(sum[:8]), 10)
	for _, r := range e.plan {
		if s.deployers[strings.ToLower(r.ID.Type())] == nil {
			return evaluated{}, typeNotDeployable(r.ID, slices.Sorted(maps.Keys(s.o.Deployers)))
		}
	}
	return e, nil
}

// planned is the plan without what the resources are made of, which may be secret.
func (e evaluated) planned() (all []Planned) {
	for _, r := range e.plan {
		var where struct {
			Location string `json:"location"`
		}
		_ = json.Unmarshal(r.Body, &where) // a resource without a location has none
		all = append(all, Planned{r.ID, where.Location, r.needs})
	}
	return all
}

func (s *Service) templateOf(ctx context.Context, p Properties) ([]byte, error) {
	inline := len(p.Template) > 0 && string(p.Template) != "null"
	switch {
	case p.TemplateLink != nil && inline:
		return nil, templateTwice()
	case p.TemplateLink != nil:
		text, err := s.o.Fetch(ctx, p.TemplateLink.URI)
		if err != nil {
			return nil, linkNotReadable(p.TemplateLink.URI, err)
		}
		return text, nil
	case !inline:
		return nil, templateMissing()
	}
	return p.Template, nil
}

func (s *Service) apply(ctx context.Context, d *Deployment, e evaluated) {
	for _, r := range e.plan {
		if err := s.deployers[strings.ToLower(r.ID.Type())](ctx, r.ID, r.APIVersion, r.Body); err != nil {
			if problem.KindOf(err) == problem.Internal {
				s.o.Logger.ErrorContext(ctx, "create resource", "resource", r.ID.String(), "deployment", d.ID.String(), "correlation", d.Correlation, "error", err)
			}
			if d.Failure = failureOf(r.ID, err); e.secure {
				d.Failure = withheld(d.Failure)
			}
			return
		}
		d.Resources = append(d.Resources, r.ID)
	}
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
	return s.settled(d), err
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
	for i, d := range all {
		all[i] = s.settled(d)
	}
	return all, err
}

// settled tells of a deployment that its record says is running, and that no call is at, what became of it.
func (s *Service) settled(d Deployment) Deployment {
	if _, busy := s.running.Load(d.ID.Key()); d.State == running && !busy {
		d.State, d.Ended, d.Failure = failed, d.Started, interrupted(d.ID)
	}
	return d
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

// Forget forgets the deployments of a resource group that was deleted. It is for who deleted the group: no role is
// checked.
func (s *Service) Forget(ctx context.Context, group armid.ID) error {
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error { return deleteDeployments(ctx, tx, group) })
}
