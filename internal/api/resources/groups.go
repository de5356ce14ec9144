package resources

import (
	"context"
	"encoding/base64"
	"net/http"
	"unicode/utf8"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/problem"
	"kluis/internal/resources"
)

type groupBody struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags,omitempty"`
	ManagedBy  string            `json:"managedBy,omitempty"`
	Properties state             `json:"properties"`
}

type state struct {
	Provisioning string `json:"provisioningState"`
}

func encodeGroup(id armid.ID, g resources.Group) groupBody {
	return groupBody{armid.Subscription(id.Subscription).Group(g.Name).String(), g.Name, "Microsoft.Resources/resourceGroups", g.Location, g.Tags, g.ManagedBy, state{"Succeeded"}}
}

func (h *door) getGroup(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	g, err := h.r.Group(ctx, r.ID.ResourceGroup)
	if err != nil {
		return nil, err
	}
	return arm.OK(encodeGroup(r.ID, g)), nil
}

func (h *door) putGroup(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body struct {
		Location  string
		Tags      map[string]string
		ManagedBy string
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	g, created, err := h.r.PutGroup(ctx, resources.Group{Name: r.ID.ResourceGroup, Location: body.Location, Tags: body.Tags, ManagedBy: body.ManagedBy})
	if err != nil {
		return nil, err
	}
	return put(encodeGroup(r.ID, g), created), nil
}

// patchGroup changes the tags: a group has nothing else that can change.
func (h *door) patchGroup(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body struct{ Tags map[string]string }
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Tags == nil {
		return h.getGroup(ctx, r)
	}
	g, err := h.r.TagGroup(ctx, r.ID.ResourceGroup, body.Tags)
	if err != nil {
		return nil, err
	}
	return arm.OK(encodeGroup(r.ID, g)), nil
}

// deleteGroup answers as Azure does, that the group is being deleted, and where to see when it is gone. It is gone by
// then: what had to be deleted with it was.
func (h *door) deleteGroup(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if err := h.r.DeleteGroup(ctx, r.ID.ResourceGroup, contents{h.catalog, r}); err != nil {
		return nil, err
	}
	if err := h.d.Forget(ctx, r.ID); err != nil {
		return nil, err
	}
	token := base64.RawURLEncoding.EncodeToString([]byte(r.ID.ResourceGroup))
	return arm.Accepted("", r.URL(armid.Subscription(r.ID.Subscription).String()+"/operationresults/"+token)), nil
}

// groupDeleted says whether a group that was to be deleted is gone.
func (h *door) groupDeleted(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	name, err := base64.RawURLEncoding.DecodeString(r.ID.Name())
	if err != nil || !utf8.Valid(name) {
		return nil, problem.New(problem.NotFound, "OperationNotFound", "There is no operation '%.60s'.", r.ID.Name()).WithAdvice("Follow the Location that the deletion answered with.")
	}
	_, err = h.r.Group(ctx, string(name))
	if err == nil || problem.KindOf(err) != problem.NotFound {
		return arm.Accepted("", r.URL(r.ID.String())), err
	}
	return &arm.Reply{Status: http.StatusOK}, nil
}

func (h *door) listGroups(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if err := knows(r, "tagName", "tagValue"); err != nil {
		return nil, err
	}
	groups, err := h.r.Groups(ctx)
	if err != nil {
		return nil, err
	}
	bodies := []groupBody{}
	for _, g := range groups {
		if !tagged(r, g.Tags) {
			continue
		}
		bodies = append(bodies, encodeGroup(r.ID, g))
	}
	return arm.List(r, bodies), nil
}
