package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The log has what happened to each request: 1 s to the first token and 0.1 s for each of ten
// more.
func TestExchanges(t *testing.T) {
	t.Parallel()

	const body = `{"model":"m","prompt":"four tokens, no?","max_tokens":11}`

	whole := Exchange{
		Path:             "/v1/completions",
		Model:            "m",
		Status:           200,
		PromptTokens:     4,
		CompletionTokens: 11,
		GeneratedTokens:  11,
	}

	left := whole
	left.Status, left.Aborted, left.PromptTokens, left.CompletionTokens = 0, true, 0, 0

	const untilDone = 2 * time.Second

	for name, c := range map[string]struct {
		faults string
		leave  time.Duration // when the client leaves; 0: never
		change func(*Exchange)
		from   Exchange
		takes  time.Duration
	}{
		"answered":         {"", 0, nil, whole, untilDone},
		"refused":          {"500=1", 0, func(x *Exchange) { x.Status, x.Fault = 500, "500" }, Exchange{Path: whole.Path, Model: "m"}, 0},
		"empty":            {"empty=1", 0, func(x *Exchange) { x.Status, x.Fault = 200, "empty" }, Exchange{Path: whole.Path, Model: "m"}, 0},
		"hangs":            {"hang=1", time.Minute, func(x *Exchange) { x.Aborted, x.Fault = true, "hang" }, Exchange{Path: whole.Path, Model: "m"}, time.Minute},
		"left while read":  {"", 500 * time.Millisecond, func(x *Exchange) { x.GeneratedTokens = 0 }, left, 500 * time.Millisecond},
		"left while added": {"", 1550 * time.Millisecond, func(x *Exchange) { x.GeneratedTokens = 6 }, left, 1550 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				faults, err := ParseFaults(c.faults)
				if err != nil {
					t.Fatal(err)
				}

				var log bytes.Buffer
				s := New(Config{
					TTFT:       time.Second,
					TPOT:       100 * time.Millisecond,
					Faults:     faults,
					OnExchange: WriteExchanges(&log, func(err error) { t.Error(err) }),
				})

				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.leave > 0 {
					time.AfterFunc(c.leave, cancel)
				}

				begin := time.Now()
				answer := post(ctx, s, "/v1/completions", body).Body.String()

				var got Exchange
				if err := json.Unmarshal(log.Bytes(), &got); err != nil {
					t.Fatalf("%v in %q", err, log.String())
				}

				want := c.from
				if c.change != nil {
					c.change(&want)
				}

				if got.CompletionTokens > 0 && !strings.Contains(answer, `"text":"`+got.Answer) {
					t.Errorf("the answer does not begin with %q: %s", got.Answer, answer)
				}

				want.Answer, want.Start, want.End = got.Answer, begin, begin.Add(c.takes)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
			})
		})
	}
}

// A preemption throws the tokens away that were generated, and the log counts them.
func TestExchangeOfAPreemptedRequest(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		ended := make(chan Exchange, 2)
		s := New(Config{
			KV:         100,
			TTFT:       time.Second,
			TPOT:       100 * time.Millisecond,
			OnExchange: func(x Exchange) { ended <- x },
		})

		for range 2 {
			go post(t.Context(), s, "/v1/completions", `{"model":"m","prompt":"four tokens, no?","max_tokens":60}`)
		}

		generated := 0
		for range 2 {
			x := <-ended
			if x.Status != http.StatusOK || x.CompletionTokens == 0 {
				t.Errorf("%+v", x)
			}
			generated += x.GeneratedTokens - x.CompletionTokens
		}

		load := s.Engine().Load()
		if load.Preemptions == 0 || generated == 0 {
			t.Errorf("%d tokens were thrown away by %d preemptions", generated, load.Preemptions)
		}
	})
}

// After its first error nothing more is written.
func TestExchangesOnAFullDisk(t *testing.T) {
	t.Parallel()

	var errs []error
	disk := &fullDisk{}
	write := WriteExchanges(disk, func(err error) { errs = append(errs, err) })
	write(Exchange{})
	write(Exchange{})

	if len(errs) != 1 || !errors.Is(errs[0], errFull) || disk.writes != 1 {
		t.Errorf("%d writes: %v", disk.writes, errs)
	}
}

var errFull = errors.New("no space left on device")

type fullDisk struct{ writes int }

func (d *fullDisk) Write([]byte) (int, error) {
	d.writes++
	return 0, errFull
}
