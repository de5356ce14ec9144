package storage

import (
	"context"
	"strings"
	"unicode/utf8"

	"kluis/internal/database"
)

// Listing says which blobs of a container a list is to have.
type Listing struct {
	Prefix    string
	Delimiter string // names that have it after the prefix count once, as the prefix up to it
	From      string // the name that the list begins with; "" is the first
	Most      int    // how many blobs and prefixes the list has at most
}

// Listed is one entry of a list: a blob, or what several blobs' names begin with.
type Listed struct {
	Prefix string // "" for a blob
	Blob   Blob
}

// ListBlobs lists a container's blobs by name. next is where a list that was cut goes on; "" at the end.
func (s *Service) ListBlobs(ctx context.Context, account, container string, l Listing) (all []Listed, next string, err error) {
	a, err := s.open(ctx, account, container, "", listBlobs)
	if err != nil {
		return nil, "", err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		all, next = nil, ""
		if _, err := findContainer(ctx, tx, a, container); err != nil {
			return err
		}
		if !isPrefix(l.Prefix) || !isPrefix(l.From) {
			return nil // no name is like that
		}
		all, next, err = l.walk(func(from string, most int) ([]Blob, error) {
			return selectBlobs(ctx, tx, a.ID.Name(), container, from, most)
		})
		return err
	})
	return all, next, err
}

// isPrefix reports whether a name may begin so: what the databases would not take as text is in no name.
func isPrefix(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// batch is how many rows are read at once.
const batch = 1000

// walk goes through names in order, and past those that count as one.
func (l Listing) walk(read func(from string, most int) ([]Blob, error)) (all []Listed, next string, err error) {
	from, counted := max(l.From, l.Prefix), "" // counted is the prefix that counts already
	for {
		most := min(batch, l.Most-len(all)+1)
		blobs, err := read(from, most)
		if err != nil {
			return nil, "", err
		}
		for _, b := range blobs {
			switch {
			case !strings.HasPrefix(b.Name, l.Prefix):
				return all, "", nil
			case counted != "" && strings.HasPrefix(b.Name, counted):
				from = after(counted)
				continue
			case len(all) == l.Most:
				return all, b.Name, nil
			}
			from = b.Name + "\x01" // the name after this one: control characters are in none
			if group, ok := l.group(b.Name); ok {
				all, counted, from = append(all, Listed{Prefix: group}), group, after(group)
			} else {
				all = append(all, Listed{Blob: b})
			}
		}
		if len(blobs) < most || from == "" {
			return all, "", nil
		}
	}
}

// group is the prefix under which a name counts.
func (l Listing) group(name string) (string, bool) {
	if l.Delimiter == "" {
		return "", false
	}
	at := strings.Index(name[len(l.Prefix):], l.Delimiter)
	if at < 0 {
		return "", false
	}
	return name[:len(l.Prefix)+at+len(l.Delimiter)], true
}

// after is the least text that comes after everything that begins with prefix, in the order of bytes, which is
// that of code points; "" if nothing does.
func after(prefix string) string {
	for prefix != "" {
		r, size := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-size]
		switch {
		case r == 0xD7FF: // surrogates are no code points of their own
			return prefix + "\uE000"
		case r < utf8.MaxRune:
			return prefix + string(r+1)
		}
	}
	return ""
}
