package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"gocloud.dev/gcerrors"

	"kluis/internal/objects"
)

// attempts is how often we try again what the SDKs do not, or have given up.
const attempts = 4

// pause waits before the next attempt, the longer the more there were.
func pause(ctx context.Context, attempt int) error {
	t := time.NewTimer(100 * time.Millisecond << attempt)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errStalled = errors.New("the storage has not answered for too long")

// watcher ends a request that does not move: a server that is gone without a word would hold it for ever.
type watcher struct {
	limit  time.Duration
	cancel context.CancelCauseFunc
	ctx    context.Context

	mu    sync.Mutex
	timer *time.Timer
}

// watch returns a context that ends when nothing has moved for limit. The watcher must be stopped.
func watch(ctx context.Context, limit time.Duration) (context.Context, *watcher) {
	w := &watcher{limit: limit}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(limit, func() { w.cancel(errStalled) })
	return w.ctx, w
}

// moved starts the time anew.
func (w *watcher) moved() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Reset(w.limit)
}

// rest stops the time while it is not the storage that we wait for.
func (w *watcher) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
}

func (w *watcher) stop() {
	w.rest()
	w.cancel(nil)
}

// explain replaces "context canceled" by the reason, if it was this watcher that cancelled.
func (w *watcher) explain(err error) error {
	if err != nil && errors.Is(context.Cause(w.ctx), errStalled) {
		return errStalled
	}
	return err
}

// answer is what a service has said. S3's errors have these methods.
type answer interface {
	error
	ErrorCode() string
	ErrorMessage() string
}

// answered returns code, message and status of an answer, as far as there was one.
func answered(err error) (code, message string, status int) {
	if e, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return e.ErrorCode, "", e.StatusCode
	}
	if e, ok := errors.AsType[answer](err); ok {
		code, message = e.ErrorCode(), e.ErrorMessage()
	}
	var http interface{ HTTPStatusCode() int }
	if errors.As(err, &http) {
		status = http.HTTPStatusCode()
	}
	return code, message, status
}

// isTaken tells that the condition failed.
func isTaken(err error) bool {
	_, _, status := answered(err)
	return gcerrors.Code(err) == gcerrors.FailedPrecondition || status == 412
}

// isBeyondEnd tells that there is nothing in the range.
func isBeyondEnd(err error) bool {
	_, _, status := answered(err)
	return status == 416
}

// isTransient tells that the same request may succeed later: two at the same time, a server under load, or
// no answer at all.
func isTransient(err error) bool {
	_, _, status := answered(err)
	_, network := errors.AsType[net.Error](err)
	return status == 409 || status == 429 || status >= 500 || network ||
		errors.Is(err, errStalled) || errors.Is(err, io.ErrUnexpectedEOF)
}

// notFound tells a missing object from a missing bucket, which would otherwise look like an empty one.
func notFound(err error) error {
	switch code, _, _ := answered(err); code {
	case "NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted", "ResourceNotFound":
		return plain(err)
	}
	if _, isDNS := errors.AsType[*net.DNSError](err); isDNS {
		return plain(err)
	}
	return objects.ErrNotExist
}

// fault is an error of a service in words for people.
type fault struct {
	text string
	err  error
}

func (f *fault) Error() string { return f.text }
func (f *fault) Unwrap() error { return f.err }

var query = regexp.MustCompile(`(https?://[^\s"?]*)\?[^\s"]*`)

// plain shortens what the SDKs say to one line without secrets: they name the request with its query, which
// in Azure can hold a signature.
func plain(err error) error {
	if err == nil || errors.Is(err, objects.ErrNotExist) || errors.Is(err, errStalled) {
		return err
	}
	text := query.ReplaceAllString(strings.Join(strings.Fields(err.Error()), " "), "$1")
	if code, message, status := answered(err); code != "" {
		text = fmt.Sprintf("the storage answered %d %s", status, code)
		if message != "" {
			text += " (" + query.ReplaceAllString(message, "$1") + ")"
		}
	}
	return &fault{text, err}
}
