package progress

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// busySample returns the sample of a run on four boxes, one of which waits.
func busySample() Sample {
	worker := func(name, flavour string, inFlight int64, perSecond, tokens float64) Worker {
		w := announcedWorker(proto.WorkerInfo{
			Name: name, Flavour: flavour, Ready: true, InFlight: inFlight, Concurrency: 64, PerSecond: perSecond,
			GPU: []proto.GPU{
				{MemoryBytes: 80 << 30, MemoryUsedBytes: new(int64(70 << 30)), PowerWatts: new(300.4)},
				{MemoryBytes: 80 << 30, MemoryUsedBytes: new(int64(71 << 30)), PowerWatts: new(310.0)},
			},
		})
		if tokens > 0 {
			w.OutputTokPerS = &tokens
		}

		return w
	}

	bare := announcedWorker(proto.WorkerInfo{Name: "mac", Flavour: "Ollama", Ready: true, InFlight: 2, PerSecond: 0.25})
	waits := announcedWorker(proto.WorkerInfo{Name: "a-box-with-a-very-long-name.example.com"})

	return Sample{
		Total: 100000, Done: 62011, Failed: 3, Retries: 1131, InFlight: 130, Workers: 4,
		ElapsedS: 6725, RequestsPerS: new(8.12), InputTokPerS: new(912.4), OutputTokPerS: new(1912.3),
		RemainingS: new(4350.0), RemainingLowS: new(3900.0), RemainingHighS: new(4800.0), State: "running",
		ByWorker: []Worker{worker("here", "vLLM", 64, 12.3, 956), worker("box-2", "SGLang", 64, 4, 0), bare, waits},
	}
}

func TestBlock(t *testing.T) {
	t.Parallel()

	few := busySample()
	few.Failed, few.Retries, few.ByWorker = 0, 0, few.ByWorker[:1]
	waiting := busySample()
	waiting.State, waiting.ByWorker = "waiting for a worker that serves a-model", nil
	waiting.RequestsPerS, waiting.InputTokPerS, waiting.OutputTokPerS = nil, nil, nil

	for _, c := range []struct {
		name          string
		sample        Sample
		width, height int
		want          string
	}{
		{"80 columns: a short bar", busySample(), 79, 22, `
a-long-nam...  ███████░░░░░  62%  62,011/100,000  elapsed 1h52m  left 65-80 min
  failed 3  retried 1,131  8.1 req/s  912 tok/s in  1,912 out  130 in flight
  here                      vLLM    64/64  12 req/s   956 tok/s  141/160 GiB  610 W
  box-2                     SGLang  64/64  4.0 req/s             141/160 GiB  610 W
  mac                       Ollama  2      0.2 req/s
  a-box-with-a-very-lon...          waiting for its model server`},
		{"200 columns: a long bar", busySample(), 199, 22, `
a-long-name-of-an-input.jsonl  ███████████████████████████████████████████████████████████████████████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  62%  62,011/100,000  elapsed 1h52m  left 65-80 min
  failed 3  retried 1,131  8.1 req/s  912 tok/s in  1,912 out  130 in flight
  here                      vLLM    64/64  12 req/s   956 tok/s  141/160 GiB  610 W
  box-2                     SGLang  64/64  4.0 req/s             141/160 GiB  610 W
  mac                       Ollama  2      0.2 req/s
  a-box-with-a-very-lon...          waiting for its model server`},
		{"no room for all workers: those that wait come first", busySample(), 79, 5, `
a-long-nam...  ███████░░░░░  62%  62,011/100,000  elapsed 1h52m  left 65-80 min
  failed 3  retried 1,131  8.1 req/s  912 tok/s in  1,912 out  130 in flight
  a-box-with-a-very-lon...        waiting for its model server
  here                      vLLM  64/64  12 req/s  956 tok/s  141/160 GiB  610 W
  and 2 more workers`},
		{"nothing failed, one worker", few, 79, 22, `
a-long-nam...  ███████░░░░░  62%  62,011/100,000  elapsed 1h52m  left 65-80 min
  8.1 req/s  912 tok/s in  1,912 out  130 in flight
  here  vLLM  64/64  12 req/s  956 tok/s  141/160 GiB  610 W`},
		{"narrow: no bar and no elapsed time", few, 60, 22, `
a-long-na...  62%  62,011/100,000  left 65-80 min
  8.1 req/s  912 tok/s in  1,912 out  130 in flight
  here  vLLM  64/64  12 req/s  956 tok/s  141/160 GiB  610 W`},
		{"no worker works: there is no rate", waiting, 79, 22, `
a-long-nam...  62%  62,011/100,000  waiting for a worker that serves a-model
  failed 3  retried 1,131  130 in flight`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()

			var got strings.Builder
			for _, l := range c.sample.Block("a-long-name-of-an-input.jsonl", c.width, c.height) {
				got.WriteString("\n" + l.Plain().String())
			}

			if diff := cmp.Diff(c.want, got.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlainLine(t *testing.T) {
	t.Parallel()
	got := busySample().PlainText("in\x1b[2J\n.jsonl")
	want := "in?[2J .jsonl  62%  62,011/100,000  elapsed 1h52m  left 65-80 min  failed 3  retried 1,131  8.1 req/s  912 tok/s in  1,912 out  130 in flight  4 workers"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Programs read these names.
func TestProgressJSON(t *testing.T) {
	t.Parallel()

	v := busySample()
	v.Type, v.Time, v.Run, v.ByWorker = "progress", "2026-01-02T03:04:05Z", "r", v.ByWorker[2:3]

	got, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}

	want := `{"type":"progress","time":"2026-01-02T03:04:05Z","run":"r","total":100000,"done":62011,"failed":3,"durable":0,"retries":1131,` +
		`"in_flight":130,"workers":4,"elapsed_s":6725,"requests_per_s":8.12,"input_tokens_per_s":912.4,"output_tokens_per_s":1912.3,` +
		`"remaining_s":4350,"remaining_low_s":3900,"remaining_high_s":4800,"state":"running",` +
		`"by_worker":[{"name":"mac","flavour":"Ollama","waits_for":"","in_flight":2,"concurrency":0,"requests_per_s":0.25,` +
		`"output_tokens_per_s":null,"gpus":0,"gpu_memory_bytes":0,"gpu_memory_used_bytes":null,"gpu_power_watts":null}]}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

// Each mode has its own format and interval.
func TestFollowModes(t *testing.T) {
	t.Parallel()

	line := func(at string, done int, left string) string {
		return fmt.Sprintf("%s  in.jsonl  %d%%  %d/100  elapsed %ds  %s  1.0 req/s  0.0 tok/s in  0.0 out  0 in flight\n",
			at, done, done, done, left)
	}
	remainingAfter := func(d time.Duration) *proto.Interval {
		if d < 10*time.Second {
			return nil
		}
		left := 100 - d.Seconds()
		return &proto.Interval{Low: left - 4, Expected: left, High: left + 5}
	}
	for _, c := range []struct {
		mode terminal.Mode
		want string
	}{
		{terminal.ModePlain, line("00:00:05", 5, "left: not yet known") + line("00:00:35", 35, "left 60-70 s") +
			"answer: " + line("00:00:40", 40, "left 60-70 s") + line("00:00:40", 40, "left 60-70 s")},
		{terminal.ModeNone, "answer: " + line("00:00:40", 40, "left 60-70 s")},
		{terminal.ModeJSON, strings.Repeat("progress\n", 41) + "message\nprogress\n"},
	} {
		t.Run(string(c.mode), func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				begin := time.Now()
				s := terminal.New(terminal.Config{Out: &out, Mode: c.mode})
				ctx, stop := context.WithCancel(t.Context())
				asked := make(chan os.Signal)
				go s.PrintStatusOnSignal(ctx, asked)

				ended := make(chan struct{})
				go func() {
					defer close(ended)

					followSamples(ctx, func() Sample {
						return Sample{
							Type:  "progress",
							Input: "in.jsonl",
							Total: 100,
							Done:  int(time.Since(begin).Seconds()),
							State: "running",
							at:    time.Now(),

							remaining: remainingAfter(time.Since(begin)),
						}
					}, NewDisplay(s).Show)
				}()

				time.Sleep(40*time.Second + sampleEvery/2)
				synctest.Wait()
				before := out.Len()
				asked <- os.Interrupt
				synctest.Wait()
				answer := out.Len()
				stop()
				<-ended

				got := out.String()
				if c.mode == terminal.ModeJSON {
					var types strings.Builder
					for l := range strings.Lines(got) {
						var v struct{ Type string }
						if err := json.Unmarshal([]byte(l), &v); err != nil {
							t.Errorf("%s: %v", l, err)
						}
						types.WriteString(v.Type + "\n")
					}

					got = types.String()
				} else {
					got = got[:before] + "answer: " + got[before:answer] + got[answer:]
				}

				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// A sample counts the workers that may run the run's requests, and has the reason of a wait.
func TestTakeSample(t *testing.T) {
	t.Parallel()

	ready := func(name, model string) proto.WorkerInfo {
		return proto.WorkerInfo{Name: name, Ready: true, Models: []string{model}, InFlight: 3, PerSecond: 1}
	}

	loading := proto.WorkerInfo{Name: "loading", Models: []string{"m"}}
	m := proto.Manifest{Run: "r", Input: proto.Input{Models: map[string]int{"m": 10}}}
	counts := collector.Progress{Total: 10, Durable: 4, Received: proto.Counts{
		Done:     6,
		Failed:   2,
		Skipped:  1,
		Attempts: 9,
	}}

	finishing := counts
	finishing.Finishing = true

	for _, c := range []struct {
		name     string
		workers  []proto.WorkerInfo
		state    proto.State
		counts   collector.Progress
		want     string
		inFlight int64
		names    []string
	}{
		{"two boxes, one of which works for others", []proto.WorkerInfo{ready("a", "m"), ready("b", "other")},
			proto.StateInProgress, counts, "running", 3, []string{"a"}},
		{"one loads, one works", []proto.WorkerInfo{loading, ready("a", "m")}, proto.StateInProgress, counts, "running",
			3, []string{"loading", "a"}},
		{"none is ready", []proto.WorkerInfo{loading}, proto.StateInProgress, counts,
			"waiting for a worker that serves m", 0, []string{"loading"}},
		{"none is there", nil, proto.StateInProgress, counts, "waiting for a worker that serves m", 0, nil},
		{"paused", []proto.WorkerInfo{ready("a", "m")}, proto.StatePaused, counts, "paused", 3, []string{"a"}},
		{"the files are written", []proto.WorkerInfo{ready("a", "m")}, proto.StateInProgress, finishing,
			"writing the output files", 0, []string{"a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()

			v := &Source{
				Run:       m,
				announced: c.workers,
				state:     c.state,
				polled:    true,
				Counts:    func() collector.Progress { return c.counts },
			}

			got := v.takeSample()
			var names []string
			for _, w := range got.ByWorker {
				names = append(names, w.Name)
			}

			if diff := cmp.Diff(c.names, names); diff != "" {
				t.Error(diff)
			}

			if got.State != c.want || got.InFlight != c.inFlight || got.Workers != len(names) {
				t.Errorf("%q with %d in flight at %d workers", got.State, got.InFlight, got.Workers)
			}

			// 9 attempts for the 5 that were run.
			if got.Done != 6 || got.Failed != 2 || got.Durable != 4 || got.Retries != 4 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// While a run waits it has no rates, in JSON either, and afterwards the wait is not in them.
func TestRatesWhileWaiting(t *testing.T) {
	t.Parallel()

	begin := time.Unix(1, 0)
	var tracker rateTracker
	sample := func(second, done int, state string) Sample {
		w := Worker{isLocal: true, done: int64(done), outputTokens: int64(10 * done)}
		if state != stateRunning {
			w.WaitsFor = state
		}

		return tracker.complete(Sample{
			Total:        1000,
			Done:         done,
			State:        state,
			ByWorker:     []Worker{w},
			at:           begin.Add(time.Duration(second) * time.Second),
			inputTokens:  int64(2 * done),
			outputTokens: int64(10 * done),
			remaining:    &proto.Interval{Low: 70.4, Expected: 80.2, High: 99.5},
		})
	}

	for second := range 20 {
		sample(second, 10*second, stateRunning)
	}

	if got := sample(20, 200, stateRunning); *got.RequestsPerS != 10 || *got.ByWorker[0].RequestsPerS != 10 {
		t.Errorf("%v req/s, of the worker %v; want 10", *got.RequestsPerS, *got.ByWorker[0].RequestsPerS)
	}

	if got := sample(21, 210, stateRunning); *got.RemainingLowS != 70 || *got.RemainingS != 80 ||
		*got.RemainingHighS != 100 {
		t.Errorf("%v s remain, %v to %v", *got.RemainingS, *got.RemainingLowS, *got.RemainingHighS)
	}

	for second := 22; second < 40; second++ {
		got := sample(second, 210, "waiting for the model server")
		if got.RequestsPerS != nil || got.InputTokPerS != nil || got.OutputTokPerS != nil || got.RemainingS != nil ||
			got.RemainingLowS != nil || got.RemainingHighS != nil || got.ByWorker[0].RequestsPerS != nil {
			t.Fatalf("rates while it waits: %+v", got)
		}
	}

	sample(40, 210, stateRunning)
	got := sample(42, 230, stateRunning)
	if *got.RequestsPerS != 10 || *got.OutputTokPerS != 100 || *got.ByWorker[0].OutputTokPerS != 100 {
		t.Errorf("after the wait: %v req/s, %v tok/s", *got.RequestsPerS, *got.OutputTokPerS)
	}

	sample(90, 230, stateRunning) // the process was stopped
	if got := sample(92, 250, stateRunning); *got.RequestsPerS != 10 {
		t.Errorf("after a stop: %v req/s", *got.RequestsPerS)
	}

	if got.ElapsedS != 42 {
		t.Errorf("elapsed %v s, want 42", got.ElapsedS)
	}
}

// Answers that were on the bus as the process began are no work of its time: they are not in the rate.
func TestRatesWithoutFoundAnswers(t *testing.T) {
	t.Parallel()

	begin := time.Unix(1, 0)
	var tracker rateTracker
	for second := range 30 {
		found := min(1000, 200+400*second) // 200 in the journal, 800 on the bus
		got := tracker.complete(Sample{
			Total: 2000,
			Done:  found + 10*second,
			State: stateRunning,
			at:    begin.Add(time.Duration(second) * time.Second),
			found: found,
		})

		if second > 0 && *got.RequestsPerS != 10 {
			t.Fatalf("after %d s: %v req/s, want 10", second, *got.RequestsPerS)
		}
	}
}

// The bar takes the columns that are left, whatever is beside it.
func TestBarUsesWidth(t *testing.T) {
	t.Parallel()

	for _, width := range []int{79, 119, 199} {
		for _, name := range []string{"in.jsonl", "日本語の入力ファイル.jsonl"} {
			l := busySample().formatHeadline(name, width)
			if l.Width() != width || !strings.Contains(l.Plain().String(), "█░") {
				t.Errorf("%d of %d columns: %s", l.Width(), width, l.Plain())
			}
		}
	}
}

// A run whose workers are all elsewhere waits for what the first of them says, unless one works.
func TestStateOfWorkersElsewhere(t *testing.T) {
	t.Parallel()

	const problem = "the model server answers no request: status 503 Service Unavailable: it died"
	works := proto.WorkerInfo{ID: "a", Name: "works", Ready: true, PerSecond: 2}
	fails := proto.WorkerInfo{ID: "b", Name: "fails", Ready: true, Problem: problem, PerSecond: 2}

	for _, tt := range []struct {
		name      string
		announced []proto.WorkerInfo
		want      string
	}{
		{"none", nil, "running"},
		{"one works", []proto.WorkerInfo{works}, "running"},
		{"one of two works", []proto.WorkerInfo{fails, works}, "running"},
		{"none works", []proto.WorkerInfo{fails}, problem},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			s := Source{
				Counts:    func() collector.Progress { return collector.Progress{} },
				announced: tt.announced,
				polled:    true,
			}

			got := s.takeSample()
			if got.State != tt.want {
				t.Errorf("the state is %q, want %q", got.State, tt.want)
			}

			for _, w := range got.ByWorker {
				if fails := w.Name == "fails"; fails != (w.WaitsFor == problem) || fails != (w.RequestsPerS == nil) {
					t.Errorf("%s waits for %q, with the rate %v", w.Name, w.WaitsFor, w.RequestsPerS)
				}
			}
		})
	}
}
