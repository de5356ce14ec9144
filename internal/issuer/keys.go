package issuer

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	maxDocument = 1 << 20
	maxKeys     = 100
	minRSABits  = 2048
)

// keySet is the issuer's keys as they were at some time.
type keySet struct {
	keys []jose.JSONWebKey
	at   time.Time
}

func (s *keySet) named(id string) (jose.JSONWebKey, bool) {
	if s != nil {
		for _, k := range s.keys {
			if k.KeyID == id {
				return k, true
			}
		}
	}
	return jose.JSONWebKey{}, false
}

// key finds the key that a token names.
func (i *Issuer) key(ctx context.Context, h jose.Header) (jose.JSONWebKey, error) {
	if h.KeyID == "" {
		return jose.JSONWebKey{}, errors.New("token names no key")
	}
	set := i.keys.Load()
	key, found := set.named(h.KeyID)
	if !found || !i.o.Now().Before(set.at.Add(freshFor)) {
		err := i.ask(ctx)
		set = i.keys.Load()
		if key, found = set.named(h.KeyID); err != nil && (set == nil || !i.o.Now().Before(set.at.Add(goodFor))) {
			return key, fmt.Errorf("%w: %w", ErrAway, err)
		}
	}
	if !found {
		return key, fmt.Errorf("token is signed with the unknown key %.200q", h.KeyID)
	}
	if key.Algorithm != "" && key.Algorithm != h.Algorithm {
		return key, fmt.Errorf("key is for %.20q and not for %s", key.Algorithm, h.Algorithm)
	}
	return key, nil
}

// ask fetches the keys, unless that was tried a moment ago. Who asks does not give up for the others who wait with him.
func (i *Issuer) ask(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.o.Now()
	if !i.asked.IsZero() && now.Before(i.asked.Add(askAgain)) {
		return i.failed
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTime)
	defer cancel()
	keys, err := i.fetch(ctx)
	i.asked, i.failed = now, err
	if err == nil {
		i.keys.Store(&keySet{keys, now})
	}
	return err
}

func (i *Issuer) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	var discovery struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := i.get(ctx, strings.TrimRight(i.o.URL, "/")+"/.well-known/openid-configuration", &discovery); err != nil {
		return nil, err
	}
	if discovery.Issuer != i.o.URL {
		return nil, fmt.Errorf("it says that it is %.200q", discovery.Issuer)
	}
	if u, err := url.Parse(discovery.Keys); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("its jwks_uri %.200q is not an https URL", discovery.Keys)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := i.get(ctx, discovery.Keys, &set); err != nil {
		return nil, err
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("it has more than %d keys", maxKeys)
	}
	var good []jose.JSONWebKey
	for _, text := range set.Keys {
		if key, ok := usable(text); ok {
			good = append(good, key)
		}
	}
	return good, nil
}

// usable leaves out keys of kinds that we don't know, as JWKS wants it, and those that sign nothing or are weak.
func usable(text json.RawMessage) (key jose.JSONWebKey, ok bool) {
	if err := key.UnmarshalJSON(text); err != nil || !key.Valid() || !key.IsPublic() || key.KeyID == "" || key.Use != "" && key.Use != "sig" {
		return key, false
	}
	if r, isRSA := key.Key.(*rsa.PublicKey); isRSA && r.N.BitLen() < minRSABits {
		return key, false
	}
	return key, true
}

func (i *Issuer) get(ctx context.Context, address string, v any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/json")
	response, err := i.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", address, response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxDocument+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", address, err)
	}
	if len(text) > maxDocument {
		return fmt.Errorf("%s has more than %d bytes", address, maxDocument)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s is not what it should be: %w", address, err)
	}
	return nil
}
