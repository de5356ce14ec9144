package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"kluis/internal/secret"
)

func TestNeverPrints(t *testing.T) {
	const value = "correct horse battery staple"
	s := secret.New([]byte(value))
	inside := struct {
		Name string
		Key  secret.Bytes
	}{"bek", s}

	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("key", "value", s, "inside", inside)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("key", "value", s, "inside", inside)
	encoded, err := json.Marshal(inside)
	if err != nil {
		t.Fatal(err)
	}
	printed := []string{log.String(), string(encoded), s.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		printed = append(printed, fmt.Sprintf(verb, s), fmt.Sprintf(verb, inside), fmt.Sprintf(verb, &inside))
	}
	for _, p := range printed {
		for _, leak := range []string{value, "636f7272656374", "636F7272656374", "99 111 114"} {
			if strings.Contains(p, leak) {
				t.Errorf("the value leaks in %q", p)
			}
		}
	}
}

func TestWipe(t *testing.T) {
	raw := []byte{1, 2, 3}
	secret.New(raw).Wipe()
	if !bytes.Equal(raw, make([]byte, 3)) {
		t.Errorf("after Wipe the memory holds %v", raw)
	}
}
