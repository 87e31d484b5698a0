package status

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

// A narrow terminal gets the columns that say what a run is and how far it is.
func TestRunsFitTheTerminal(t *testing.T) {
	t.Parallel()

	run := func(id, label, input string, failed int) Run {
		return Run{
			Manifest: proto.Manifest{
				Run:   id,
				Label: label,
				State: proto.StateInProgress,
				Input: proto.Input{Requests: 20_000, Models: map[string]int{"gemma": 20_000}},
			},
			InputName: input,
			Progress: Progress{
				Total:        20_000,
				Done:         4_123,
				Failed:       failed,
				RequestsPerS: new(48.4),
				ElapsedS:     85,

				RemainingS:     new(328.0),
				RemainingLowS:  new(301.0),
				RemainingHighS: new(370.0),
			},
			AgeS:      85,
			Collector: &Collector{CollectorInfo: proto.CollectorInfo{Host: "head", Output: "/out"}, RenewedAgoS: 2.2},
		}
	}

	plain := []Run{run("20261128-195627-yyjr", "", "tickets.jsonl", 0)}
	labelled := []Run{
		run("20261128-195627-yyjr", "every night, of the shop", "tickets.jsonl", 7),
		run("20261128-195629-2edx", "", "a-rather-long-input-name.jsonl +2", 0),
	}
	named := []Run{run("20261128-195627-yyjr", "every night", "tickets.jsonl", 0)}

	for _, tt := range []struct {
		name  string
		runs  []Run
		width int
		want  string
	}{
		{"a pipe", plain, 0, `
RUN                   INPUT          STATE        DONE              FAILED  RATE  LEFT     AGE  COLLECTOR  MODELS  PRIORITY
20261128-195627-yyjr  tickets.jsonl  in_progress  4,123/20,000 20%  0       48/s  5-6 min  1m   head       gemma   0
`},
		{"160 cells", labelled, 160, `
RUN                   LABEL                     INPUT                              STATE        DONE              FAILED  RATE  LEFT     AGE  COLLECTOR  MODELS
20261128-195627-yyjr  every night, of the shop  tickets.jsonl                      in_progress  4,123/20,000 20%  7       48/s  5-6 min  1m   head       gemma
20261128-195629-2edx  -                         a-rather-long-input-name.jsonl +2  in_progress  4,123/20,000 20%  0       48/s  5-6 min  1m   head       gemma
`},
		{"120 cells", labelled, 120, `
RUN                   LABEL             INPUT       STATE        DONE              FAILED  RATE  LEFT     AGE  COLLECTOR
20261128-195627-yyjr  every night, ...  tickets...  in_progress  4,123/20,000 20%  7       48/s  5-6 min  1m   head
20261128-195629-2edx  -                 a-rathe...  in_progress  4,123/20,000 20%  0       48/s  5-6 min  1m   head
`},
		{"80 cells", labelled, 80, `
RUN                   LABEL       INPUT       STATE        DONE  FAILED  LEFT
20261128-195627-yyjr  every n...  tickets...  in_progress  20%   7       5-6 min
20261128-195629-2edx  -           a-rathe...  in_progress  20%   0       5-6 min
`},
		{"80 cells, no label", plain, 80, `
RUN                   INPUT          STATE        DONE  RATE  LEFT     AGE
20261128-195627-yyjr  tickets.jsonl  in_progress  20%   48/s  5-6 min  1m
`},
		{"60 cells, no failure", plain, 60, `
RUN                   INPUT       STATE        DONE  LEFT
20261128-195627-yyjr  tickets...  in_progress  20%   5-6 min
`},
		{"60 cells, all have a label", named, 60, `
RUN                   LABEL       STATE        DONE  LEFT
20261128-195627-yyjr  every n...  in_progress  20%   5-6 min
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var b bytes.Buffer
			if err := PrintRuns(&b, tt.runs, tt.width); err != nil {
				t.Fatal(err)
			}

			if diff := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), b.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Workers that were heard at their time need no column for it. One that was not is named below the table.
func TestSilentWorker(t *testing.T) {
	t.Parallel()

	worker := func(name string, ago float64) Worker {
		return Worker{
			WorkerInfo: proto.WorkerInfo{
				ID:          "id-" + name,
				Name:        name,
				Host:        "box",
				Ready:       true,
				InFlight:    9,
				Concurrency: 16,
				PerSecond:   16.7,
				Models:      []string{"gemma"},
				Since:       time.Now().Add(-2 * time.Hour),
			},
			HeardAgoS: ago,
		}
	}

	for _, tt := range []struct {
		name    string
		workers []Worker
		width   int
		want    string
	}{
		{"all were heard", []Worker{worker("gpu1", 2.4), worker("gpu2", 0)}, 80, `
WORKER  STATE  IN FLIGHT  RATE  DONE  MODELS  HOST  GPU  VERSION  SINCE
gpu1    ready  9/16       17/s  0     gemma   box   -    -        2h00m
gpu2    ready  9/16       17/s  0     gemma   box   -    -        2h00m
`},
		{"one is silent", []Worker{worker("gpu1", 2.4), worker("gpu2", 12.9)}, 80, `
WORKER  STATE  HEARD     IN FLIGHT  RATE  DONE  MODELS  HOST  GPU  SINCE
gpu1    ready  2 s ago   9/16       17/s  0     gemma   box   -    2h00m
gpu2    ready  12 s ago  9/16       17/s  0     gemma   box   -    2h00m
! gpu2: last heard 12 s ago; a worker reports every 3 s, and is gone after 15 s of silence
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var b bytes.Buffer
			if err := PrintWorkers(&b, tt.workers, tt.width); err != nil {
				t.Fatal(err)
			}

			if diff := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), b.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// The card of a run has all that is known of it.
func TestPrintRun(t *testing.T) {
	t.Parallel()

	created := time.Now().Add(-2 * time.Hour)
	r := Run{
		Manifest: proto.Manifest{
			Run:       "r-1",
			Label:     "nightly",
			State:     proto.StateInProgress,
			CreatedAt: created,
			Input: proto.Input{
				Files:    []proto.File{{Path: "/in/tickets.jsonl"}},
				Requests: 20_000,
				Models:   map[string]int{"gemma": 20_000},
			},
			Output:   "head:/out/r-1",
			Counts:   proto.Counts{Done: 4000, Failed: 7, PromptTokens: 1000, CompletionTokens: 2000},
			Failures: map[string]int64{"timeout": 7},
		},
		Progress: Progress{
			Total:          20_000,
			Done:           4123,
			Failed:         7,
			RequestsPerS:   new(48.4),
			RemainingS:     new(328.0),
			RemainingLowS:  new(301.0),
			RemainingHighS: new(430.0),
		},
		Collector: &Collector{CollectorInfo: proto.CollectorInfo{Host: "head", Output: "/out/r-1"}, RenewedAgoS: 2.2},
	}

	var b bytes.Buffer
	if err := PrintRun(&b, r); err != nil {
		t.Fatal(err)
	}

	want := `run        r-1
label      nightly
input      /in/tickets.jsonl
state      in_progress
requests   20,000, of these 4,123 done, 7 failed
failures   7 x timeout
rate       48 requests/s
left       5-7 min, expected 5 min
tokens     1,000 in, 2,000 out
model      gemma: 20,000 requests
priority   0
created    ` + created.Local().Format(time.DateTime) + ` (2h00m ago)
output     head:/out/r-1.part.zst (read it there with zstd -dc)
collector  head:/out/r-1, lease renewed 2 s ago
next       promptmill tail r-1 prints the results as they come
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
