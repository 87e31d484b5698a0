package progress

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// startOfTickets returns the start of a run at a vLLM server.
func startOfTickets() Start {
	v := NewStart("run", proto.Manifest{
		Run: "20261128-213659-yb5a",
		Input: proto.Input{
			Files:    []proto.File{{Path: "/data/tickets.jsonl"}},
			Requests: 20000,
			Models:   map[string]int{"gemma-3-4b-it": 20000},
		},
	}, output.Prefix("/out/tickets.results"), 0)
	v.SetServer([]string{"http://127.0.0.1:8000"}, false, modelserver.Info{
		Flavour: "vLLM",
		Version: "0.11.2",
		Models:  []modelserver.Model{{ID: "gemma-3-4b-it", ContextLength: 131072}},
	}, 0)
	v.Bus = StartBus{Own: true, Address: "127.0.0.1:39021", Version: "2.15.3"}

	return v
}

// The start of a run, to the letter.
func TestStartLines(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		name   string
		change func(*Start)
		want   string
	}{
		{"a new run", func(*Start) {}, `
run 20261128-213659-yb5a: 20,000 requests from tickets.jsonl
  model     gemma-3-4b-it, 131,072 tokens of context
  server    vLLM 0.11.2 at http://127.0.0.1:8000, as many requests at once as it can use
  bus       in this process
  answers   /out/tickets.results.jsonl.zst
  read now  zstd -dc /out/tickets.results.part.zst
`},
		{"a table in two files", func(v *Start) {
			v.Tables = []string{"/out/t-00000-of-00002.csv", "/out/t-00001-of-00002.csv"}
		}, `
run 20261128-213659-yb5a: 20,000 requests from tickets.jsonl
  model     gemma-3-4b-it, 131,072 tokens of context
  server    vLLM 0.11.2 at http://127.0.0.1:8000, as many requests at once as it can use
  bus       in this process
  table     /out/t-00000-of-00002.csv and 1 more
  answers   /out/tickets.results.jsonl.zst
  read now  zstd -dc /out/tickets.results.part.zst
`},
		{"a resumed run with a label", func(v *Start) {
			v.Resumed, v.Label, v.Durable, v.OnBus = true, "nightly", 3061, 1798
			v.Server.Slots, v.Server.Concurrency = new(8), new(1600)
			v.Bus.Shared, v.Bus.Address = true, "0.0.0.0:4333"
		}, `
resuming run 20261128-213659-yb5a (nightly): 3,061 of 20,000 requests have their line, 1,798 more are on the bus
  model     gemma-3-4b-it, 131,072 tokens of context
  server    vLLM 0.11.2 at http://127.0.0.1:8000, 8 slots, 1,600 requests at once
  bus       in this process, at 0.0.0.0:4333
  answers   /out/tickets.results.jsonl.zst
  read now  zstd -dc /out/tickets.results.part.zst
`},
		{"limits", func(v *Start) {
			failed := proto.Threshold{Metric: proto.MetricFailed, Value: 1, Percent: true}
			truncated := proto.Threshold{Metric: proto.MetricTruncated, OrEqual: true, Value: 50}
			v.FailIf, v.MaxTokens = []proto.Threshold{failed, truncated}, new(int64(5e6))
		}, `
run 20261128-213659-yb5a: 20,000 requests from tickets.jsonl
  model     gemma-3-4b-it, 131,072 tokens of context
  server    vLLM 0.11.2 at http://127.0.0.1:8000, as many requests at once as it can use
  bus       in this process
  stops if  failed>1%, or truncated>=50, or the run has used 5,000,000 tokens
  answers   /out/tickets.results.jsonl.zst
  read now  zstd -dc /out/tickets.results.part.zst
`},
		{"slots", func(v *Start) { v.Server.Slots = new(8) }, `
run 20261128-213659-yb5a: 20,000 requests from tickets.jsonl
  model     gemma-3-4b-it, 131,072 tokens of context
  server    vLLM 0.11.2 at http://127.0.0.1:8000, 8 slots
  bus       in this process
  answers   /out/tickets.results.jsonl.zst
  read now  zstd -dc /out/tickets.results.part.zst
`},
		{"several servers, of which nothing is known, and no model", func(v *Start) {
			v.Models, v.ContextLength = nil, nil
			v.SetServer([]string{"http://a", "http://b", "http://c", "http://d"}, false, modelserver.Info{}, 0)
			v.Bus = StartBus{Address: "10.0.0.1:4222", Version: "2.14.10"}
			v.Journal = "/out/it's.part.zst"
		}, `
run 20261128-213659-yb5a: 20,000 requests from tickets.jsonl
  server    http://a, http://b, http://c and 1 more, as many requests at once as each can use
  bus       NATS 2.14.10 at 10.0.0.1:4222
  answers   /out/tickets.results.jsonl.zst
  read now  zstd -dc '/out/it'\''s.part.zst'
`},
		{"several servers and models", func(v *Start) {
			v.Models = []string{"a", "b", "c", "d"}
			v.SetServer([]string{"http://a", "http://b"}, false, modelserver.Info{Flavour: "SGLang"}, 16)
			v.ContextLength = nil
		}, `
run 20261128-213659-yb5a: 20,000 requests from tickets.jsonl
  model     a, b, c and 1 more
  server    SGLang at http://a, http://b, 16 requests at once each
  bus       in this process
  answers   /out/tickets.results.jsonl.zst
  read now  zstd -dc /out/tickets.results.part.zst
`},
		{"the simulated server", func(v *Start) { v.Server.Simulated, v.Server.Slots = true, new(64) }, `
run 20261128-213659-yb5a: 20,000 requests from tickets.jsonl
  model     gemma-3-4b-it
  server    simulated in this process, as many requests at once as it can use
  bus       in this process
  answers   /out/tickets.results.jsonl.zst
  read now  zstd -dc /out/tickets.results.part.zst
`},
		{"no server here", func(v *Start) { v.Server, v.ContextLength = nil, nil }, `
run 20261128-213659-yb5a: 20,000 requests from tickets.jsonl
  model     gemma-3-4b-it
  server    none here, waiting for workers
  bus       in this process
  answers   /out/tickets.results.jsonl.zst
  read now  zstd -dc /out/tickets.results.part.zst
`},
		{"collect", func(v *Start) {
			v.Command, v.Server, v.ContextLength = "collect", nil, nil
			v.Bus = StartBus{Address: "10.0.0.1:4333", Version: "2.15.3"}
		}, `
collecting run 20261128-213659-yb5a: 0 of 20,000 requests have their line
  model     gemma-3-4b-it
  bus       NATS 2.15.3 at 10.0.0.1:4333
  answers   /out/tickets.results.jsonl.zst
  read now  zstd -dc /out/tickets.results.part.zst
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()

			v := startOfTickets()
			c.change(&v)

			var got strings.Builder
			got.WriteString("\n")
			for _, l := range v.Lines() {
				got.WriteString(l.Plain().String() + "\n")
			}

			if diff := cmp.Diff(c.want, got.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Programs read the names of the start; people read its lines, except with --progress none.
func TestShowStart(t *testing.T) {
	t.Parallel()

	v := startOfTickets()
	v.Time = "2026-01-02T03:04:05Z"
	object := `{"type":"start","time":"2026-01-02T03:04:05Z","command":"run","run":"20261128-213659-yb5a","label":"",` +
		`"input":"tickets.jsonl","models":["gemma-3-4b-it"],"context_length":131072,"resumed":false,"total":20000,` +
		`"durable":0,"on_bus":0,"server":{"urls":["http://127.0.0.1:8000"],"simulated":false,"flavour":"vLLM",` +
		`"version":"0.11.2","slots":null,"concurrency":null},"bus":{"own":true,"shared":false,` +
		`"address":"127.0.0.1:39021","version":"2.15.3"},"fail_if":[],"max_tokens":null,` +
		`"results":"/out/tickets.results.jsonl.zst",` +
		`"journal":"/out/tickets.results.part.zst","tables":[]}` + "\n"

	for mode, want := range map[terminal.Mode]string{
		terminal.ModeJSON:  object,
		terminal.ModeNone:  "",
		terminal.ModePlain: "run 20261128-213659-yb5a: 20,000 requests from tickets.jsonl\n",
		terminal.ModeBar:   "run 20261128-213659-yb5a: 20,000 requests from tickets.jsonl\n",
	} {
		var out bytes.Buffer
		NewDisplay(terminal.New(terminal.Config{Out: &out, Mode: mode})).ShowStart(v)

		got := out.String()
		if mode == terminal.ModePlain || mode == terminal.ModeBar {
			got, _, _ = strings.Cut(got, "  model")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", mode, diff)
		}
	}

	if !json.Valid([]byte(object)) {
		t.Error("the object is not JSON")
	}
}

func TestFormatKept(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		durable, total, onBus int
		want                  string
	}{
		{84, 6000, 23, "84 of 6,000 requests have their line, 23 more are on the bus"},
		{0, 6000, 0, "0 of 6,000 requests have their line"},
	} {
		if got := FormatKept(c.durable, c.total, c.onBus); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
