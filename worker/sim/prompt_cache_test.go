package sim

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// cacheStep is a step of a server: a prompt whose request begins, or the end of an earlier request.
type cacheStep struct {
	begin string
	end   int // the number of the step with which it began, plus 1
	lost  bool
	want  int // tokens of the prompt that are there
}

// checkCache takes the steps, a second apart. A prompt takes 1.5 s to be read.
func checkCache(t *testing.T, cache promptCache, steps []cacheStep) {
	t.Helper()

	jobs := map[int]*job{}
	for i, step := range steps {
		now := float64(i) * float64(time.Second)
		if step.end > 0 {
			j := jobs[step.end-1]
			if !step.lost {
				j.answered = 4
			}
			cache.endJob(j)
			continue
		}

		j := &job{text: []byte(step.begin), prompt: countTokens([]byte(step.begin)), begin: now, ttft: 1.5e9}
		jobs[i] = j
		if got, _ := cache.startJob(j, now); got != step.want {
			t.Errorf("step %d: %d tokens of the prompt were there, want %d", i, got, step.want)
		}
	}
}

func TestBlockCache(t *testing.T) {
	t.Parallel()

	const size = block * bytesPerToken
	a, b, c := strings.Repeat("a", size), strings.Repeat("b", size), strings.Repeat("c", size)
	for _, tt := range []struct {
		name    string
		flavour Flavour
		blocks  int
		steps   []cacheStep
	}{
		{"another beginning", SGLang, 8, []cacheStep{{begin: a + b}, {end: 1}, {begin: c + b}}},
		{"the same block in another place", SGLang, 8, []cacheStep{{begin: a + b}, {end: 1}, {begin: b}}},
		{"half of it", SGLang, 8, []cacheStep{{begin: a + b}, {end: 1}, {begin: a + c, want: block}}},
		{"a block that is not whole", SGLang, 8, []cacheStep{
			{begin: a + b[1:]},
			{end: 1},
			{begin: a + b[1:], want: block},
		}},
		{"the block used first has gone", SGLang, 2, []cacheStep{
			{begin: a},
			{end: 1},
			{begin: b},
			{end: 3},
			{begin: c},
			{end: 5},
			{begin: a},
		}},
		{"a block that was used again stays", SGLang, 2, []cacheStep{
			{begin: a},
			{end: 1},
			{begin: b},
			{end: 3},
			{begin: a, want: block},
			{end: 5},
			{begin: c},
			{end: 7},
			{begin: a, want: block},
		}},
		// After 1 s half a second is left, after 2 s nothing.
		{"not a block that is still read", SGLang, 8, []cacheStep{
			{begin: a + b},
			{begin: a + b},
			{begin: a + b, want: 2 * block},
		}},
		{"with vLLM as well", VLLM, 8, []cacheStep{
			{begin: a + b},
			{begin: a + c, want: block},
			{begin: a + b, want: 2 * block},
		}},
		{"nothing of a request that left before it was read", VLLM, 8, []cacheStep{
			{begin: a + b},
			{end: 1, lost: true},
			{begin: a + b},
			{begin: a, want: block},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cache := newPromptCache(tt.flavour, tt.blocks*block, 32).(*blockCache)
			checkCache(t, cache, tt.steps)
			if n := cache.used.Len(); n > tt.blocks || n != len(cache.blocks) {
				t.Errorf("%d blocks in the list and %d in the map, want at most %d", n, len(cache.blocks), tt.blocks)
			}
		})
	}
}

// Prompts are documents of 100 tokens, with a question of one.
func TestSlotCache(t *testing.T) {
	t.Parallel()

	document := func(name string) string { return strings.Repeat(name, 100*bytesPerToken) }
	a, b, c := document("a"), document("b"), document("c")
	for _, tt := range []struct {
		name    string
		flavour Flavour
		host    int // tokens
		slots   int
		steps   []cacheStep
	}{
		{"a slot has its last prompt", LlamaCPP, 1, 2, []cacheStep{
			{begin: a + "one."},
			{end: 1},
			{begin: a + "two.", want: 100},
		}},
		{"a busy slot shares nothing", LlamaCPP, 1, 2, []cacheStep{{begin: a + "one."}, {begin: a + "two."}}},
		{"that which has most of it is taken, not the oldest", LlamaCPP, 1, 2, []cacheStep{
			{begin: a},
			{begin: b},
			{end: 1},
			{end: 2},
			{begin: b + "one.", want: 100},
			{end: 5},
			{begin: a + "one.", want: 100},
		}},
		{"else that which was used first", LlamaCPP, 1, 2, []cacheStep{
			{begin: a},
			{begin: b},
			{end: 1},
			{end: 2},
			{begin: c},
			{end: 5},
			{begin: a},
			{end: 7},
			{begin: c, want: 100},
		}},
		// 10 tokens of 100 are not more than a tenth.
		{"a little in common is nothing", LlamaCPP, 1, 2, []cacheStep{
			{begin: a},
			{begin: b},
			{end: 2},
			{end: 1},
			{begin: a[:10*bytesPerToken] + c[11*bytesPerToken:] + "....."},
			{end: 5},
			{begin: a + "one.", want: 100},
		}},
		{"with Ollama it counts", Ollama, 1, 2, []cacheStep{
			{begin: a},
			{begin: b},
			{end: 2},
			{end: 1},
			{begin: a[:10*bytesPerToken] + c, want: 10},
			{end: 5},
			{begin: a + "one.", want: 10},
		}},
		// The one slot's prompt is saved before it is lost, and moved back.
		{"the host's memory keeps the prompt that a slot loses", LlamaCPP, 1000, 1, []cacheStep{
			{begin: a},
			{end: 1},
			{begin: b},
			{end: 3},
			{begin: a + "one.", want: 100},
			{end: 5},
			{begin: b + "one.", want: 100},
		}},
		{"Ollama has none", Ollama, 1000, 1, []cacheStep{
			{begin: a},
			{end: 1},
			{begin: b},
			{end: 3},
			{begin: a + "one."},
		}},
		{"as far as it goes", LlamaCPP, 110, 1, []cacheStep{
			{begin: a}, {end: 1}, {begin: b}, {end: 3}, {begin: c}, {end: 5}, {begin: a + "one."},
		}},
		// An idle slot is copied when another request begins, so its prompt is there for one
		// request more than the slot's owner, once.
		{"a copy of an idle slot serves one more", LlamaCPP, 1000, 4, []cacheStep{
			{begin: a + "one."},
			{end: 1},
			{begin: b},
			{begin: a + "two.", want: 100},
			{begin: a + "three", want: 100},
			{begin: a + "four"},
		}},
		{"a request that left before it was read leaves nothing", LlamaCPP, 1000, 1, []cacheStep{
			{begin: a},
			{end: 1, lost: true},
			{begin: a},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			cache := newPromptCache(tt.flavour, tt.host, tt.slots).(*slotCache)
			checkCache(t, cache, tt.steps)

			held := 0
			for _, k := range cache.host {
				held += k.tokenCount()
			}

			if held > tt.host {
				t.Errorf("the host's memory has %d tokens, want at most %d", held, tt.host)
			}
		})
	}
}

// The prompts of waiting requests are not cached yet: each counts when it begins to run.
func TestPromptCacheIsUsedWhenAJobRuns(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Flavour: SGLang, TTFT: time.Second, Prefix: 1024, Slots: 1})
		var clients sync.WaitGroup
		for range 3 {
			clients.Go(func() { post(t.Context(), s, chat, `{"model":"m","prompt":"`+strings.Repeat("x", 400)+`"}`) })
		}

		clients.Wait()
		if got := s.Engine().Load(); got.CacheQueries != 3*100 || got.CacheHits != 2*96 {
			t.Errorf("%d of %d tokens were there, want 192 of 300", got.CacheHits, got.CacheQueries)
		}
	})
}

func TestCachedPromptsComeFaster(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		s := New(Config{TTFT: time.Second, Prefix: 1024})
		ask := func(path, question string) (took time.Duration, shown bool) {
			begin := time.Now()
			answer := post(t.Context(), s, path,
				`{"model":"m","prompt":"`+strings.Repeat("x", 511*bytesPerToken)+question+`"}`)
			return time.Since(begin), strings.Contains(answer.Body.String(), `"cached_tokens":496`)
		}
		if took, shown := ask(chat, "one"); took != time.Second || shown {
			t.Errorf("the first takes %v, want 1 s; cached tokens shown: %t", took, shown)
		}

		for i, path := range []string{chat, "/v1/completions", "/v1/responses"} {
			if took, shown := ask(path, fmt.Sprint(i)); took > 100*time.Millisecond || took == 0 || !shown {
				t.Errorf("one that begins alike takes %v, want less than 100 ms; cached tokens shown: %t", took, shown)
			}
		}

		if got := get(s, "/metrics"); !strings.Contains(got,
			"vllm:prefix_cache_hits_total{engine=\"0\",model_name=\"sim\"} 1488\n") {
			t.Errorf("no 3 x 496 tokens cached in\n%s", got)
		}
	})
}
