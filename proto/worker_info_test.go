package proto

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestReadWorker(t *testing.T) {
	t.Parallel()

	const good = `{"id":"abcd2345","name":"gpu1","host":"h","models":["m"],"slots":4,"concurrency":8,"in_flight":3,"done":5,"requests_per_second":1.5,"latency_seconds":2,
		"gpu":[{"index":0,"name":"H200","uuid":"GPU-1","memory_bytes":1,"energy_joules":5}],"load_seconds":92,"model_load":{"download_seconds":0,"weights_seconds":30.5},"runs":{"r":{"requests":5,"energy_joules":4,"rerun":6,"discarded_attempts":7,"discarded_tokens":8,"discarded_seconds":9.5}},"context_length":{"m":4096},
		"departure":{"reason":"r","slots":21,"used_seconds":22.5,"runs":{"d":{"finished":23,"thrown_away_seconds":24.5}}},
		"sent_at":"2026-01-02T03:04:05Z","samples":[{"at":"2026-01-02T03:04:04Z","in_flight":11,"limit":12,"runs":{"s":13}}],
		"server_latency":{"time_to_first_token":{"bounds":[0.5,2],"counts":[1,20,3],"sum":14.5}}}`
	for _, tt := range []struct{ name, old, new string }{
		{"no JSON", `{"id"`, `"id"`},
		{"another id", "abcd2345", "abcd2346"},
		{"a name without end", `"gpu1"`, `"` + strings.Repeat("x", 300) + `"`},
		{"a host without end", `"h"`, `"` + strings.Repeat("x", 5000) + `"`},
		{"too long a list of models", `["m"]`, `["m"` + strings.Repeat(`,"m"`, 10_000) + `]`},
		{"too much", `"h"`, `"` + strings.Repeat("x", 1<<20) + `"`},
		{"slots below zero", `"slots":4`, `"slots":-4`},
		{"slots without end", `"slots":4`, `"slots":9223372036854775807`},
		{"concurrency below zero", `"concurrency":8`, `"concurrency":-8`},
		{"concurrency without end", `"concurrency":8`, `"concurrency":9223372036854775807`},
		{"in flight below zero", `"in_flight":3`, `"in_flight":-3`},
		{"done below zero", `"done":5`, `"done":-5`},
		{"an impossible rate", `1.5`, `1e300`},
		{"no number", `1.5`, `NaN`},
		{"latency below zero", `"latency_seconds":2`, `"latency_seconds":-2`},
		{"a load time below zero", `"load_seconds":92`, `"load_seconds":-92`},
		{"a part of the load time below zero", `30.5`, `-30.5`},
		{"a part of the load time without end", `"download_seconds":0`, `"download_seconds":1e300`},
		{"an impossible run id", `"r":`, `"a.b":`},
		{"requests below zero", `"requests":5`, `"requests":-5`},
		{"energy of a run below zero", `"energy_joules":4`, `"energy_joules":-4`},
		{"energy of a card without end", `"energy_joules":5`, `"energy_joules":1e200`},
		{"memory below zero", `"memory_bytes":1`, `"memory_bytes":-1`},
		{"a context below zero", `4096`, `-1`},
		{"requests run again below zero", `"rerun":6`, `"rerun":-6`},
		{"attempts below zero", `"discarded_attempts":7`, `"discarded_attempts":-7`},
		{"tokens below zero", `"discarded_tokens":8`, `"discarded_tokens":-8`},
		{"seconds below zero", `9.5`, `-9.5`},
		{"a reading below zero", `"in_flight":11`, `"in_flight":-11`},
		{"a reading without end", `"in_flight":11`, `"in_flight":9223372036854775807`},
		{"a limit below zero", `"limit":12`, `"limit":-12`},
		{"a reading of an impossible run", `"s":13`, `"a.b":13`},
		{"a reading of a run below zero", `"s":13`, `"s":-13`},
		{"readings without end", `"samples":[`, `"samples":[` + strings.Repeat(`{"in_flight":1},`, 600)},
		{"a departure of slots below zero", `"slots":21`, `"slots":-21`},
		{"a departure that used less than nothing", `22.5`, `-22.5`},
		{"a departure that used time without end", `22.5`, `1e300`},
		{"a departure from an impossible run", `"d":{`, `"a.b":{`},
		{"a departure with requests below zero", `"finished":23`, `"finished":-23`},
		{"a departure with a time below zero", `24.5`, `-24.5`},
		{"a departure for a reason without end", `"reason":"r"`, `"reason":"` + strings.Repeat("r", maxText+1) + `"`},
		{"bounds that descend", `[0.5,2]`, `[2,0.5]`},
		{"a bound twice", `[0.5,2]`, `[2,2]`},
		{"a bound below zero", `[0.5,2]`, `[-0.5,2]`},
		{"a bound without end", `[0.5,2]`, `[0.5,1e308]`},
		{"counts whose sum overflows", `[1,20,3]`, `[1,9223372036854775807,3]`},
		{"too few counts", `[1,20,3]`, `[1,20]`},
		{"a count below zero", `[1,20,3]`, `[1,-20,3]`},
		{"a sum below zero", `14.5`, `-14.5`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if w, err := ParseWorkerInfo("worker.abcd2345", []byte(good)); err != nil || w.Name != "gpu1" {
				t.Fatalf("ParseWorkerInfo = %+v, %v", w, err)
			}

			if w, err := ParseWorkerInfo(
				"worker.abcd2345", []byte(strings.Replace(good, tt.old, tt.new, 1)),
			); !errors.Is(err, ErrFormat) {
				t.Errorf("ParseWorkerInfo = %+v, %v; want ErrFormat", w, err)
			}
		})
	}

	// A worker without an id is known by its name.
	if _, err := ParseWorkerInfo("worker.gpu-1", []byte(`{"name":"gpu 1"}`)); err != nil {
		t.Errorf("ParseWorkerInfo: %v", err)
	}

	if _, err := ParseWorkerInfo("worker.gpu2", []byte(`{"name":"gpu1"}`)); !errors.Is(err, ErrFormat) {
		t.Errorf("under the name of another: %v", err)
	}
}

// The numbers of each accepted announcement can be added up.
func FuzzReadWorker(f *testing.F) {
	f.Add("worker.a", []byte(
		`{"id":"a","name":"gpu1","concurrency":8,"gpu":[{"index":0}],"runs":{"r":{"requests":5}}}`,
	))

	f.Add("worker.a", []byte(
		`{"id":"a","name":"gpu1","runs":{"r":{"rerun":1,"discarded_attempts":2,"discarded_tokens":3,"discarded_seconds":4}},`+
			`"sent_at":"2026-01-02T03:04:05Z","samples":[{"at":"2026-01-02T03:04:05Z","in_flight":2,"limit":4,"runs":{"r":2}}],`+
			`"server_latency":{"time_to_first_token":{"bounds":[1,2],"counts":[1,2,3],"sum":9},"time_per_output_token":null}}`,
	))

	f.Add("worker.a", []byte(
		`{"id":"a","departure":{"reason":"spot","noticed_at":"2026-01-02T03:04:05Z","deadline":"2026-01-02T03:06:05Z",`+
			`"slots":8,"used_seconds":9,"runs":{"r":{"finished":1,"handed_back":2,"thrown_away":3}}}}`,
	))

	f.Fuzz(func(t *testing.T, key string, value []byte) {
		w, err := ParseWorkerInfo(key, value)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("ParseWorkerInfo: %v", err)
			}
			return
		}

		if w.Key() != key || w.Slots < 0 || w.Concurrency < 0 || w.InFlight < 0 || w.Done < 0 || !(w.PerSecond >= 0) ||
			len(w.Name) > MaxWorkerName {
			t.Fatalf("ParseWorkerInfo = %+v", w)
		}

		if _, err := json.Marshal(w); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzReadCollector(f *testing.F) {
	f.Add([]byte(`{"host":"h","output":"/o"}`))
	f.Add([]byte(`{"host":"h","output":"/o","progress":{"done":3,"failed":1,"requests_per_second":1.5}}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		if c, err := ParseCollectorLease(value); err != nil && !errors.Is(err, ErrFormat) || len(c.Output) > maxText {
			t.Fatalf("ReadCollector = %+v, %v", c, err)
		}
	})
}

func TestLabels(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name  string
		pairs [][2]string
		want  []string
	}{
		{"names of their own", [][2]string{{"a", "k3x9aaaa"}, {"b", "k3x9bbbb"}}, []string{"a", "b"}},
		{"two of one name", [][2]string{
			{"a", "k3x9aaaa"},
			{"b", "y"},
			{"a", "m2p4bbbb"},
		}, []string{"a (k3x9)", "b", "a (m2p4)"}},
		{"ids that begin alike", [][2]string{
			{"a", "k3x9aaaa"},
			{"a", "k3x9bbbb"},
			{"a", "m2p4bbbb"},
		}, []string{"a (k3x9aaaa)", "a (k3x9bbbb)", "a (m2p4)"}},
		{"one without an id", [][2]string{{"a", ""}, {"a", "m2p4bbbb"}}, []string{"a", "a (m2p4)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := Labels(len(tt.pairs), func(i int) (name, id string) { return tt.pairs[i][0], tt.pairs[i][1] })
			if !slices.Equal(got, tt.want) {
				t.Errorf("labels %q, want %q", got, tt.want)
			}
		})
	}
}
