package libvirt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// A guest whose applications need more than a freeze has the file that Azure Backup looks for there, with
// the same keys, and its scripts are run before and after. What is not there is not run.
//
// Source: "Application-consistent backup of Azure Linux VMs", VMSnapshotScriptPluginConfig.json.
const scriptConfig = "/etc/azure/VMSnapshotScriptPluginConfig.json"

// maxScriptTime bounds a script, whatever the file says: Azure's limit.
const maxScriptTime = 30 * time.Minute

// scripts are what a guest wants to be run.
type scripts struct {
	Plugin     string   `json:"pluginName"`
	Before     string   `json:"preScriptLocation"`
	BeforeArgs []string `json:"preScriptParams"`
	After      string   `json:"postScriptLocation"`
	AfterArgs  []string `json:"postScriptParams"`
	BeforeAt   int      `json:"preScriptNoOfRetries"`
	AfterAt    int      `json:"postScriptNoOfRetries"`
	Seconds    int      `json:"timeoutInSeconds"`
	GoOn       bool     `json:"continueBackupOnFailure"`

	ran    bool  // the script before has run and was content
	failed error // it has run and was not, and the guest wants the backup all the same
}

// parseScripts reads the file. A guest wrote it.
func parseScripts(text []byte) (s scripts, err error) {
	if err := json.Unmarshal(text, &s); err != nil {
		return scripts{}, fmt.Errorf("%s in the guest: %w", scriptConfig, err)
	}
	if s.Before == "" || s.After == "" {
		return scripts{}, fmt.Errorf("%s in the guest: preScriptLocation and postScriptLocation are both needed", scriptConfig)
	}
	if s.BeforeAt < 0 || s.AfterAt < 0 || s.BeforeAt > 3 || s.AfterAt > 3 {
		return scripts{}, fmt.Errorf("%s in the guest: a script is tried again at most 3 times", scriptConfig)
	}
	if s.Seconds < 0 || s.Seconds > int(maxScriptTime/time.Second) {
		return scripts{}, fmt.Errorf("%s in the guest: timeoutInSeconds is at most %d", scriptConfig, int(maxScriptTime/time.Second))
	}
	return s, nil
}

// scripts returns what the guest wants to be run; nothing if it has no such file.
func (a agent) scripts(ctx context.Context) (scripts, error) {
	text, err := a.readFile(ctx, scriptConfig)
	if errors.Is(err, errNoFile) {
		return scripts{}, nil
	}
	if err != nil {
		return scripts{}, err
	}
	return parseScripts(text)
}

// before runs the script that brings the applications to rest. Whatever comes of it, after is to follow.
func (s *scripts) before(ctx context.Context, a agent) error {
	if s.Before == "" {
		return nil
	}
	err := s.try(ctx, a, s.BeforeAt, s.Before, s.BeforeArgs)
	if err != nil && (!s.GoOn || ctx.Err() != nil) {
		return err
	}
	s.ran, s.failed = err == nil, err
	return nil
}

// after runs the script that lets them go on.
func (s *scripts) after(ctx context.Context, a agent) error {
	if s.After == "" {
		return nil
	}
	return s.try(ctx, a, s.AfterAt, s.After, s.AfterArgs)
}

// resume runs that script in a guest whose backup nobody has ended.
func (a agent) resume(ctx context.Context) error {
	s, err := a.scripts(ctx)
	if err != nil {
		return err
	}
	return s.after(ctx, a)
}

func (s *scripts) try(ctx context.Context, a agent, again int, program string, args []string) (err error) {
	limit := maxScriptTime
	if s.Seconds > 0 {
		limit = time.Duration(s.Seconds) * time.Second
	}
	for range again + 1 {
		if err = s.once(ctx, a, limit, program, args); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (*scripts) once(ctx context.Context, a agent, limit time.Duration, program string, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	end, err := a.run(ctx, program, args...)
	if err != nil {
		return fmt.Errorf("script %s in the guest: %w", program, err)
	}
	if !end.ok() {
		return fmt.Errorf("script %s in the guest ended with code %d: %s", program, end.Code, end.Output)
	}
	return nil
}
