package main

import (
	"cmp"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// preparePython makes a process of a program of testdata/clients. It skips the test where
// Python or a module is missing.
func (a *batchAPI) preparePython(t *testing.T, module, program string, args ...string) (*exec.Cmd, *lockedBuffer) {
	t.Helper()

	python := findPython(t, module)
	if python == "" {
		t.Skip("needs a Python with " + module + ", in " + pythonVariable)
	}

	return a.prepareClient(python, append([]string{"-B", clientProgram(t, program)}, args...)...)
}

// largeVariable is the size of the large file in MB.
const largeVariable = "PROMPTMILL_TEST_LARGE_MB"

// OpenAI's SDK for Python and LiteLLM's client run their batches here, all at once.
func TestBatchAPIWithPython(t *testing.T) {
	t.Parallel()

	if findPython(t, "openai") == "" {
		t.Skip("needs a Python with openai, in " + pythonVariable)
	}

	a := startBatchAPI(t)
	size := cmp.Or(os.Getenv(largeVariable), "50")
	for _, program := range []struct {
		name, module string
		args         []string
	}{
		{"batch.py", "openai", nil},
		{"paging.py", "openai", nil},
		{"cancel.py", "openai", nil},
		{"expiry.py", "openai", nil},
		{"errors.py", "openai", nil},
		{"uploads.py", "openai", nil},
		{"early.py", "openai", nil},
		{"raw.py", "openai", nil},
		{"retries.py", "openai", nil},
		{"concurrent_polls.py", "openai", nil},
		{"large.py", "openai", []string{size}},
		{"litellm_client.py", "litellm", nil},
	} {
		t.Run(program.name, func(t *testing.T) {
			t.Parallel()
			cmd, out := a.preparePython(t, program.module, program.name, program.args...)
			a.runClient(t, cmd, out)
		})
	}
}

// A client that polls does not learn that its server was killed, again and again.
func TestBatchAPIKilledUnderPython(t *testing.T) {
	t.Parallel()

	if findPython(t, "openai") == "" {
		t.Skip("needs a Python with openai, in " + pythonVariable)
	}

	a := startBatchAPI(t)
	cmd, out := a.preparePython(t, "openai", "killed.py")
	must(t, cmd.Start())
	poll(t, pollTime, "the batch", func() bool { return strings.Contains(out.String(), "batch_") })

	run := strings.TrimPrefix(strings.TrimSpace(out.String()), "batch_")
	for kill := range 3 {
		poll(t, pollTime, "more answers", func() bool {
			m, ok := a.manifest(run)
			return ok && m.Counts.Done > 100*kill || m.State.Ended()
		})
		a.kill(t)
		a.startServing(t)
	}

	if code := waitExit(t, cmd, out, clientTime); code != 0 {
		t.Errorf("killed.py: exit code %d:\n%s\nserve:\n%s", code, out, a.said)
	}
}

// A key sees its own files and batches, or all of them. A wrong key sees none.
func TestBatchAPIKeysWithPython(t *testing.T) {
	t.Parallel()

	if findPython(t, "openai") == "" {
		t.Skip("needs a Python with openai, in " + pythonVariable)
	}

	a := startBatchAPI(t)
	var secrets []string
	for _, args := range [][]string{
		{"--name", "all"},
		{"--name", "own", "--own-only"},
		{"--name", "other", "--own-only"},
	} {
		secrets = append(secrets, strings.TrimSpace(a.must(append([]string{"key", "create"}, args...)...)))
	}

	cmd, out := a.preparePython(t, "openai", "keys.py")
	cmd.Env = a.environment("KEYS=" + strings.Join(secrets, " "))
	a.runClient(t, cmd, out)

	for _, secret := range secrets {
		if strings.Contains(a.said.String(), secret) {
			t.Errorf("the log has a key:\n%s", a.said)
		}
	}
}
