package main

import (
	"bytes"
	"os"
	"os/exec"
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

// A short run of a real deployment that is hurt.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED with -short: it runs a deployment for about a minute")
	}
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "--seed", "1", "--for", "20s", "--requests", "500", "--cluster", "no", "--dir", t.TempDir())
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	cmd.Env = append(os.Environ(), selfEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	t.Logf("%s", out)
	for _, want := range []string{"seed 1: the bus of serve", "run b is on the bus", "both runs are complete", " answers for 1000 requests"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q was not said", want)
		}
	}
}

func TestWrongFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--cluster", "maybe"}, {"--for", "0s"}, {"--workers", "0"}, {"--requests", "-1"}, {"--what"}} {
		var out, said bytes.Buffer
		if code := chaos(args, &out, &said); code != 2 || said.Len() == 0 || out.Len() > 0 {
			t.Errorf("%v: exit code %d, said %q and %q", args, code, out.String(), said.String())
		}
	}
}
