package recovery

import (
	"sync"
	"time"
)

// report tells a Progress what is done, one call at a time.
type report struct {
	mu    sync.Mutex
	tell  Progress
	done  int64
	total int64
}

func newReport(tell Progress, total int64) *report { return &report{tell: tell, total: total} }

// reach says that everything before done is done.
func (r *report) reach(done int64) {
	if r.tell == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if done = min(done, r.total); done > r.done {
		r.done = done
		r.tell(done, r.total)
	}
}

// add says that n more are done.
func (r *report) add(n int64) {
	if r.tell == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = min(r.done+n, r.total)
	r.tell(r.done, r.total)
}

func microTime(micros int64) time.Time { return time.UnixMicro(micros).UTC() }
