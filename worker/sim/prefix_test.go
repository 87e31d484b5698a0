package sim

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPrefixCache(t *testing.T) {
	t.Parallel()
	const size = block * bytesPerToken
	a, b, c := strings.Repeat("a", size), strings.Repeat("b", size), strings.Repeat("c", size)
	for _, tt := range []struct {
		name   string
		blocks int
		kept   []string
		prompt string
		unread float64
	}{
		{"no cache", 0, []string{a + b}, a + b, 1},
		{"nothing kept", 8, nil, a, 1},
		{"another beginning", 8, []string{a + b}, c + b, 1},
		{"the same block in another place", 8, []string{a + b}, b, 1},
		{"half of it", 8, []string{a + b}, a + c, 0.5},
		{"a block that is not whole", 8, []string{a + b[1:]}, a + b[1:], (block - 1.0) / (2*block - 1)},
		{"all but the last token", 8, []string{a + b}, a + b, 1.0 / (2 * block)},
		{"what was used first has gone", 2, []string{a, b, c}, a, 1},
		{"what was used again stays", 2, []string{a, b, a, c}, a, 1.0 / block},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cache := newPrefixCache(tt.blocks * block)
			for _, prompt := range tt.kept {
				cache.read([]byte(prompt))
			}
			if unread := cache.read([]byte(tt.prompt)); unread != tt.unread {
				t.Errorf("%g of the prompt must be read, want %g", unread, tt.unread)
			}
			if n := cache.used.Len(); n > tt.blocks || n != len(cache.blocks) {
				t.Errorf("%d blocks in the list and %d in the map, want at most %d", n, len(cache.blocks), tt.blocks)
			}
		})
	}
}

func TestCachedPromptsComeFaster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{TTFT: time.Second, Prefix: 1024})
		ask := func(question string) time.Duration {
			begin := time.Now()
			post(t.Context(), s, chat, `{"model":"m","messages":"`+strings.Repeat("x", 511*bytesPerToken)+question+`"}`)
			return time.Since(begin)
		}
		if took := ask("one"); took != time.Second {
			t.Errorf("the first takes %v, want 1 s", took)
		}
		if took := ask("two"); took > 100*time.Millisecond || took == 0 {
			t.Errorf("one that begins alike takes %v, want less than 100 ms", took)
		}
		if got := get(s, "/metrics"); !strings.Contains(got, "vllm:prefix_cache_hits_total{engine=\"0\",model_name=\"sim\"} 496\n") {
			t.Errorf("no 496 tokens cached in\n%s", got)
		}
	})
}
