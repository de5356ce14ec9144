package backup

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/fabric"
	"kluis/internal/job"
	"kluis/internal/objects"
	"kluis/internal/recovery"
)

// A proof says that a key opens a disk. A drill says more: a machine that is made of a recovery point boots. It is
// started on a host, on networks that reach nobody, from the recovery store itself, with the keys that are in the point, and
// is thrown away. The verdict is noted on the point, and in the store, which outlives the database.

const (
	drillAction = pointActions + "/drill/action"
	taskPrepare = "Prepare machine"
	taskBoot    = "Boot and check"

	defaultDrillTime = 10 * time.Minute
	maxDrillTime     = 2 * time.Hour
	maxCheckWords    = 64
	maxSignText      = 1024
	maxPort          = 1<<16 - 1

	// drillsDocument holds the verdicts of the drills of a store's points, by point.
	drillsDocument = "drills.json"
)

// DrillRequest asks for a drill. If neither console nor port is asked for, the agent of the machine must answer.
type DrillRequest struct {
	Point    armid.ID
	Host     string        // a libvirt host; empty: the one that the VM was on, or the only one
	Console  string        // text that its serial console must show
	Port     int           // TCP port that must answer
	PortText string        // what that must say, unprompted; empty: that it takes a connection is enough
	Check    []string      // a program in the guest, with arguments, that must end with 0
	Limit    time.Duration // for all of it; 0: ten minutes
}

func (r DrillRequest) valid() bool {
	return r.Limit >= 0 && r.Limit <= maxDrillTime && len(r.Check) <= maxCheckWords && len(r.Console) <= maxSignText &&
		r.Port >= 0 && r.Port <= maxPort && len(r.PortText) <= maxSignText && (r.Port > 0 || r.PortText == "")
}

// Drill is the verdict of the last drill of a recovery point.
type Drill struct {
	Time   time.Time     `json:"time"`
	Job    string        `json:"job"`
	Host   string        `json:"host"`
	Passed bool          `json:"passed"`
	Reason string        `json:"reason,omitempty"` // why not
	Boot   time.Duration `json:"boot"`             // from the start until the sign that was waited for, in ns
	Sign   string        `json:"sign"`             // what was waited for
	Check  string        `json:"check,omitempty"`  // the program that was run in it
}

type drillArgs struct {
	Point    armid.ID      `json:"point"`
	Host     string        `json:"host"`
	Console  string        `json:"console,omitempty"`
	Port     int           `json:"port,omitempty"`
	PortText string        `json:"portText,omitempty"`
	Check    []string      `json:"check,omitempty"`
	Limit    time.Duration `json:"limit"`
}

// sign is what is waited for, for a person.
func (a drillArgs) sign() string {
	var all []string
	if a.Console != "" {
		all = append(all, fmt.Sprintf("the console shows %q", a.Console))
	}
	switch {
	case a.PortText != "":
		all = append(all, fmt.Sprintf("port %d says %q", a.Port, a.PortText))
	case a.Port > 0:
		all = append(all, fmt.Sprintf("port %d answers", a.Port))
	}
	if len(all) == 0 {
		return "the guest agent answers"
	}
	return strings.Join(all, " and ")
}

// StartDrill starts a drill of a recovery point. A check sees what is in the disks, so who wants one needs the right to
// that, too.
func (s *Service) StartDrill(ctx context.Context, r DrillRequest) (j job.Job, err error) {
	err = s.o.Authorizer.Authorize(ctx, drillAction, vaultOf(r.Point))
	if err == nil && len(r.Check) > 0 {
		err = s.o.Authorizer.Authorize(ctx, decryptAction, vaultOf(r.Point))
	}
	if err != nil {
		return job.Job{}, err
	}
	r.Limit = cmp.Or(r.Limit, defaultDrillTime)
	if !r.valid() {
		return job.Job{}, drillInvalid()
	}
	p, err := s.lookupPoint(ctx, r.Point)
	if err != nil {
		return job.Job{}, err
	}
	if r.Host, err = s.drillHost(p, r.Host); err != nil {
		return job.Job{}, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		item, err := selectItem(ctx, tx, p.Item)
		if err != nil {
			return err
		}
		if err := item.readable(); err != nil {
			return err
		}
		j, err = s.enqueue(ctx, tx, item, job.Spec{Kind: drillWork{}.Kind(), Tasks: []string{taskPrepare, taskBoot},
			Args:    drillArgs{p.Item.Child("recoveryPoints", p.ID), r.Host, r.Console, r.Port, r.PortText, r.Check, r.Limit},
			Details: map[string]string{"Job Type": "Restore drill", "Host": r.Host, "Recovery point time ": p.Time.UTC().Format(bagTime)}})
		return err
	})
	s.o.Jobs.Wake()
	return j, err
}

// drillHost chooses where a drill takes place.
func (s *Service) drillHost(p Point, wanted string) (string, error) {
	hosts := s.o.Fabric.Hosts()
	switch {
	case len(hosts) == 0:
		return "", drillNoHost()
	case wanted != "" && !slices.Contains(hosts, wanted):
		return "", drillHostUnknown(wanted, hosts)
	case wanted != "":
		return wanted, nil
	case slices.Contains(hosts, p.Host):
		return p.Host, nil
	case len(hosts) == 1:
		return hosts[0], nil
	}
	return "", drillHostUnknown(p.Host, hosts)
}

// drillWork does the jobs that try a restore.
type drillWork struct{ s *Service }

// Kind implements job.Work.
func (drillWork) Kind() string { return "RestoreDrill" }

// Run implements job.Work.
func (w drillWork) Run(ctx context.Context, r *job.Run) error {
	d := &drillRun{s: w.s, r: r}
	err := d.run(ctx)
	d.close()
	if err == nil || ctx.Err() != nil {
		return err
	}
	err = translate(err)
	w.s.raiseFailed(context.WithoutCancel(ctx), r, "restore drill", d.point, err)
	return err
}

// drillRun is one drill while it runs.
type drillRun struct {
	s    *Service
	r    *job.Run
	args drillArgs

	item   Item
	point  Point
	store  *recovery.Store
	stored *recovery.Point
	keys   []fabric.KeyFile
	undo   []func()
}

func (d *drillRun) close() {
	for _, k := range d.keys {
		k.Key.Wipe()
	}
	for _, f := range slices.Backward(d.undo) {
		f()
	}
}

func (d *drillRun) run(ctx context.Context) error {
	d.r.Task(taskPrepare)
	if err := d.open(ctx); err != nil {
		return err
	}
	what, err := d.machine(ctx)
	if err != nil {
		return err
	}
	d.r.Task(taskBoot)
	started := d.s.o.Now()
	result, err := d.s.o.Fabric.Drill(ctx, d.args.Host, what)
	if err != nil {
		return err
	}
	verdict := Drill{Time: started, Job: d.r.ID(), Host: d.args.Host, Passed: result.Passed, Reason: result.Reason, Boot: result.Boot, Sign: d.args.sign()}
	if len(d.args.Check) > 0 {
		verdict.Check = d.args.Check[0]
		d.r.Detail("Check output", result.Output)
	}
	return d.note(context.WithoutCancel(ctx), verdict)
}

func (d *drillRun) open(ctx context.Context) (err error) {
	if err := d.r.Args(&d.args); err != nil {
		return err
	}
	if d.point, err = d.s.lookupPoint(ctx, d.args.Point); err != nil {
		return err
	}
	if d.item, err = d.s.lookupItem(ctx, d.point.Item); err != nil {
		return err
	}
	store, done, err := d.s.stores.write(ctx, d.item.store)
	if err != nil {
		return storeUnreadable(d.item, err)
	}
	d.store, d.undo = store, append(d.undo, done)
	d.stored, err = storedPoint(ctx, store, d.point)
	return err
}

// machine is what is to boot: the machine of the point, its disks read from the store, and its own keys.
func (d *drillRun) machine(ctx context.Context) (what fabric.Drill, err error) {
	what = fabric.Drill{UUID: d.s.o.NewID(), Name: "kluis-drill-" + d.point.ID, Console: d.args.Console, Port: d.args.Port, PortText: d.args.PortText, Check: d.args.Check, Limit: d.args.Limit}
	if what.State, err = guestStateOf(d.stored); err != nil {
		return what, pointDamaged(err)
	}
	for i, p := range d.point.Disks {
		disk, err := d.stored.Disk(p.Name)
		if err != nil {
			return what, pointDamaged(err)
		}
		d.undo = append(d.undo, disk.Hold())
		what.Disks = append(what.Disks, fabric.DrillDisk{Target: cmp.Or(p.Target, targetAt(i)), Content: disk})
		key, err := d.s.disclose(d.s.o.AsService(ctx), d.point, d.stored, p.Name)
		if err != nil {
			return what, notDecrypted(d.point, p.Name, whyNoBEK(err), err)
		}
		if key.Len() > 0 {
			d.keys = append(d.keys, fabric.KeyFile{Name: d.keyFile(p), Key: key})
		}
	}
	what.Keys = d.keys
	return what, nil
}

// targetAt is where a host puts the disks of a machine that it never had: vda, vdb, …
func targetAt(i int) string {
	if i < 26 {
		return "vd" + string(rune('a'+i))
	}
	return "vd" + string(rune('a'+i/26-1)) + string(rune('a'+i%26))
}

// keyFile is the name under which the guest looks for the key of a disk.
func (d *drillRun) keyFile(disk PointDisk) string {
	tag := ""
	for _, k := range d.point.Keys {
		if k.Disk == disk.Name {
			tag = k.FileName
		}
	}
	return fabric.KeyFileName(tag, len(d.keys) == 0, disk.Lun)
}

// note puts the verdict on the point, in the store and in the catalogue. A drill that did not pass ends its job with a
// warning: the drill itself was done.
func (d *drillRun) note(ctx context.Context, verdict Drill) error {
	d.r.Detail("Drill", map[bool]string{true: "passed", false: "failed"}[verdict.Passed])
	d.r.Detail("Boot time (ms)", fmt.Sprint(verdict.Boot.Milliseconds()))
	if err := d.keep(ctx, verdict); err != nil {
		return err
	}
	warning := drillFailed(d.point, verdict)
	if !verdict.Passed {
		d.r.Warn(warning)
	}
	return d.s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		p, err := selectPoint(ctx, tx, d.point.Item, d.point.ID)
		if isNotFound(err) {
			return nil // it has expired meanwhile
		}
		if err != nil {
			return err
		}
		p.Drill = &verdict
		if !verdict.Passed {
			if err := d.s.raise(ctx, tx, sourceOf(d.r), p.Item, p.ID, warning); err != nil {
				return err
			}
		}
		return putPoint(ctx, tx, p)
	})
}

// keep writes the verdict beside the points. Those of points that are gone go with it.
func (d *drillRun) keep(ctx context.Context, verdict Drill) error {
	all, err := d.s.drills(ctx, d.item.store)
	if err != nil {
		return err
	}
	points, _ := d.store.Points(ctx) // one that is damaged is still there
	there := map[string]bool{}
	for _, p := range points {
		there[p.ID] = true
	}
	maps.DeleteFunc(all, func(id string, _ Drill) bool { return !there[id] })
	all[d.point.ID] = verdict
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return d.store.PutDocument(ctx, drillsDocument, text)
}

// drills reads the verdicts that a store keeps. None, and a document that makes no sense, is an empty list.
func (s *Service) drills(ctx context.Context, store string) (map[string]Drill, error) {
	all := map[string]Drill{}
	text, err := recovery.ReadDocument(ctx, s.stores.bucketOf(store), drillsDocument)
	if errors.Is(err, objects.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read verdicts of drills: %w", err)
	}
	if err := json.Unmarshal(text, &all); err != nil {
		s.o.Log.Warn("the verdicts of drills in a recovery store cannot be read", "error", err)
		return map[string]Drill{}, nil
	}
	return all, nil
}
