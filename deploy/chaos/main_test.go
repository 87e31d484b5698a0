package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/proto/prototest"
)

// With this variable the test binary is chaos itself, and its children.
const selfEnv = "PROMPTMILL_CHAOS_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(selfEnv) != "" {
		main()
		return
	}
	prototest.Main(m)
}

// Short runs of real deployments with faults: of all kinds, and those of connections that
// misbehave.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED with -short: it runs deployments for about a minute")
	}

	t.Parallel()

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}

	promptmill := filepath.Join(t.TempDir(), "promptmill")
	if out, err := exec.CommandContext(
		t.Context(), "go", "build", "-o", promptmill, "../promptmill",
	).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	tests := []struct {
		seed string
		args []string
		want []string
	}{
		{"2", []string{"--for", "5s", "--requests", "200", "--bin", promptmill, "--ports", "19000-19199"},
			[]string{
				"skipped: steps of the clock, since chaos was not built by chaos --build", " answers for 400 requests",
			}},
		{"1", []string{"--for", "20s", "--requests", "500"}, []string{" answers for 1000 requests"}},
		{"265", []string{
			"--for", "18s", "--requests", "400", "--only",
			"used id,changed input,foreign worker,foreign reader,answers twice,unreadable store",
		},
			[]string{
				"used id a", "foreign worker results", "foreign reader positions", "changed-1: ",
				"answers twice model2", "unreadable store serve", " answers for 800 requests",
			}},
	}
	for _, test := range tests {
		t.Run("seed "+test.seed, func(t *testing.T) {
			t.Parallel()

			cmd := exec.CommandContext(t.Context(), self,
				append(test.args, "--seed", test.seed, "--cluster", "no", "--dir", t.TempDir())...)
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
			cmd.WaitDelay = time.Minute
			cmd.Env = append(os.Environ(), selfEnv+"=1")

			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v:\n%s", err, out)
			}

			t.Logf("%s", out)
			for _, want := range append(test.want, "seed "+test.seed+": the bus of serve", "run b is on the bus",
				"both runs are complete") {
				if !strings.Contains(string(out), want) {
					t.Errorf("%q was not said", want)
				}
			}
		})
	}
}

func TestWrongFlags(t *testing.T) {
	t.Parallel()

	for _, args := range [][]string{
		{"--cluster", "maybe"},
		{"--for", "0s"},
		{"--workers", "0"},
		{"--requests", "-1"},
		{"--what"},
		{"--seeds", "7"},
		{"--seeds", "7-6"},
		{"--seeds", "1-2x"},
		{"--only", "rain"},
		{"--only", "submit"},
		{"--ports", "7"},
		{"--ports", "30000-20000"},
		{"--ports", "20000-20010"},
		{"--ports", "100-20000"},
		{"--build", "."},
	} {
		var out, said bytes.Buffer
		if code := runChaos(args, &out, &said); code != 2 || said.Len() == 0 || out.Len() > 0 {
			t.Errorf("%v: exit code %d, said %q and %q", args, code, out.String(), said.String())
		}
	}
}
