package tune

import (
	"bytes"
	stdflag "flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/sweep"
	"github.com/promptmill/promptmill/worker/sim"
)

// The stand-ins of model servers start the test binary as promptmill sim.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "sim" {
		if err := serveSim(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}

	os.Exit(m.Run())
}

// serveSim is a simulated model server until a signal.
func serveSim(args []string) error {
	set := stdflag.NewFlagSet("sim", stdflag.ContinueOnError)
	flavour := set.String("sim-flavour", "vllm", "")
	listen := set.String("listen", "", "")
	slots := set.Int("sim-slots", 1, "")
	knee := set.Int("sim-knee", 0, "")
	tpot := set.Duration("sim-tpot", 0, "")
	tokens := set.Int("sim-tokens", 1, "")
	if err := set.Parse(args); err != nil {
		return err
	}

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)

	server, err := modelservers.StartSim(*listen, sim.New(sim.Config{
		Flavour: sim.Flavour(*flavour),
		Slots:   *slots,
		Knee:    *knee,
		TPOT:    *tpot,
		TTFT:    *tpot,
		Tokens:  *tokens,
		Spread:  0.3,
	}))
	if err != nil {
		return err
	}
	defer server.Stop()

	<-stop

	return nil
}

// A whole tuning of a server that is twice as fast with 512 sequences as with its 256, and no faster with 1,024. The
// user's command has all other flags, which are left alone.
func TestTuning(t *testing.T) {
	t.Parallel()

	if testing.Short() {
		t.Skip("a tuning takes a minute")
	}

	folder, err := filepath.Abs("testdata/bin")
	if err != nil {
		t.Fatal(err)
	}

	const others = "--max-num-batched-tokens 8192 --kv-cache-dtype auto --performance-mode balanced"
	command := fmt.Sprintf("PROMPTMILL='%s' '%s/vllm' serve m --port {port} %s", os.Args[0], folder, others)
	s, err := New(sweep.Spec{Command: command, Model: "m"}, 0)
	if err != nil {
		t.Fatal(err)
	}

	var begun []string
	dir := t.TempDir()
	result, err := sweep.Run(t.Context(), sweep.Config{
		Inputs:    []string{writeInput(t, dir, 20_000)},
		Output:    filepath.Join(dir, "tickets"),
		Strategy:  s,
		Precision: 0.2,
		Budget:    40 * time.Second,
		State:     filepath.Join(dir, "state"),
		Hooks:     sweep.Hooks{Begin: func(v trial.Variant, _, _ int) { begun = append(begun, v.Name) }},
	})
	if err != nil {
		t.Fatal(err)
	}

	var ended []trial.Variant
	for _, row := range result.Variants {
		ended = append(ended, row.Variant)
		t.Logf("%s: %s (%s)", row.Name, row.State, row.Reason)
	}

	o := s.Outcome(ended)
	want := command + " --max-num-seqs 512"
	if !o.Found || !o.Confirmed || o.Command != want || o.Gain.Ratio < 1.5 || o.Gain.Ratio > 2.5 {
		t.Errorf("%+v, want %s", o, want)
	}

	order := "as it is, max-num-seqs=512, max-num-seqs=1024, max-num-seqs=512 gpu-memory-utilization=0.95, " +
		"again: as it is, again: max-num-seqs=512"
	if got := strings.Join(begun, ", "); got != order {
		t.Errorf("the variants were %s, want %s", got, order)
	}
}

// writeInput writes an input of chat prompts.
func writeInput(t *testing.T, dir string, requests int) string {
	t.Helper()

	var text bytes.Buffer
	for i := range requests {
		fmt.Fprintf(&text, `{"custom_id":"r-%d","method":"POST","url":"/v1/chat/completions","body":{"messages":`+
			`[{"role":"user","content":"%s"}]}}`+"\n", i, strings.Repeat("word ", 1+i%40))
	}

	path := filepath.Join(dir, "tickets.jsonl")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}

	return path
}
