package sim

import (
	"fmt"
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
		cached int
	}{
		{"no cache", 0, []string{a + b}, a + b, 0},
		{"nothing kept", 8, nil, a, 0},
		{"another beginning", 8, []string{a + b}, c + b, 0},
		{"the same block in another place", 8, []string{a + b}, b, 0},
		{"half of it", 8, []string{a + b}, a + c, block},
		{"a block that is not whole", 8, []string{a + b[1:]}, a + b[1:], block},
		{"all but the last token", 8, []string{a + b}, a + b, 2*block - 1},
		{"what was used first has gone", 2, []string{a, b, c}, a, 0},
		{"what was used again stays", 2, []string{a, b, a, c}, a, block - 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cache := newPrefixCache(tt.blocks * block)
			for _, prompt := range tt.kept {
				cache.read([]byte(prompt))
			}
			if cached := cache.read([]byte(tt.prompt)); cached != tt.cached {
				t.Errorf("%d tokens of the prompt were there, want %d", cached, tt.cached)
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
		ask := func(path, question string) (took time.Duration, told bool) {
			begin := time.Now()
			answer := post(t.Context(), s, path, `{"model":"m","prompt":"`+strings.Repeat("x", 511*bytesPerToken)+question+`"}`)
			return time.Since(begin), strings.Contains(answer.Body.String(), `"cached_tokens":496`)
		}
		if took, told := ask(chat, "one"); took != time.Second || told {
			t.Errorf("the first takes %v, want 1 s; cached tokens told: %t", took, told)
		}
		for i, path := range []string{chat, "/v1/completions", "/v1/responses"} {
			if took, told := ask(path, fmt.Sprint(i)); took > 100*time.Millisecond || took == 0 || !told {
				t.Errorf("one that begins alike takes %v, want less than 100 ms; cached tokens told: %t", took, told)
			}
		}
		if got := get(s, "/metrics"); !strings.Contains(got, "vllm:prefix_cache_hits_total{engine=\"0\",model_name=\"sim\"} 1488\n") {
			t.Errorf("no 3 x 496 tokens cached in\n%s", got)
		}
	})
}
