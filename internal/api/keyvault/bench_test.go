package keyvault_test

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// The two calls that a start of many encrypted machines is made of, over HTTPS, each with its entry in the log of uses.
func BenchmarkUnwrapKey(b *testing.B) {
	s := serve(b, sqlite(b))
	s.putVault("kv-one")
	s.data("POST", "kv-one", "/keys/kek/create", map[string]any{"kty": "RSA", "key_size": 3072})
	wrapped := s.data("POST", "kv-one", "/keys/kek//wrapkey", map[string]any{"alg": "RSA-OAEP-256", "value": b64(make([]byte, 32))})
	body := map[string]any{"alg": "RSA-OAEP-256", "value": wrapped.at("value")}
	measure(b, func() answer {
		return s.send("POST", "https://kv-one."+s.suffix+"/keys/kek//unwrapkey?api-version=7.4", "https://"+s.suffix, body)
	})
}

func BenchmarkGetSecret(b *testing.B) {
	s := serve(b, sqlite(b))
	s.putVault("kv-one")
	s.data("PUT", "kv-one", "/secrets/bek", map[string]any{"value": b64(make([]byte, 256))})
	measure(b, func() answer {
		return s.send("GET", "https://kv-one."+s.suffix+"/secrets/bek?api-version=7.4", "https://"+s.suffix, nil)
	})
}

// measure calls from several clients at once, and reports how long the slowest hundredth takes.
func measure(b *testing.B, call func() answer) {
	var mu sync.Mutex
	var times []time.Duration
	b.SetParallelism(8)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			start := time.Now()
			if a := call(); a.status != 200 {
				b.Errorf("%d %s", a.status, a.raw)
			}
			mu.Lock()
			times = append(times, time.Since(start))
			mu.Unlock()
		}
	})
	b.StopTimer()
	slices.Sort(times)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds())/1000, "p99-ms")
}
