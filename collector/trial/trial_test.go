package trial

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/proto"
)

var opened = time.Date(2026, 11, 3, 8, 30, 0, 0, time.UTC)

// spec describes the run of a variant for a test.
type spec struct {
	model   string
	rate    float64 // requests per second
	seconds int
	failed  float64 // part of the requests that fail
	noise   float64 // standard deviation of a second over the rate
	tokens  int64   // of an answer
	right   float64 // part of the answers; 0: not judged
}

// steadyRun makes the metadata of a run at a steady rate with noise that is the same each time.
func steadyRun(s spec) *metadata.Run {
	series := &metadata.Series{Start: opened, IntervalSeconds: 1}
	run := &metadata.Run{
		SchemaVersion: 1,
		TestID:        "run-" + s.model,
		Timestamp:     opened,
		Platform:      "vLLM 0.32.0",
		Model:         s.model,
		Status:        proto.StateCancelled,
		Series:        series,
	}

	var total, failed int64
	carry := 0.0
	for i := range s.seconds {
		wave := math.Sin(float64(i)*12.9898) * 43758.5453
		done := s.rate * (1 + s.noise*(2*(wave-math.Floor(wave))-1)*math.Sqrt(3))
		if i >= s.seconds-3 { // what was in flight ends
			done = s.rate / 2
		}
		n := int64(done + carry)
		carry += done - float64(n)
		bad := int64(float64(n) * s.failed)
		total, failed = total+n, failed+bad
		series.Add(opened.Add(time.Duration(i)*time.Second), metadata.Point{
			Requests: n,
			Failed:   bad,
			InFlight: new(int64(s.rate)),
		})
	}

	answered := total - failed
	r := &run.Results
	r.SuccessCount, r.FailureCount = int(answered), int(failed)
	r.InferenceTimeSeconds, r.TotalTimeSeconds = float64(s.seconds), float64(s.seconds)
	r.PromptTokens, r.CompletionTokens = new(answered*790), new(answered*s.tokens)
	r.ModelLoadTimeSeconds = new(48.2)
	r.ModelLoad = &proto.ModelLoad{DownloadSeconds: new(0.0), WeightsSeconds: new(9.3), CompileSeconds: new(21.5)}
	r.LatencySeconds = &metadata.Distribution{Mean: 1, P50: 0.9, P90: 1.5, P99: 2.5, Max: 3}
	r.CompletionTokensPerRequest = &metadata.Distribution{Mean: float64(s.tokens), P99: float64(2 * s.tokens)}
	r.MeanConcurrentRequests = new(s.rate)
	r.EnergyJoules = new(300 * float64(s.seconds))
	r.FinishReasons = map[string]int64{"stop": answered - 3, "length": 3}
	if failed > 0 {
		r.Failures = map[string]int64{"http_500": failed}
	}

	run.Test.NumRequests, run.Test.InputSHA256 = 20_000, "5a3e"
	run.Config.MaxModelLen, run.Config.Concurrency = new(4096), new(256)
	run.Workers = []metadata.Worker{{
		Name:     "local",
		Requests: &total,
		MemoryBytes: proto.ServerMemory{
			Weights: new(int64(9 << 30)),
			KVCache: new(int64(40 << 30)),
			Graphs:  new(int64(1 << 30)),
		},
		GPUs: []metadata.GPU{{
			Name:               "NVIDIA H200",
			UUID:               "GPU-1",
			MemoryBytes:        new(int64(139 << 30)),
			MemoryUsedBytesMax: new(int64(62 << 30)),
		}},
	}}

	text, err := json.Marshal(run)
	if err != nil {
		panic(err)
	}

	parsed, err := metadata.Parse(text) // fills in the rates
	if err != nil {
		panic(err)
	}

	return parsed
}

// newVariant makes a measured variant.
func newVariant(name string, s spec) Variant {
	v := Variant{
		Name:      name,
		Model:     s.model,
		Settings:  []Setting{{Name: "seqs", Value: "256"}},
		Command:   fmt.Sprintf("vllm serve %s --port {port} --max-num-seqs 256", s.model),
		State:     Measured,
		StartedAt: opened,
		EndedAt:   opened.Add(time.Duration(s.seconds) * time.Second),
		Meta:      "tickets.trial/" + s.model + ".meta.json",
		Run:       steadyRun(s),
	}
	if s.right > 0 {
		n := v.Run.Results.SuccessCount + v.Run.Results.FailureCount
		v.Quality = &quality.Quality{
			Requests:   n,
			Schema:     quality.NewShare(n*99/100, n),
			Expected:   quality.NewShare(int(float64(n)*s.right), n),
			Characters: 412,
			Empty:      1,
		}
	}

	return v
}

// newTrial is a trial of variants that is over.
func newTrial(variants ...Variant) Trial {
	return Trial{
		Name:      "tickets",
		CreatedAt: opened,
		UpdatedAt: opened.Add(time.Hour),
		Done:      true,
		Input: Input{
			Files:    []string{"tickets.jsonl"},
			Requests: 200_000,
			Sample:   20_000,
			SHA256:   "5a3e",
		},
		Precision: 0.05,
		Budget:    10 * time.Minute,
		Variants:  variants,
	}
}

var (
	gemma = spec{
		model:   "google/gemma-3-4b-it",
		rate:    48,
		seconds: 120,
		noise:   0.1,
		tokens:  205,
		right:   0.90,
	}
	qwen = spec{
		model:   "Qwen/Qwen3-4B-Instruct-2507",
		rate:    30,
		seconds: 120,
		noise:   0.1,
		tokens:  228,
		right:   0.92,
	}
)
