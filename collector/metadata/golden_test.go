package metadata_test

import (
	"encoding/json"
	"flag"
	"math"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

var update = flag.Bool("update", false, "write the golden files")

// load has the phases of a load of 48.2 s.
func load() *proto.ModelLoad {
	return &proto.ModelLoad{
		DownloadSeconds: new(0.0),
		WeightsSeconds:  new(21.5),
		CompileSeconds:  new(12.25),
		GraphsSeconds:   new(4.0),
	}
}

// rich is a run that has all there is: two workers, failures, retries, an interruption.
func rich() *metadata.Run {
	began := time.Date(2026, 11, 3, 8, 30, 0, 0, time.UTC)
	series := &metadata.Series{Start: began, IntervalSeconds: 2}
	requests := int64(0)
	for i := range 260 {
		var p metadata.Point
		if gap := i >= 150 && i < 180; !gap {
			busy := min(1, float64(i)/12, float64(259-i)/10)
			wave := 1 + 0.15*math.Sin(float64(i)/9) + 0.1*math.Sin(float64(i)*1.7)
			n := int64(math.Round(11 * busy * wave))
			p = metadata.Point{
				Requests:         n,
				PromptTokens:     790 * n,
				CompletionTokens: 310 * n,
				InFlight:         new(int64(math.Round(96 * busy))),
				MemoryUsedBytes:  new(int64(70<<30) + int64(busy*float64(12<<30))),
			}
			if i%37 == 5 {
				p.Failed = min(n, 1)
			}
		}

		requests += p.Requests
		series.Add(began.Add(time.Duration(2*i)*time.Second), p)
	}

	const failed = 7
	in, out := 790*requests, 310*requests
	worked := 455.0
	gpu := func(index int, name string, watts, joules float64) metadata.GPU {
		return metadata.GPU{
			Index: index, Name: name, MemoryBytes: new(int64(80 << 30)), MemoryUsedBytesMax: new(int64(79 << 30)),
			PowerWattsMean: &watts, PowerReadings: 450, EnergyJoules: &joules,
		}
	}

	first := requests * 62 / 100
	errorFile := "/data/tickets.results.errors.jsonl.zst"
	m := &proto.Manifest{
		Schema:    proto.ManifestSchema,
		Run:       "20261103-083000-k7f2",
		State:     proto.StateCompleted,
		CreatedAt: began,
		EndedAt:   new(began.Add(520 * time.Second)),
		Policy:    proto.RunPolicy{KeepSeconds: 86400, Attended: true},
		Input: proto.Input{
			Files:    []proto.File{{Path: "/data/tickets.jsonl", Bytes: 9 << 20, ModTime: began.Add(-time.Hour)}},
			SHA256:   "5f1d",
			Bytes:    9 << 20,
			Requests: int(requests),
		},
		Settings: proto.Settings{GroupByPrefix: true, ShardSize: 32, ShardBytes: 256 << 10},
	}

	return &metadata.Run{
		SchemaVersion: metadata.Version,
		TestID:        m.Run,
		Timestamp:     began,
		Platform:      "vLLM 0.11.2",
		Model:         "Qwen/Qwen3-8B",
		Status:        proto.StateCompleted,
		Config: metadata.Config{
			MaxModelLen:          new(32768),
			GPUMemoryUtilization: new(0.9),
			ShardSize:            32,
			GroupByPrefix:        true,
			Sampling: map[string]proto.Parameter{
				"temperature": {
					Requests: int(requests),
					Values:   []json.RawMessage{json.RawMessage("0"), json.RawMessage("0.7")},
				},
				"max_tokens": {Requests: 100, Values: []json.RawMessage{json.RawMessage("512")}},
			},
		},
		Test: metadata.Test{
			NumRequests: int(requests),
			InputFile:   "/data/tickets.jsonl",
			InputFiles:  []string{"/data/tickets.jsonl"},
			InputSHA256: "5f1d3c9be0a7425f9d1f6f0a4b7c2e8d90135a67bce2468f13579bdf02468ace",
			InputBytes:  new(int64(9 << 20)),
			OutputFile:  "/data/tickets.results.jsonl.zst",
			ErrorFile:   &errorFile,
		},
		Results: metadata.Results{
			SuccessCount:             int(requests) - failed,
			FailureCount:             failed,
			ModelLoadTimeSeconds:     new(48.2),
			ModelLoad:                load(),
			InferenceTimeSeconds:     worked,
			TotalTimeSeconds:         520,
			IdleTimeSeconds:          new(5.0),
			LostTimeSeconds:          new(60.0),
			PromptTokens:             &in,
			CachedPromptTokens:       new(in * 5 / 8),
			CompletionTokens:         &out,
			TotalTokens:              new(in + out),
			ThroughputTokensPerSec:   metadata.Per(float64(in+out), worked),
			ThroughputRequestsPerSec: metadata.Per(float64(requests), worked),
			InputTokensPerSec:        metadata.Per(float64(in), worked),
			OutputTokensPerSec:       metadata.Per(float64(out), worked),
			PeakOutputTokensPerSec:   new(2170.0),
			PeakRequestsPerSec:       new(7.0),
			PeakConcurrentRequests:   new(int64(96)),
			MeanConcurrentRequests:   new(84.5),
			LatencySeconds:           &metadata.Distribution{Mean: 15.2, P50: 14.1, P90: 24.9, P99: 41.3, Max: 88.7},
			LastAttemptSeconds:       &metadata.Distribution{Mean: 14.6, P50: 13.9, P90: 23.0, P99: 37.4, Max: 71.2},
			LatencyHistogram: &metadata.Histogram{
				Bounds: []float64{2, 5, 10, 20, 50, 88.7},
				Counts: []int64{0, requests / 10, requests / 5, requests / 2, requests - 4*requests/5 - 9, 2},
			},
			PromptTokensHistogram: &metadata.Histogram{
				Bounds: []float64{100, 1000, 8120},
				Counts: []int64{0, requests / 2, requests - requests/2 - 7},
			},
			CompletionTokensHistogram: &metadata.Histogram{
				Bounds: []float64{50, 300, 512},
				Counts: []int64{0, requests / 2, requests - requests/2 - 7},
			},
			TimeToFirstTokenSeconds: &metadata.ServerDistribution{
				Count:  requests,
				Mean:   0.31,
				P50:    0.24,
				P90:    0.55,
				P99:    1.9,
				Source: "vllm:time_to_first_token_seconds",
			},
			TimePerOutputTokenSeconds: &metadata.ServerDistribution{
				Count:  out,
				Mean:   0.046,
				P50:    0.044,
				P90:    0.061,
				P99:    0.098,
				Source: "vllm:inter_token_latency_seconds",
			},
			Wasted: &metadata.Wasted{
				DiscardedAttempts: 61,
				DiscardedSeconds:  402.5,
				DiscardedTokens:   9120,
				RepeatedRequests:  12,
				DuplicateTokens:   930,
				CutOffAnswers:     183,
				TokenShare:        metadata.Per(10050, float64(out)+10050),
				TimeShare:         new(0.0104),
			},
			PromptTokensPerRequest:     &metadata.Distribution{Mean: 790, P50: 741, P90: 1203, P99: 2210, Max: 8120},
			CompletionTokensPerRequest: &metadata.Distribution{Mean: 310, P50: 287, P90: 512, P99: 512, Max: 512},
			Slowest: []metadata.Outlier{
				{CustomID: "ticket-01882", LatencySeconds: 88.7, CompletionTokens: new(int64(512))},
				{
					CustomID:         `<script>alert("1")</script>|` + "`x`\n\u202e",
					LatencySeconds:   71.2,
					CompletionTokens: new(int64(498)),
				},
			},
			Longest: []metadata.Outlier{
				{
					CustomID:         "a-custom-id-that-is-very-long-because-it-has-the-customer-the-product-and-the-title-of-the-ticket-2026-11-03",
					LatencySeconds:   61.0,
					CompletionTokens: new(int64(512)),
				},
			},
			EnergyJoules:              new(410_000.0),
			JoulesPer1000OutputTokens: metadata.Per(410_000_000, float64(out)),
			Attempts:                  requests + 61,
			AttemptsHistogram:         map[string]int64{"1": requests - 50, "2": 42, "3": 5, "10": 3},
			AttemptFailures:           map[string]int64{"503": 48, "timeout": 13},
			FinishReasons:             map[string]int64{"stop": requests - 190, "length": 183},
			Failures:                  map[string]int64{"context_length": 5, "poison": 2},
			FailureExamples:           map[string]string{"context_length": "ticket-00412", "poison": "ticket-01001"},
			FailureDetails: []metadata.FailureDetail{
				{
					Cause:    "context_length",
					Count:    5,
					Message:  `This model's maximum context length is 32768 tokens. <b>See "--max-model-len"</b>`,
					CustomID: "ticket-00412",
				},
				{
					Cause:    "poison",
					Count:    2,
					Message:  "3 model servers died of it",
					CustomID: "ticket-01001",
				},
			},
			DuplicatesDropped: 3,
			Redeliveries:      new(int64(4)),
			Interruptions:     1,
			InterruptedAt: []metadata.Interruption{
				{From: began.Add(300 * time.Second), To: began.Add(360 * time.Second)},
			},
			OutputBytesUncompressed: 6_300_000,
			OutputBytes:             1_210_000,
			CompressionRatio:        new(6_300_000.0 / 1_210_000),
		},
		Workers: []metadata.Worker{
			{
				Name:                 "box-a",
				Host:                 new("box-a"),
				Version:              new("v0.4.0"),
				Platform:             new("vLLM 0.11.2"),
				Models:               []string{"Qwen/Qwen3-8B"},
				Requests:             &first,
				GPUs:                 []metadata.GPU{gpu(0, "NVIDIA H100 80GB HBM3", 540, 250_000)},
				EnergyJoules:         new(250_000.0),
				ModelLoadTimeSeconds: new(48.2),
				ModelLoad:            load(),
				MemoryBytes: proto.ServerMemory{
					Weights: new(int64(15 << 30)),
					KVCache: new(int64(52 << 30)),
					Graphs:  new(int64(1 << 30)),
				},
				Sessions: []metadata.WorkerSession{{
					Since:        began.Add(-time.Hour),
					Version:      new("v0.4.0"),
					Platform:     new("vLLM 0.11.2"),
					Requests:     &first,
					EnergyJoules: new(250_000.0),

					Rerun:             12,
					DiscardedAttempts: 40,
					DiscardedTokens:   9120,
					DiscardedSeconds:  300.25,
				}},
			},
			{
				Name:         "box-b",
				Platform:     new("vLLM 0.11.2"),
				Requests:     new(requests - first),
				EnergyJoules: new(160_000.0),
				GPUs:         []metadata.GPU{gpu(0, "NVIDIA L40S", 170, 80_000), gpu(1, "NVIDIA L40S", 172, 80_000)},
				MemoryBytes:  proto.ServerMemory{Weights: new(int64(15 << 30))},
				Sessions:     []metadata.WorkerSession{{Since: began.Add(-time.Hour), Requests: new(requests - first)}},
			},
		},
		Series:   series,
		Versions: metadata.Versions{Promptmill: "v0.4.0", Go: "go1.26.8"},
		Manifest: m,
	}
}

func TestMetadataIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()

	const path = "testdata/rich.meta.json"
	want := rich()
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}

	if *update {
		if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	got, err := metadata.Read(path)
	if err != nil {
		t.Fatal(err)
	}

	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s; -update rewrites it:\n%s", path, d)
	}
}
