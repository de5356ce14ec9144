package recoveryservices

import (
	"context"
	"time"

	"kluis/internal/api/arm"
	"kluis/internal/backup"
)

// Azure has no restore drills; these are ours.

// drillRequest asks for one. Nothing in it is needed.
type drillRequest struct {
	Properties struct {
		Host     string   `json:"host"`           // a libvirt host
		Console  string   `json:"consoleText"`    // to wait for, instead of the guest's agent
		Port     int      `json:"port"`           // TCP port to wait for, likewise
		PortText string   `json:"portText"`       // that it is to say
		Check    []string `json:"check"`          // a program in the guest, with its arguments
		Seconds  int64    `json:"limitInSeconds"` // for all of it
	} `json:"properties"`
}

// drillBody is the verdict of one, on its recovery point.
type drillBody struct {
	State   string `json:"state"` // passed or failed
	Time    string `json:"time"`
	Host    string `json:"host"`
	Sign    string `json:"sign"` // what was waited for
	Check   string `json:"check,omitempty"`
	Reason  string `json:"reason,omitempty"`
	BootMS  int64  `json:"bootMilliseconds"`
	JobName string `json:"jobName"`
}

func (d *door) drill(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body drillRequest
	if r.HTTP.ContentLength != 0 {
		if err := r.Decode(&body); err != nil {
			return nil, err
		}
	}
	p := body.Properties
	limit := time.Duration(min(max(p.Seconds, -1), 1<<30)) * time.Second // what is out of bounds stays so
	j, err := d.s.StartDrill(ctx, backup.DrillRequest{Point: r.ID, Host: p.Host, Console: p.Console, Port: p.Port, PortText: p.PortText, Check: p.Check, Limit: limit})
	if err != nil {
		return nil, err
	}
	return started(r, r.ID.Parent(), j), nil
}

func encodeDrill(d *backup.Drill) *drillBody {
	if d == nil {
		return nil
	}
	state := "failed"
	if d.Passed {
		state = "passed"
	}
	return &drillBody{state, azureTime(d.Time), d.Host, d.Sign, d.Check, d.Reason, d.Boot.Milliseconds(), d.Job}
}
