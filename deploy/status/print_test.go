package status

import (
	"bytes"
	"strings"
	"testing"

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
				RemainingS:   new(328.0),
				ElapsedS:     85,
			},
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
RUN                   INPUT          STATE        DONE              FAILED  RATE  LEFT  TIME  MODELS  PRIORITY
20261128-195627-yyjr  tickets.jsonl  in_progress  4,123/20,000 20%  0       48/s  ~5m   1m    gemma   0
`},
		{"120 cells", labelled, 120, `
RUN                   LABEL                     INPUT            STATE        DONE              FAILED  RATE  LEFT  TIME
20261128-195627-yyjr  every night, of the shop  tickets.jsonl    in_progress  4,123/20,000 20%  7       48/s  ~5m   1m
20261128-195629-2edx  -                         a-rather-lon...  in_progress  4,123/20,000 20%  0       48/s  ~5m   1m
`},
		{"80 cells", labelled, 80, `
RUN                   LABEL          INPUT       STATE        DONE  FAILED  LEFT
20261128-195627-yyjr  every nigh...  tickets...  in_progress  20%   7       ~5m
20261128-195629-2edx  -              a-rathe...  in_progress  20%   0       ~5m
`},
		{"80 cells, no label", plain, 80, `
RUN                   INPUT          STATE        DONE  FAILED  RATE  LEFT  TIME
20261128-195627-yyjr  tickets.jsonl  in_progress  20%   0       48/s  ~5m   1m
`},
		{"76 cells, no failure", plain, 76, `
RUN                   INPUT          STATE        DONE  RATE  LEFT  TIME
20261128-195627-yyjr  tickets.jsonl  in_progress  20%   48/s  ~5m   1m
`},
		{"60 cells, all have a label", named, 60, `
RUN                   LABEL        STATE        DONE  LEFT
20261128-195627-yyjr  every night  in_progress  20%   ~5m
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
