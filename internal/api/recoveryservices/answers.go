package recoveryservices

import (
	"slices"
	"sync"
	"time"

	"kluis/internal/armid"
)

// answers are those to operations that are over at once and start no job: a client still comes for them, with the id
// that it was given, and may come again. They are kept in memory until newer ones have taken their place.
type answers[T any] struct {
	mu   sync.Mutex
	kept []answerTo[T] // oldest first
}

// maxAnswers is how many are kept.
const maxAnswers = 256

type answerTo[T any] struct {
	vault, id string
	at        time.Time
	body      T
}

func (a *answers[T]) keep(vault armid.ID, id string, at time.Time, body T) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.kept) == maxAnswers {
		a.kept = slices.Delete(a.kept, 0, 1)
	}
	a.kept = append(a.kept, answerTo[T]{vault.Key(), id, at, body})
}

func (a *answers[T]) find(vault armid.ID, id string) (answerTo[T], error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.kept, func(k answerTo[T]) bool { return k.vault == vault.Key() && k.id == id })
	if i < 0 {
		return answerTo[T]{}, noSuchOperation(id)
	}
	return a.kept[i], nil
}
