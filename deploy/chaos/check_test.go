package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// evidence is a run of five requests, the last of which is refused, and all is well
// with it.
func evidence(t *testing.T) (input []expected, o output) {
	t.Helper()

	for i := range 5 {
		w := expected{
			customID: fmt.Sprintf("q-%d", i),
			answer:   fmt.Sprintf("%016x", i+100),
			in:       10,
			out:      3,
			refused:  i == 4,
		}

		input = append(input, w)
		text := fmt.Sprintf(`{"custom_id":%q,"response":{"status_code":200,"body":{"id":"chatcmpl-%s","choices":[{"message":{"content":"%s two three"}}],`+
			`"usage":{"prompt_tokens":10,"completion_tokens":3}}},"error":null,"promptmill":{"index":%d,"attempts":2,"queued_ms":5,"latency_ms":20}}`+
			"\n",
			w.customID, w.answer, w.answer, i)
		if w.refused {
			text = fmt.Sprintf(`{"custom_id":%q,"response":{"status_code":400,"body":{"error":{"message":"the maximum context length is 1"}}},"error":null,"promptmill":{"index":%d,"attempts":1}}`+
				"\n",
				w.customID, i)
		}

		lines, err := readLines([]byte(text))
		if err != nil {
			t.Fatal(err)
		}

		if w.refused {
			o.errors = append(o.errors, lines...)
		} else {
			o.results = append(o.results, lines...)
		}

		o.meta.Results.Uncompressed += int64(len(text))
	}

	o.inputSHA256, o.bytes = "abc", 77
	m := &o.meta
	m.Status, m.TestID, m.Test.Requests, m.Test.SHA256 = "completed", "run", 5, "abc"
	r := &m.Results
	r.Successes, r.Failures, r.In, r.Out, r.Total, r.Bytes, r.Attempts = 4, 1, 40, 12, 52, 77, 9
	r.Histogram = map[string]int64{"1": 1, "2": 4}
	o.elapsed = time.Minute

	times := `{"inference_time_seconds":3,"total_time_seconds":6,"idle_time_seconds":1,"lost_time_seconds":2,"throughput_tokens_per_sec":17,
		"throughput_requests_per_sec":1.7,"latency_seconds":{"mean":0.02,"p50":0.02,"max":0.02}}`
	if err := json.Unmarshal([]byte(times), r); err != nil {
		t.Fatal(err)
	}

	return input, o
}

func TestCheckOutput(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name  string
		spoil func(o *output)
		want  string // in what is found; empty: nothing is
	}{
		{"all is well", func(*output) {}, ""},
		{"a lost line", func(o *output) { o.results = o.results[:3] }, "q-3 has no line"},
		{"a doubled line", func(o *output) { o.results = append(o.results, o.results[1]) }, "q-1 has two lines"},
		{"a line both answered and failed", func(o *output) { o.errors = append(o.errors, o.results[1]) },
			"q-1 has two lines"},
		{"the answer of another", func(o *output) {
			o.results[0].Response.Body, o.results[1].Response.Body = o.results[1].Response.Body,
				o.results[0].Response.Body
		}, "q-0 has the wrong answer"},
		{"a text of another", func(o *output) {
			o.results[0].Response.Body = json.RawMessage(strings.Replace(string(o.results[0].Response.Body), "three",
				"three four", 1))
		}, "an answer of another text"},
		{"an answer of other usage", func(o *output) {
			o.results[0].Response.Body = json.RawMessage(strings.Replace(string(o.results[0].Response.Body),
				`"completion_tokens":3`, `"completion_tokens":4`, 1))
		}, "q-0 has the wrong answer"},
		{"a request that failed", func(o *output) { o.results[2].Response.Status = 500 }, "q-2 failed"},
		{"a line of another request's number", func(o *output) { o.results[2].Extras.Seq = 3 }, "not in the input"},
		{"a line of no request", func(o *output) { o.results[2].CustomID = "who" }, "not in the input"},
		{"a refused request with an answer", func(o *output) { o.errors[0].Response.Status = 200 }, "not refused"},
		{"a wrong number of answers", func(o *output) { o.meta.Results.Successes = 5 }, "success_count 5, and it is 4"},
		{"a wrong number of failures", func(o *output) { o.meta.Results.Failures = 0 }, "failure_count"},
		{"wrong tokens", func(o *output) { o.meta.Results.Out = 13 }, "completion_tokens"},
		{"wrong attempts", func(o *output) { o.meta.Results.Attempts = 5 }, "attempts"},
		{"a wrong histogram", func(o *output) { o.meta.Results.Histogram["2"] = 3 }, "attempts_histogram"},
		{"a wrong size", func(o *output) { o.meta.Results.Bytes = 1 }, "output_bytes 1"},
		{"a run that was not completed", func(o *output) { o.meta.Status = "cancelled" }, "status"},
		{"a wait that never was", func(o *output) { o.results[1].Extras.Queued = -3_600_000 },
			"q-1 was queued for -3600000 ms"},
		{"an answer that took longer than all", func(o *output) { o.errors[0].Extras.Latency = 3_600_000 },
			"q-4 was queued for 0 ms and took 3600000 ms"},
		{"a whole that is less than its parts", func(o *output) { o.meta.Results.Whole = -3594 }, "it took -3594 s"},
		{"a time below nothing", func(o *output) { o.meta.Results.Idle = -1 }, "-1 s idle"},
		{"more time than there was", func(o *output) { o.meta.Results.Inference, o.meta.Results.Whole = 3600, 3603 },
			"3603 s of it are accounted for, in 1m0s"},
		{"time that is missing", func(o *output) {
			o.meta.Results.Lost, o.meta.Results.Whole, o.meta.Results.Interruptions = 3600, 3604, 1
		}, ""},
		{"no latency", func(o *output) { o.meta.Results.Latency = nil }, "no latency"},
		{"a wrong latency", func(o *output) { o.meta.Results.Latency.Mean = 0.03 }, "it is 0.02 s in the mean"},
		{"a rate below nothing", func(o *output) { *o.meta.Results.Tokens = -17 }, "-17 tokens/s"},
		{"another input", func(o *output) { o.inputSHA256 = "def" }, "input_sha256"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			input, o := evidence(t)
			test.spoil(&o)
			var found findings
			checkOutput("run", input, o, &found)
			wantFinding(t, found, test.want)
		})
	}
}

func wantFinding(t *testing.T, found findings, want string) {
	t.Helper()
	text := strings.Join(found, "\n")
	if want == "" && text != "" || !strings.Contains(text, want) {
		t.Errorf("found:\n%s\nwant: %q", text, want)
	}
}

func TestCheckLogs(t *testing.T) {
	t.Parallel()

	f := &deployment{layout: layout{t.TempDir()}, begin: time.Now().Add(-time.Minute)}
	if err := os.Mkdir(filepath.Join(f.dir, "logs"), 0o755); err != nil {
		t.Fatal(err)
	}

	for _, tt := range []struct{ text, want string }{
		{"worker worker1: bus 127.0.0.1:1", ""},
		{`05:42:58 WRN the model server hangs error="it has 30 requests and has answered none for 11s" server=http://127.0.0.1:1`,
			""},
		{`05:42:58 WRN the model server hangs error="it has 30 requests and has answered none for 24h0m1s" server=http://127.0.0.1:1`,
			"24h0m1s"},
		{"panic: no more", "no more"},
	} {
		if err := os.WriteFile(f.logPath("worker1"), []byte(tt.text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		var found findings
		(&auditor{f, &found}).checkLogs()
		wantFinding(t, found, tt.want)
	}
}

func TestCheckReader(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name   string
		lives  [][]int // requests in the order in which they were given
		forgot []int
		want   string
	}{
		{"one life", [][]int{{3, 1, 0, 2, 4}}, nil, ""},
		{"it goes on", [][]int{{3, 1}, {}, {0, 2, 4}}, nil, ""},
		{"it gives the last again", [][]int{{3, 1, 0}, {1, 0, 2, 4}}, nil, ""},
		{"it is killed again before it comes so far", [][]int{{3, 1, 0}, {3}, {1, 0, 2}, {0, 2, 4}}, nil, ""},
		{"the bus forgot it", [][]int{{3, 1, 0}, {0, 1, 2, 3, 4}}, []int{1}, ""},
		{"a gap", [][]int{{3, 1}, {2, 4}}, nil, "q-0 has no line"},
		{"a line twice in a life", [][]int{{3, 1, 3, 0, 2, 4}}, nil, "q-3 has two lines"},
		{"a gap in what comes again", [][]int{{3, 1, 0}, {3, 0, 2, 4}}, nil, "gave q-0 where an earlier life gave q-1"},
		{"a line again that was remembered", [][]int{{3, 1, 0}, {0, 3, 2, 4}}, nil, "gave q-3 again"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			input, o := evidence(t)
			all := slices.Concat(o.results, o.errors)
			var lives [][]line
			for _, seqs := range test.lives {
				var life []line
				for _, seq := range seqs {
					life = append(life, all[seq])
				}
				lives = append(lives, life)
			}

			var found findings
			_, read := checkReader(input, lives, test.forgot, &found)
			checkNoneMissing("reader", input, read, &found)
			wantFinding(t, found, test.want)
		})
	}
}

func TestFindingsAreFew(t *testing.T) {
	t.Parallel()

	var found findings
	for i := range 1000 {
		found.add("finding %d", i)
	}

	if len(found) != mostFindings+1 || found[mostFindings] != "and more" {
		t.Errorf("%d findings, the last is %q", len(found), found[len(found)-1])
	}
}

// What the input says must follow from it for all sorts of prompts.
func TestReadInput(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "in.jsonl")
	if err := writeInput(path, "run", 500, rand.New(rand.NewPCG(1, 1))); err != nil {
		t.Fatal(err)
	}

	input, err := readInput(path)
	if err != nil {
		t.Fatal(err)
	}

	refused, answers := 0, map[string]bool{}
	for i, w := range input {
		if w.customID != fmt.Sprintf("run-%d", i) {
			t.Fatalf("request %d is called %s", i, w.customID)
		}

		answers[w.answer] = true
		if w.refused {
			refused++
		}
	}

	if len(answers) != 500 || refused == 0 || refused > 50 {
		t.Errorf("%d answers and %d refusals of 500 requests", len(answers), refused)
	}
}

// The files of an output are one frame with its size and a checksum.
func TestReadOutput(t *testing.T) {
	t.Parallel()

	text := bytes.Repeat([]byte(`{"custom_id":"q","promptmill":{"index":0}}`+"\n"), 100)
	pack := func(opts ...zstd.EOption) []byte {
		t.Helper()
		enc, err := zstd.NewWriter(nil, opts...)
		if err != nil {
			t.Fatal(err)
		}
		return enc.EncodeAll(text, nil)
	}

	good := pack()
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"one frame", good, ""},
		{"two frames", slices.Concat(good, good), "not one zstd frame"},
		{"no checksum", pack(zstd.WithEncoderCRC(false)), "not one zstd frame"},
		{"torn", good[:len(good)-3], "unexpected EOF"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			path := filepath.Join(t.TempDir(), "out.zst")
			if err := os.WriteFile(path, test.data, 0o644); err != nil {
				t.Fatal(err)
			}

			lines, err := readOutput(path)
			switch {
			case test.want == "" && (err != nil || len(lines) != 100):
				t.Errorf("%d lines, %v", len(lines), err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// A request that was with three servers when these were killed counts as poison; with fewer
// it was thrown away.
func TestCheckPoison(t *testing.T) {
	t.Parallel()

	input, _ := evidence(t)
	lines, err := readLines([]byte(`{"custom_id":"q-1","response":null,"error":{"code":"poison","message":"died"},"promptmill":{"index":1,"attempts":3}}` +
		"\n"))
	if err != nil {
		t.Fatal(err)
	}

	kill := disruption{what: "kill model1 for 2s", models: []string{"worker1"}}
	faults := disruption{what: "faults model2 for 2s", models: []string{"worker2"}}
	worker := disruption{what: "kill worker1 for 2s", workers: []string{"worker1"}}
	for _, tt := range []struct {
		disruptions []disruption
		fault       bool
	}{
		{[]disruption{kill, faults}, false},
		{[]disruption{kill, kill, worker}, true},
		{[]disruption{faults, worker, worker}, true},
		{nil, true},
	} {
		input[1].deaths = disruptions{list: tt.disruptions}.countModelCrashes()
		var found findings
		if seq := checkLine("here", input, lines[0], &found); seq != 1 || (len(found) > 0) != tt.fault {
			t.Errorf("%v: request %d, findings %q", tt.disruptions, seq, found)
		}
	}
}
