package cli

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"kluis/internal/client"
)

var deploymentColumns = []column[client.Deployment]{
	nameColumn[client.DeploymentProperties](),
	{"State", func(d client.Deployment) string { return d.Properties.ProvisioningState }},
	{"Time", func(d client.Deployment) string { return d.Properties.Timestamp }},
	{"Resources", func(d client.Deployment) string {
		return lines(d.Properties.OutputResources, func(r client.Ref) string { return r.ID })
	}},
}

const deploymentType = "Microsoft.Resources/deployments"

func deploymentCommand() *cobra.Command {
	create := verb("create NAME", "Create what a template describes", `
kluis deployment create bring-back -g restored --template https://staging.blob.localhost:8443/…/azuredeploy….json \
  --parameters VirtualMachineName=web-1
kluis deployment create bring-back -g restored --template azuredeploy.json --parameters @parameters.json`, cobra.ExactArgs(1), func(c *call) error {
		id, err := c.id(c.args[0], deploymentType)
		if err != nil {
			return err
		}
		source := c.flag("template")
		parameters, err := c.parameters()
		if err != nil {
			return err
		}
		var template []byte
		if strings.HasPrefix(source, "https://") {
			template, err = c.Blob(c.ctx(), source)
		} else {
			template, err = readFile(c.cmd, source)
		}
		if err != nil {
			return err
		}
		if !json.Valid(template) {
			return usagef("--template %s: it is not JSON", source)
		}
		d, err := c.Deploy(c.ctx(), id, template, parameters)
		if err != nil {
			return err
		}
		return details(c, d, rawOf, deploymentColumns)
	})
	create.Flags().String("template", "", "file, or address of the template that a restore wrote (see the restore's job)")
	create.Flags().StringArray("parameters", nil, "name=value, or @FILE with a parameters document; may be given several times")
	require(create, "template")
	return noun("deployment", "Deployments: create a VM from restored disks",
		"A deployment creates what a template describes. Every restore of disks writes a template that makes the VM again.",
		create,
		verb("show NAME", "Show a deployment", "kluis deployment show bring-back -g restored", cobra.ExactArgs(1), func(c *call) error {
			id, err := c.id(c.args[0], deploymentType)
			if err != nil {
				return err
			}
			d, err := c.Deployment(c.ctx(), id)
			if err != nil {
				return err
			}
			return details(c, d, rawOf, deploymentColumns)
		}),
	)
}

// parameters reads --parameters; later ones win.
func (c *call) parameters() (map[string]any, error) {
	values := map[string]any{}
	for _, p := range c.list("parameters") {
		if file, ok := strings.CutPrefix(p, "@"); ok {
			data, err := readFile(c.cmd, file)
			if err != nil {
				return nil, err
			}
			if err := parametersOf(data, values); err != nil {
				return nil, usagef("--parameters %s: %w", p, err)
			}
			continue
		}
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return nil, usagef("--parameters %s: it is name=value or @FILE", p)
		}
		values[name] = value
	}
	return values, nil
}

// parametersOf reads a parameters document, {"parameters":{"name":{"value":…}}}, with or without its frame.
func parametersOf(data []byte, into map[string]any) error {
	var document struct {
		Parameters map[string]json.RawMessage `json:"parameters"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return fmt.Errorf("it is not a JSON object: %w", err)
	}
	if document.Parameters == nil {
		if err := json.Unmarshal(data, &document.Parameters); err != nil {
			return fmt.Errorf("it is not a JSON object: %w", err)
		}
	}
	for name, raw := range document.Parameters {
		var parameter struct {
			Value any `json:"value"`
		}
		if err := json.Unmarshal(raw, &parameter); err != nil {
			return fmt.Errorf("parameter %s has no value", name)
		}
		into[name] = parameter.Value
	}
	return nil
}
