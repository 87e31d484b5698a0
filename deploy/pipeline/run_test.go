package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/sim"
)

// newConfig returns the configuration of a run of the given number of requests at a simulated
// server.
func newConfig(t *testing.T, requests int, server sim.Config) Config {
	t.Helper()

	server.Models = []string{"m"}
	s := httptest.NewServer(sim.New(server))
	t.Cleanup(s.Close)

	dir := t.TempDir()
	var text strings.Builder
	for i := range requests {
		fmt.Fprintf(&text, "{\"custom_id\":\"q-%d\",\"messages\":[{\"role\":\"user\",\"content\":\"question %d\"}]}\n",
			i, i)
	}

	input := filepath.Join(dir, "in.jsonl")
	must(t, os.WriteFile(input, []byte(text.String()), 0o600))

	return Config{
		Inputs:    []string{input},
		Output:    filepath.Join(dir, "out.jsonl.zst"),
		ServerURL: s.URL,
		State:     filepath.Join(dir, "state"),
	}
}

// A run whose context ends reports it, and is resumed by the next call with the same configuration,
// and by no other.
func TestRunResumes(t *testing.T) {
	t.Parallel()

	const requests = 200
	cfg := newConfig(t, requests, sim.Config{Slots: 8, TTFT: 20 * time.Millisecond})
	cfg.Workers.Concurrency = 4

	ctx, stop := context.WithCancelCause(t.Context())
	cause := errors.New("the program ends")
	cfg.Hooks.Progress = func(s progress.Sample) {
		if s.Done > 0 {
			stop(cause)
		}
	}

	_, err := Run(ctx, cfg)
	if !errors.Is(err, ErrInterrupted) || !errors.Is(err, cause) || exit.Code(err) != exit.CodeInterrupted {
		t.Fatalf("an interrupted run: %v", err)
	}

	other := newConfig(t, requests+1, sim.Config{})
	other.Output, other.State, other.Hooks = cfg.Output, cfg.State, Hooks{}
	if _, err := Run(t.Context(), other); !errors.Is(err, ErrOtherRun) ||
		!strings.Contains(err.Error(), "made from another input") {
		t.Errorf("another input: %v", err)
	}

	var started progress.Start
	var last progress.Sample
	var counts func() collector.Progress
	cfg.Hooks = Hooks{
		Start:      func(s progress.Start) { started = s },
		Progress:   func(s progress.Sample) { last = s },
		Collecting: func(c func() collector.Progress) { counts = c },
	}

	res, err := Run(t.Context(), cfg)
	must(t, err)

	if res.Answered != requests || res.Failed != 0 || res.WasComplete || res.Metadata.TestID != res.Run {
		t.Errorf("the result: %+v", res)
	}

	if !last.Final || last.Done != requests || counts().Durable != requests {
		t.Errorf("the last sample: %+v, the counts: %+v", last, counts())
	}

	if lines := started.Lines(); !strings.Contains(lines[0].String(), "resuming run "+res.Run) {
		t.Errorf("lines for a person: %q", lines)
	}

	if again, err := Run(t.Context(), cfg); err != nil || !again.WasComplete || again.Run != res.Run {
		t.Errorf("once more: %+v, %v", again, err)
	}

	if _, err := os.Stat(filepath.Join(cfg.State, "history.jsonl")); err != nil {
		t.Error(err)
	}
}

// Servers that the caller has opened stay open, and two runs use them one after the other. With
// Forget, a run does not begin with the number of requests in flight that the one before has found.
func TestRunOnOpenedServers(t *testing.T) {
	t.Parallel()

	cfg := newConfig(t, 300, sim.Config{Slots: 8, TTFT: 5 * time.Millisecond})
	servers, err := modelservers.Open(t.Context(), modelservers.Config{URLs: []string{cfg.ServerURL}})
	must(t, err)
	defer servers.Close()

	cfg.Opened, cfg.ServerURL = servers, ""
	for _, forget := range []bool{true, false} {
		cfg.Output = filepath.Join(t.TempDir(), "out.jsonl.zst")
		cfg.Workers.Forget = forget
		res, err := Run(t.Context(), cfg)
		must(t, err)

		if res.Answered != 300 {
			t.Errorf("%d answered, want 300", res.Answered)
		}

		w := cfg.Workers.newConfig(servers, servers.Servers[0], cfg.State, zerolog.Nop())
		if forgets := w.Memory == nil; forgets != forget {
			t.Errorf("forget %t: the worker forgets: %t", forget, forgets)
		}
	}
}

// A second run for the same output is refused while the first is at work.
func TestRunLocksItsOutput(t *testing.T) {
	t.Parallel()

	cfg := newConfig(t, 50, sim.Config{Slots: 1, TTFT: 50 * time.Millisecond})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()

	var second error
	cfg.Hooks.Collecting = func(func() collector.Progress) {
		again := cfg
		again.Hooks = Hooks{}
		_, second = Run(t.Context(), again)
		stop()
	}

	if _, err := Run(ctx, cfg); !errors.Is(err, ErrInterrupted) {
		t.Error(err)
	}

	if second == nil || !strings.Contains(second.Error(), "another promptmill is working on this output") {
		t.Errorf("the second run: %v", second)
	}
}

// An error of the configuration names the field.
func TestConfigValidate(t *testing.T) {
	t.Parallel()

	good := Config{Inputs: []string{"in.jsonl"}, Output: "out"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}

	for field, change := range map[string]func(*Config){
		"Config.Inputs is required": func(c *Config) { c.Inputs = nil },
		"Config.Inputs: \"-\"":      func(c *Config) { c.Inputs = []string{"-", "x"} },
		"Config.Output is required": func(c *Config) { c.Output = "" },
		"Config.ServerURL excludes": func(c *Config) {
			c.ServerURL, c.Servers.URLs = "http://a:1", []string{"http://b:1"}
		},
		"Config.Opened excludes": func(c *Config) {
			c.Opened, c.ServerURL = &modelservers.Set{}, "http://a:1"
		},
		"Config.URLs":   func(c *Config) { c.ServerURL = "ftp://a" },
		"Config.APIKey": func(c *Config) { c.Servers.APIKey = "a\nb" },
		"Config.Sim excludes": func(c *Config) {
			c.Servers.Sim, c.Servers.Commands = &sim.Config{}, []modelservers.Command{{Script: "x"}}
		},
		"Config.Commands excludes Config.URLs": func(c *Config) {
			c.Servers.Commands, c.Servers.URLs = []modelservers.Command{{Script: "x"}}, []string{"http://a:1"}
		},
		"Config.FlushInterval":      func(c *Config) { c.FlushInterval = -1 },
		"Config.Settings.ShardSize": func(c *Config) { c.Settings.ShardSize = proto.MaxShardSize + 1 },
		"Config.Settings.Model excludes": func(c *Config) {
			c.Settings.Model, c.Settings.OverrideModel = "a", "b"
		},
		"Config.Policy.MaxTokens is -1, must not": func(c *Config) { c.Policy.MaxTokens = -1 },
		"Config.Policy.FailIf: \"\" is no metric": func(c *Config) { c.Policy.FailIf = make([]proto.Threshold, 1) },
		"Config.RunID":                           func(c *Config) { c.RunID = "a b" },
		"WorkerConfig.Attempts is -1":            func(c *Config) { c.Workers.Attempts = -1 },
		"WorkerConfig.Grace is -1ns, must not":   func(c *Config) { c.Workers.Grace = -1 },
		"WorkerConfig.MaxConcurrency is -1, mus": func(c *Config) { c.Workers.MaxConcurrency = -1 },
	} {
		c := good
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}

		if _, err := Run(t.Context(), c); err == nil {
			t.Errorf("%s: Run takes it", field)
		}
	}
}

// So does an error of the other configurations.
func TestOtherConfigsValidate(t *testing.T) {
	t.Parallel()

	l := &busconn.Connection{}
	for want, err := range map[string]error{
		"CollectConfig.Bus is required":     CollectConfig{}.Validate(),
		"CollectConfig.Run is required":     CollectConfig{Bus: l}.Validate(),
		"CollectConfig.Output is \"o\"":     CollectConfig{Bus: l, Run: "r", Output: "o"}.Validate(),
		"CollectConfig.State is required":   CollectConfig{Bus: l, Run: "r", Output: "/o"}.Validate(),
		"ServeConfig.Dir is \"\"":           ServeConfig{}.Validate(),
		"ServeConfig.State is required":     ServeConfig{Dir: "/d"}.Validate(),
		"ServeConfig.FlushInterval is -1ns": ServeConfig{Dir: "/d", State: "/s", FlushInterval: -1}.Validate(),
		"SubmitConfig.Bus is required":      SubmitConfig{}.Validate(),
		"SubmitConfig.Inputs is required":   SubmitConfig{Bus: l}.Validate(),
		"SubmitConfig.Inputs: \"-\"":        SubmitConfig{Bus: l, Inputs: []string{"x", "-"}}.Validate(),
		"SubmitConfig.State is required":    SubmitConfig{Bus: l, Inputs: []string{"-"}}.Validate(),
		"WorkersConfig.Bus is required":     WorkersConfig{}.Validate(),
		"WorkersConfig.Servers is require":  WorkersConfig{Bus: l}.Validate(),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
