package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"kluis/internal/armid"
	"kluis/internal/client"
)

// A disk is downloaded into FILE.part, with a note beside it (FILE.part.json) of how far that is whole; it gets its
// name when it is. Who begins again, with the image the same as before, reads what is left.

// downloadVerb is the command for disks and for snapshots.
func downloadVerb(thing, example, typ string) *cobra.Command {
	cmd := verb("download NAME FILE", "Write the bytes of "+thing+" into a file", example, cobra.ExactArgs(2), func(c *call) error {
		id, err := c.id(c.args[0], typ)
		if err != nil {
			return err
		}
		return c.download(id, c.args[1])
	})
	cmd.Long = `Write the bytes of ` + thing + ` into a file.

Access is granted for the time that it takes, and revoked at the end. Only what holds something is read, and
the rest of the file is a hole. A download that was interrupted goes on where it was, as long as the image is
the same; until it is whole the file has .part at its end.`
	cmd.Flags().String("format", "raw", "raw, or vhd: with the footer of a fixed VHD, as Azure gives it")
	return cmd
}

// downloadAccess is how long a download may take.
const downloadAccess = 24 * time.Hour

// footer is what a fixed VHD has behind the disk.
const footer = 512

type downloaded struct {
	ID     string `json:"id"`
	File   string `json:"file"`
	Format string `json:"format"`
	Size   int64  `json:"size"`
	Read   int64  `json:"read"` // this time, of what holds something
}

var downloadColumns = []column[downloaded]{
	{"File", func(d downloaded) string { return d.File }},
	{"Format", func(d downloaded) string { return d.Format }},
	{"Size", func(d downloaded) string { return size(d.Size) }},
	{"Read", func(d downloaded) string { return size(d.Read) }},
}

func (c *call) download(id armid.ID, file string) (err error) {
	format := c.flag("format")
	if format != "raw" && format != "vhd" {
		return usagef("--format %s: it is raw or vhd", format)
	}
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return usagef("%s is there already", file)
	}
	address, revoke, err := c.share(id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, revoke()) }()
	disk, err := c.OpenShared(c.ctx(), address)
	if err != nil {
		return err
	}
	d := download{disk: disk, file: file, note: note{Size: disk.Size, Modified: disk.Modified}}
	if format == "raw" {
		d.note.Size -= footer
	}
	watch, stop := bytesOn(c.cmd.ErrOrStderr())
	read, err := d.run(c.ctx(), watch)
	stop()
	if err != nil {
		return err
	}
	return details(c, downloaded{id.String(), file, format, d.note.Size, read}, itself, downloadColumns)
}

// share grants access. Who had it already keeps it.
func (c *call) share(id armid.ID) (address string, revoke func() error, err error) {
	d, err := c.Disk(c.ctx(), id) // a snapshot has the same form
	if err != nil {
		return "", nil, err
	}
	if address, err = c.GrantAccess(c.ctx(), id, downloadAccess); err != nil {
		return "", nil, err
	}
	return address, func() error {
		if d.Properties.DiskState == "ActiveSAS" {
			return nil
		}
		return c.RevokeAccess(context.WithoutCancel(c.ctx()), id) // also for who has interrupted it
	}, nil
}

// shared is a disk that is downloaded.
type shared interface {
	Pages(ctx context.Context) ([]client.PageRange, error)
	Read(ctx context.Context, off int64, n int) ([]byte, error)
}

type download struct {
	disk shared
	file string
	note note
}

// note says of which disk a file that is not whole yet is, and how far it is whole.
type note struct {
	Size     int64  `json:"size"`
	Modified string `json:"modified"`
	Done     int64  `json:"done"`
}

// The sizes of a download.
const (
	pieceSize = 4 << 20
	readers   = 4
)

// run downloads what is left, and returns how much that was. watch is told how much of how much is there.
func (d *download) run(ctx context.Context, watch func(done, total int64)) (read int64, err error) {
	part := d.file + ".part"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // it was synced where that matters
	if err := d.begin(f); err != nil {
		return 0, err
	}
	pages, err := d.disk.Pages(ctx)
	if err != nil {
		return 0, err
	}
	pieces, total, skipped := d.pieces(pages)
	t := tally{d: d, done: make([]bool, len(pieces)), pieces: pieces, bytes: skipped, total: total, watch: watch}
	g, reading := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for i, p := range pieces {
		g.Go(func() error {
			data, err := d.disk.Read(reading, p.off, p.n)
			if err != nil {
				return err
			}
			if _, err := f.WriteAt(data, p.off); err != nil {
				return err
			}
			return t.wrote(i)
		})
	}
	if err := g.Wait(); err != nil {
		return t.bytes - skipped, err
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	return t.bytes - skipped, d.finish(part)
}

// begin makes the file one of the disk's size, empty unless it is a part of this very disk.
func (d *download) begin(f *os.File) error {
	var old note
	text, err := os.ReadFile(d.noteFile())
	if err != nil || json.Unmarshal(text, &old) != nil || old.Size != d.note.Size || old.Modified != d.note.Modified {
		if err := f.Truncate(0); err != nil {
			return err
		}
		old = d.note
	}
	d.note = old
	return f.Truncate(d.note.Size)
}

func (d *download) noteFile() string { return d.file + ".part.json" }

func (d *download) save() error {
	text, err := json.Marshal(d.note)
	if err != nil {
		return err
	}
	return os.WriteFile(d.noteFile(), text, 0o600) // one that is cut short is no note
}

// finish gives the file its name, unless that is taken meanwhile.
func (d *download) finish(part string) error {
	if err := os.Link(part, d.file); err != nil {
		return err
	}
	return errors.Join(os.Remove(part), os.Remove(d.noteFile()))
}

type piece struct {
	off int64
	n   int
}

// pieces are what is to be read, in order; total is what there is, and skipped what of it is there already.
func (d *download) pieces(pages []client.PageRange) (left []piece, total, skipped int64) {
	for _, p := range pages {
		end := min(p.End+1, d.note.Size)
		total += max(0, end-p.Start)
		for off := p.Start; off < end; {
			n := min(pieceSize, end-off)
			if off+n <= d.note.Done {
				skipped += n
			} else {
				left = append(left, piece{off, int(n)})
			}
			off += n
		}
	}
	return left, total, skipped
}

// tally knows which pieces are written, and notes how far all are.
type tally struct {
	d      *download
	pieces []piece
	watch  func(done, total int64)
	total  int64

	mu    sync.Mutex
	done  []bool
	first int // the first piece that is not written
	bytes int64
}

func (t *tally) wrote(i int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done[i] = true
	t.bytes += int64(t.pieces[i].n)
	t.watch(t.bytes, t.total)
	before := t.first
	for t.first < len(t.done) && t.done[t.first] {
		t.d.note.Done = t.pieces[t.first].off + int64(t.pieces[t.first].n)
		t.first++
	}
	if t.first == before {
		return nil
	}
	return t.d.save()
}

// bytesOn shows how much is done: a bar at a terminal, else a line of JSON for each percent.
func bytesOn(w io.Writer) (watch func(done, total int64), stop func()) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		last := int64(-1)
		return func(done, total int64) {
			if percent := done * 100 / max(1, total); percent != last {
				last = percent
				_, _ = fmt.Fprintf(w, "{\"percent\":%d,\"done\":%d,\"total\":%d}\n", percent, done, total)
			}
		}, func() {}
	}
	bars := mpb.New(mpb.WithOutput(f), mpb.WithWidth(40), mpb.WithRefreshRate(200*time.Millisecond))
	bar := bars.New(0, mpb.BarStyle(), mpb.BarRemoveOnComplete(),
		mpb.AppendDecorators(decor.Percentage(decor.WC{W: 5}), decor.Any(func(s decor.Statistics) string { return "  " + size(s.Current) + " of " + size(s.Total) })))
	return func(done, total int64) {
			bar.SetTotal(total, false)
			bar.SetCurrent(done)
		}, func() {
			bar.Abort(true)
			bars.Wait()
		}
}
