package report

import (
	"slices"
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// some is a run of a hundred answered requests in ten seconds.
func some(change func(*metadata.Run)) *metadata.Run {
	run := &metadata.Run{
		TestID: "this", Model: "small", Timestamp: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		Test: metadata.Test{NumRequests: 100},
		Results: metadata.Results{
			SuccessCount: 100, InferenceTimeSeconds: 10, TotalTimeSeconds: 12, TotalTokens: new(int64(1000)),
			ThroughputTokensPerSec: new(100.0), ThroughputRequestsPerSec: new(10.0), Attempts: 100,
		},
	}
	if change != nil {
		change(run)
	}

	return run
}

// other is a run to compare with.
func other(change func(*metadata.Run)) *metadata.Run {
	run := some(change)
	run.TestID, run.Model = "that", "large"
	return run
}

func TestConclusions(t *testing.T) {
	t.Parallel()

	worker := func(name string, requests int64, since time.Time) metadata.Worker {
		return metadata.Worker{Name: name, Requests: &requests, Sessions: []metadata.WorkerSession{{Since: since}}}
	}

	// at returns a worker whose server was full in a number of ten announcements.
	at := func(name, platform string, slots int, full int64) metadata.Worker {
		return metadata.Worker{
			Name:     name,
			Platform: &platform,
			Requests: new(int64(100)),
			Slots:    &metadata.Slots{Count: slots, Readings: 10, FullReadings: full},
		}
	}

	const moreSlots = "start it with -np 32 (and a -c for as many) if it has the memory, and for prompts that have little in common with --cache-ram 0 too."
	before := time.Date(2025, 12, 31, 0, 0, 0, 0, time.UTC)
	fast := other(func(r *metadata.Run) { r.Results.OutputTokensPerSec = new(100.0) })
	for _, c := range []struct {
		rule, what string
		run        func(*metadata.Run)
		baseline   *metadata.Run
		want       string // empty: says nothing
	}{
		{"speed", "no baseline", nil, nil, ""},
		{"speed", "fewer", func(r *metadata.Run) {
			r.Results.OutputTokensPerSec, r.Results.ThroughputRequestsPerSec = new(61.0), new(5.0)
		}, fast, "39% fewer output tokens/s and 50% fewer requests/s than large, with the same share answered."},
		{"speed", "more", func(r *metadata.Run) {
			r.Results.OutputTokensPerSec, r.Results.ThroughputRequestsPerSec = new(150.0), new(11.0)
		}, fast, "50% more output tokens/s and 10% more requests/s than large, with the same share answered."},
		{"speed", "many more", func(r *metadata.Run) {
			r.Results.OutputTokensPerSec, r.Results.ThroughputRequestsPerSec = new(300.0), new(25.0)
		}, fast, "3 times as many output tokens/s and 2.5 times as many requests/s as large, with the same share answered."},
		{"speed", "alike", func(r *metadata.Run) { r.Results.OutputTokensPerSec = new(101.5) }, fast,
			"As many output tokens/s (+1.5%) and as many requests/s (0%) as large, with the same share answered."},
		{"speed", "failures count", nil,
			other(func(r *metadata.Run) { r.Results.SuccessCount, r.Results.FailureCount = 90, 10 }),
			"As many requests/s (0%) as large, with 100% answered instead of 90%."},
		{"speed", "the tokens of input and output together are no speed", func(r *metadata.Run) {
			r.Results.ThroughputTokensPerSec, r.Results.ThroughputRequestsPerSec = new(900.0), new(5.0)
		}, other(nil), "50% fewer requests/s than large, with the same share answered."},
		{"speed", "another input", func(r *metadata.Run) {
			r.Test.InputSHA256 = "a"
			r.Results.ThroughputRequestsPerSec = new(5.0)
		},
			other(func(r *metadata.Run) { r.Test.InputSHA256 = "b" }),
			"50% fewer requests/s than large, with the same share answered, on another input."},
		{"speed", "a speed is unknown", func(r *metadata.Run) { r.Results.ThroughputRequestsPerSec = nil }, other(nil), ""},

		{"speed", "nothing was answered",
			func(r *metadata.Run) { r.Results.SuccessCount, r.Results.FailureCount = 0, 100 }, other(nil), ""},
		{"speed", "the same model", func(r *metadata.Run) { r.Results.ThroughputRequestsPerSec = new(5.0) },
			some(func(r *metadata.Run) { r.TestID = "before" }),
			"50% fewer requests/s than before, with the same share answered."},

		{"energy", "less", func(r *metadata.Run) { r.Results.JoulesPer1000OutputTokens = new(80.0) },
			other(func(r *metadata.Run) { r.Results.JoulesPer1000OutputTokens = new(100.0) }),
			"Each output token took 20% less energy than with large."},
		{"energy", "more", func(r *metadata.Run) { r.Results.JoulesPer1000OutputTokens = new(150.0) },
			other(func(r *metadata.Run) { r.Results.JoulesPer1000OutputTokens = new(100.0) }),
			"Each output token took 50% more energy than with large."},
		{"energy", "about the same", func(r *metadata.Run) { r.Results.JoulesPer1000OutputTokens = new(103.0) },
			other(func(r *metadata.Run) { r.Results.JoulesPer1000OutputTokens = new(100.0) }), ""},
		{"energy", "unknown", func(r *metadata.Run) { r.Results.JoulesPer1000OutputTokens = new(103.0) },
			other(nil), ""},

		{"estimate", "too few", func(r *metadata.Run) { r.Results.SuccessCount = 10 }, nil,
			"Ten requests are too few for an estimate: a run of 100 requests would be enough."},
		{"estimate", "too few for the concurrency",
			func(r *metadata.Run) { r.Results.PeakConcurrentRequests = new(int64(64)) }, nil,
			"100 requests are too few for an estimate: a run of 192 requests would be enough."},
		{"estimate", "no series", nil, nil,
			"No estimate is possible: the metadata has no time series, so how the rate changed is not known."},

		{"estimate", "too short for its concurrency, which is unknown",
			func(r *metadata.Run) { r.Results.MeanConcurrentRequests = new(63.5) }, nil,
			"100 requests are too few for an estimate: a run of 191 requests would be enough."},
		{"estimate", "all have failed",
			func(r *metadata.Run) { r.Results.SuccessCount, r.Results.FailureCount = 0, 100 }, nil, ""},

		{"tokens unknown", "nothing was answered", func(r *metadata.Run) {
			r.Results.SuccessCount, r.Results.FailureCount, r.Results.TotalTokens = 0, 100, nil
		}, nil, ""},
		{"tokens unknown", "some are known", func(r *metadata.Run) {
			r.Manifest, r.Results.LatencySeconds = &proto.Manifest{}, &metadata.Distribution{}
		}, nil,
			"Some answers report no usage, so all token totals and rates are too low."},
		{"tokens unknown", "known", nil, nil, ""},
		{"tokens unknown", "unknown", func(r *metadata.Run) { r.Results.TotalTokens = nil }, nil,
			"The answers report no usage, so the number of tokens is not known."},

		{"cut off", "many", func(r *metadata.Run) {
			r.Results.FinishReasons = map[string]int64{"stop": 92, "length": 8}
		}, nil,
			"8% of the answers were cut off at their token limit: raise the limit in the requests, or run with --retry-truncated 4."},
		{"cut off", "a few", func(r *metadata.Run) {
			r.Results.FinishReasons = map[string]int64{"stop": 992, "length": 8}
		}, nil, ""},

		{"idle", "long", func(r *metadata.Run) {
			r.Results.IdleTimeSeconds, r.Results.TotalTimeSeconds = new(600.0), 3600
		}, nil, "No worker was working for 10 min of 60 min."},
		{"idle", "short", func(r *metadata.Run) { r.Results.IdleTimeSeconds = new(0.5) }, nil, ""},
		{"stops", "none", nil, nil, ""},
		{"stops", "one", func(r *metadata.Run) {
			r.Results.Stops = []proto.ReachedLimit{{Limit: "failed>1%", Count: 11, Ended: 1100}}
		}, nil, "A limit stopped the run once: failed>1% (11 of 1,100)."},
		{"stops", "four", func(r *metadata.Run) {
			r.Results.Stops = []proto.ReachedLimit{
				{Limit: "failed>50", Count: 51, Ended: 60},
				{Limit: "failed>1%", Count: 11, Ended: 100},
				{Tokens: 5280, MaxTokens: 5000},
				{Limit: "failed>1%", Count: 2, Ended: 100},
			}
		}, nil, "Limits stopped the run 4 times, most recently: failed>1% (11 of 100), 5,000 tokens, failed>1% (2 of 100)."},
		{"interruptions", "none", nil, nil, ""},
		{"interruptions", "one", func(r *metadata.Run) {
			r.Results.Interruptions, r.Results.LostTimeSeconds = 1, new(90.0)
		}, nil, "The run was interrupted once, which cost 1.5 min."},
		{"interruptions", "nine", func(r *metadata.Run) { r.Results.Interruptions = 9 }, nil,
			"The run was interrupted 9 times."},

		{"repeated attempts", "many", func(r *metadata.Run) {
			r.Results.Attempts, r.Results.AttemptFailures = 110, map[string]int64{"timeout": 3, "503": 7}
		}, nil, "9.1% of the attempts had to be repeated, mostly after HTTP 503."},
		{"repeated attempts", "a few", func(r *metadata.Run) {
			r.Results.Attempts, r.Results.AttemptFailures = 1000, map[string]int64{"timeout": 3}
		}, nil, ""},
		{"model load", "longer than the work",
			func(r *metadata.Run) { r.Results.ModelLoadTimeSeconds = new(678.5) }, nil,
			"Loading the model took longer (678 s) than all the requests (10.0 s): for runs this small, keep the server running."},
		{"model load", "shorter", func(r *metadata.Run) { r.Results.ModelLoadTimeSeconds = new(9.0) }, nil, ""},
		{"tail", "long", func(r *metadata.Run) { r.Results.LatencySeconds = &metadata.Distribution{P50: 2, P99: 30} },
			nil,
			"One request in a hundred took at least 15 times as long as the median."},
		{"tail", "short", func(r *metadata.Run) { r.Results.LatencySeconds = &metadata.Distribution{P50: 2, P99: 10} },
			nil, ""},

		{"few slots", "full", func(r *metadata.Run) { r.Workers = []metadata.Worker{at("a", "llama.cpp b1", 4, 9)} },
			nil,
			"The model server of a runs 4 requests at once and was full for most of the run: " + moreSlots},
		{"few slots", "several are full", func(r *metadata.Run) {
			r.Workers = []metadata.Worker{
				at("a", "llama.cpp", 32, 9), at("b", "llama.cpp", 1, 9), at("c", "llama.cpp", 4, 6),
				at("d", "llama.cpp", 4, 5),
			}
		}, nil, "The model server of b runs 1 request at once and was full for most of the run: " + moreSlots +
			" The server of 1 other worker was full as well."},
		{"few slots", "another server",
			func(r *metadata.Run) { r.Workers = []metadata.Worker{at("a", "LM Studio", 4, 9)} }, nil,
			"The model server of a runs 4 requests at once and was full for most of the run: load its model with Max Concurrent Predictions at 32 if it has the memory."},
		{"few slots", "a server without a known way to more",
			func(r *metadata.Run) { r.Workers = []metadata.Worker{at("a", "vLLM 0.11", 4, 9)} }, nil, ""},
		{"few slots", "full for half of the run",
			func(r *metadata.Run) { r.Workers = []metadata.Worker{at("a", "llama.cpp b1", 4, 5)} }, nil, ""},
		{"few slots", "full in a short run", func(r *metadata.Run) {
			r.Workers, r.Results.MeanConcurrentRequests = []metadata.Worker{at("a", "llama.cpp b1", 4, 0)}, new(4.2)
			r.Workers[0].Slots.Readings = 0
		}, nil, "The model server of a runs 4 requests at once and was full for most of the run: " + moreSlots},
		{"few slots", "not full in a short run", func(r *metadata.Run) {
			r.Workers, r.Results.MeanConcurrentRequests = []metadata.Worker{at("a", "llama.cpp b1", 4, 0)}, new(3.8)
			r.Workers[0].Slots.Readings = 0
		}, nil, ""},
		{"few slots", "whose requests they were in a short run is not known", func(r *metadata.Run) {
			r.Workers, r.Results.MeanConcurrentRequests = []metadata.Worker{
				at("a", "llama.cpp b1", 4, 0), at("b", "vLLM", 4, 0),
			}, new(8.2)
			r.Workers[0].Slots.Readings = 0
		}, nil, ""},
		{"few slots", "not full, though as many were there on average", func(r *metadata.Run) {
			r.Workers, r.Results.MeanConcurrentRequests = []metadata.Worker{at("a", "llama.cpp b1", 4, 3)}, new(4.2)
		}, nil, ""},
		{"few slots", "it has many", func(r *metadata.Run) {
			r.Workers = []metadata.Worker{at("a", "llama.cpp b1", 32, 9)}
		}, nil, ""},
		{"few slots", "no more work than slots", func(r *metadata.Run) {
			r.Workers = []metadata.Worker{at("a", "llama.cpp b1", 4, 9)}
			r.Workers[0].Requests = new(int64(4))
		}, nil, ""},
		{"few slots", "kept to as many", func(r *metadata.Run) {
			r.Workers, r.Config.Concurrency = []metadata.Worker{at("a", "llama.cpp b1", 4, 9)}, new(4)
		}, nil, ""},
		{"few slots", "kept to more", func(r *metadata.Run) {
			r.Workers, r.Config.Concurrency = []metadata.Worker{at("a", "llama.cpp b1", 4, 9)}, new(8)
		}, nil, "The model server of a runs 4 requests at once and was full for most of the run: " + moreSlots},
		{"few slots", "several servers", func(r *metadata.Run) {
			r.Workers = []metadata.Worker{at("a", "llama.cpp b1", 4, 9)}
			r.Workers[0].SeveralServers = true
		}, nil, ""},
		{"few slots", "unknown slots", func(r *metadata.Run) {
			r.Workers = []metadata.Worker{worker("a", 100, before)}
		}, nil, ""},
		{"memory full", "full", func(r *metadata.Run) {
			r.Workers = []metadata.Worker{
				{
					Name: "a",
					GPUs: []metadata.GPU{
						{Index: 1, MemoryBytes: new(int64(1000)), MemoryUsedBytesMax: new(int64(990))},
					},
				},
			}
		}, nil, "GPU 1 of a had 99% of its memory in use, so a longer request might not fit."},
		{"memory full", "room is left", func(r *metadata.Run) {
			r.Workers = []metadata.Worker{
				{Name: "a", GPUs: []metadata.GPU{{MemoryBytes: new(int64(1000)), MemoryUsedBytesMax: new(int64(900))}}},
			}
		}, nil, ""},
		{"uneven workers", "uneven", func(r *metadata.Run) {
			r.Workers = []metadata.Worker{worker("a", 300, before), worker("b", 100, before)}
		}, nil, "b handled 100 requests, fewer than half as many as a (300)."},
		{"uneven workers", "one came later", func(r *metadata.Run) {
			r.Workers = []metadata.Worker{worker("a", 300, before), worker("b", 100, r.Timestamp.Add(time.Second))}
		}, nil, ""},
		{"uneven workers", "even", func(r *metadata.Run) {
			r.Workers = []metadata.Worker{worker("a", 300, before), worker("b", 200, before)}
		}, nil, ""},
	} {
		r := Build(some(c.run), Options{Baseline: c.baseline})
		got := ""
		if i := slices.IndexFunc(r.Conclusions, func(has Conclusion) bool { return has.Rule == c.rule }); i >= 0 {
			got = r.Conclusions[i].Text
		}

		if got != c.want {
			t.Errorf("%s, %s:\n got %q\nwant %q", c.rule, c.what, got, c.want)
		}
	}
}

func TestWorkersNotes(t *testing.T) {
	t.Parallel()

	const left = " leads to more than one server: the memory, slots and load time that one of them reports are left out. Give each with --url to have these."
	for _, c := range []struct {
		several []bool // by worker
		want    []string
	}{
		{[]bool{false, false}, nil},
		{[]bool{false, true}, []string{"The URL of b" + left}},
		{[]bool{true, false, true}, []string{"The URL of a and of c" + left}},
		{[]bool{true, true, true, false}, []string{"The URL of a and of 2 others" + left}},
	} {
		r := Build(some(func(r *metadata.Run) {
			for i, several := range c.several {
				r.Workers = append(r.Workers, metadata.Worker{
					Name: string(rune('a' + i)), Requests: new(int64(50)), SeveralServers: several,
				})
			}
		}), Options{})

		i := slices.IndexFunc(r.Sections, func(s Section) bool { return s.ID == "workers" })
		if got := r.Sections[i].Notes; !slices.Equal(got, c.want) {
			t.Errorf("several servers at %v:\n got %q\nwant %q", c.several, got, c.want)
		}
	}
}

func TestNextCommand(t *testing.T) {
	t.Parallel()

	run := func(failed int, attended bool) *metadata.Run {
		return some(func(r *metadata.Run) {
			r.Results.FailureCount = failed
			r.Test.InputFiles, r.Test.OutputFile = []string{"/in/my prompts.jsonl"}, "/out/it's.jsonl.zst"
			r.Manifest = &proto.Manifest{Policy: proto.RunPolicy{Attended: attended}}
		})
	}
	for _, c := range []struct {
		run  *metadata.Run
		o    Options
		want []string
	}{
		{run(0, true), Options{}, []string{`promptmill verify '/in/my prompts.jsonl' '/out/it'\''s.jsonl.zst'`}},
		{run(1, true), Options{},
			[]string{`promptmill run '/in/my prompts.jsonl' -o '/out/it'\''s.jsonl.zst' --retry`}},
		{run(1, false), Options{}, []string{`promptmill retry this`}},
		{some(func(r *metadata.Run) { // a batch of the batch API
			*r = *run(1, true)
			r.Manifest.Policy.Batch = true
		}), Options{}, []string{`promptmill retry this`}},
		{some(nil), Options{Path: "a.meta.json", BaselinePath: "b.meta.json", Baseline: some(nil)},
			[]string{"promptmill compare a.meta.json b.meta.json"}},
		{some(nil), Options{Path: "a.meta.json"}, []string{"promptmill report a.meta.json --baseline META"}},
		{some(nil), Options{}, nil},
	} {
		var got []string
		for _, command := range Build(c.run, c.o).Next {
			got = append(got, command.Line)
		}

		if !slices.Equal(got, c.want) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
