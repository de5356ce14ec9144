package cloud_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"kluis/internal/objects"
	"kluis/internal/objects/cloud"
)

const mib = 1 << 20

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// writes tells the requests by which an object becomes visible.
func writes(r *http.Request) bool {
	q := r.URL.Query()
	switch r.Method {
	case http.MethodPost:
		return q.Has("uploadId")
	case http.MethodPut:
		return !q.Has("partNumber") && q.Get("comp") != "block"
	}
	return false
}

// first gives true for the first n requests that match.
func first(n int32, match func(*http.Request) bool) func(*http.Request) bool {
	var seen atomic.Int32
	return func(r *http.Request) bool { return match(r) && seen.Add(1) <= n }
}

// drop lets the service do what it is asked to, and loses its answer.
func drop(r *http.Request, pass http.Handler) {
	pass.ServeHTTP(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler)
}

var sizes = map[string]int{"one request": 1000, "several parts": 20*mib + 5}

// The answer to an upload is lost after the service has stored the object: Put asks again and meets its own
// object. It must not take it for a stranger's, nor a stranger's for its own.
func TestLostAnswers(t *testing.T) {
	each(t, func(t *testing.T, s *service) {
		for name, size := range sizes {
			t.Run(name, func(t *testing.T) {
				b, content := s.open(t), noise(size)
				lost := first(1, writes)
				s.play(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
					if lost(r) {
						drop(r, pass)
					}
					pass.ServeHTTP(w, r)
				})
				if err := b.Put(t.Context(), "x", -1, bytes.NewReader(content)); err != nil {
					t.Fatalf("Put: %v", err)
				}
				if lost(httptest.NewRequest(http.MethodPut, "/", nil)) {
					t.Fatal("no answer was lost")
				}
				wantContent(t, b, "x", content)
				lost = first(1, writes)
				if err := b.Put(t.Context(), "x", -1, bytes.NewReader(content)); !errors.Is(err, objects.ErrExists) {
					t.Errorf("Put of a name that is taken: %v", err)
				}
			})
		}
	})
}

// A service that is busy for a while is asked again; one that is busy for long gives a clear error, and
// nothing is stored.
func TestBusy(t *testing.T) {
	each(t, func(t *testing.T, s *service) {
		b := s.open(t)
		busy := first(2, func(*http.Request) bool { return true })
		s.play(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			if busy(r) {
				http.Error(w, "slow down", http.StatusServiceUnavailable)
				return
			}
			pass.ServeHTTP(w, r)
		})
		if err := b.Put(t.Context(), "x", 4, strings.NewReader("1234")); err != nil {
			t.Fatal(err)
		}
		busy = first(2, func(*http.Request) bool { return true })
		wantContent(t, b, "x", []byte("1234"))
		busy = first(2, func(*http.Request) bool { return true })
		if err := b.Delete(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		s.play(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			http.Error(w, "slow down", http.StatusForbidden)
		})
		if err := b.Put(t.Context(), "y", 1, strings.NewReader("1")); err == nil || !strings.Contains(err.Error(), "403") {
			t.Errorf("Put that is forbidden: %v", err)
		}
		s.reset()
		if _, err := b.Get(t.Context(), "y", 0, -1); !errors.Is(err, objects.ErrNotExist) {
			t.Errorf("after a Put that failed: %v", err)
		}
	})
}

// A body that breaks off is continued where it ended.
func TestBrokenBodies(t *testing.T) {
	each(t, func(t *testing.T, s *service) {
		b, content := s.open(t), noise(3*mib)
		if err := b.Put(t.Context(), "x", int64(len(content)), bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		var broken atomic.Int32
		s.play(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			if r.Method == http.MethodGet && broken.Add(1) <= 3 {
				answer := httptest.NewRecorder()
				pass.ServeHTTP(answer, r)
				for k, v := range answer.Header() {
					w.Header()[k] = v
				}
				w.WriteHeader(answer.Code)
				_, _ = w.Write(answer.Body.Bytes()[:answer.Body.Len()/3])
				panic(http.ErrAbortHandler)
			}
			pass.ServeHTTP(w, r)
		})
		wantContent(t, b, "x", content)
		if broken.Load() < 4 {
			t.Errorf("%d requests", broken.Load())
		}
		r, err := b.Get(t.Context(), "x", 1000, mib)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if part, err := io.ReadAll(r); err != nil || !bytes.Equal(part, content[1000:1000+mib]) {
			t.Errorf("a range: %v", err)
		}
	})
}

// A look-alike that ignores the condition is refused.
func TestLookAlike(t *testing.T) {
	each(t, func(t *testing.T, s *service) {
		s.play(t, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			answer := httptest.NewRecorder()
			pass.ServeHTTP(answer, r)
			if r.Method == http.MethodPut && answer.Code >= 400 {
				w.Header().Set("ETag", `"0"`)
				w.WriteHeader(http.StatusCreated)
				return
			}
			for k, v := range answer.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(answer.Code)
			_, _ = w.Write(answer.Body.Bytes())
		})
		b, err := cloud.Open(t.Context(), s.url(bucket, "look-alike"))
		if !errors.Is(err, cloud.ErrNoCondition) {
			t.Errorf("Open: %v", err)
		}
		if err == nil {
			_ = b.Close()
		}
	})
}

func TestNoBucket(t *testing.T) {
	each(t, func(t *testing.T, s *service) {
		_, err := cloud.Open(t.Context(), s.url("no-such-bucket", "x"))
		if err == nil || !strings.Contains(err.Error(), "no-such-bucket") || !strings.Contains(err.Error(), "404") {
			t.Errorf("Open: %v", err)
		}
	})
}

func TestWrongCredentials(t *testing.T) {
	s := services[0].start(t) // the SDK for Azure reads the environment once in the life of a process
	const secret = "not-the-secret-key"
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	_, err := cloud.Open(t.Context(), s.url(bucket, "x"))
	if err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "SignatureDoesNotMatch") {
		t.Errorf("Open: %v", err)
	}
}

// Of several large uploads of one name one wins, and what was uploaded in vain is removed.
func TestLargeObjectsAreNotReplaced(t *testing.T) {
	each(t, func(t *testing.T, s *service) {
		b := s.open(t)
		var won atomic.Int32
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				switch err := b.Put(t.Context(), "x", -1, bytes.NewReader(noise(20*mib))); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, objects.ErrExists):
					t.Errorf("Put: %v", err)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 {
			t.Errorf("%d won", won.Load())
		}
		broken := io.MultiReader(bytes.NewReader(noise(20*mib)), brokenReader{})
		if err := b.Put(t.Context(), "y", -1, broken); !errors.Is(err, errBroken) {
			t.Errorf("Put from a broken source: %v", err)
		}
		if _, err := b.Get(t.Context(), "y", 0, -1); !errors.Is(err, objects.ErrNotExist) {
			t.Errorf("after a broken source: %v", err)
		}
	})
}

var errBroken = errors.New("broken source")

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }

// More objects than the services list in one answer.
func TestManyObjects(t *testing.T) {
	each(t, func(t *testing.T, s *service) {
		b := s.open(t)
		const n = 1100
		names := make(chan string, n)
		for i := range n {
			names <- strings.Repeat("x", 1+i%3) + "/" + string(rune('a'+i%26)) + strings.Repeat("-", i%50) + string(rune('0'+i/300))
		}
		close(names)
		want := map[string]bool{}
		var all sync.WaitGroup
		var mu sync.Mutex
		for range 8 {
			all.Go(func() {
				for name := range names {
					mu.Lock()
					known := want[name]
					want[name] = true
					mu.Unlock()
					if known {
						continue
					}
					if err := b.Put(t.Context(), name, 0, strings.NewReader("")); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if len(want) <= 1000 {
			t.Fatalf("only %d names", len(want))
		}
		for o, err := range b.List(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			delete(want, o.Name)
		}
		if len(want) > 0 {
			t.Errorf("%d were not listed", len(want))
		}
	})
}

func wantContent(t *testing.T, b objects.Bucket, name string, want []byte) {
	t.Helper()
	r, err := b.Get(t.Context(), name, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: got %d of %d bytes or others, %v", name, len(got), len(want), err)
	}
}
