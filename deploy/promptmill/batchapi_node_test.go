package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// nodeVariable names a folder with the packages of .ci/package.json, which .ci/run installs.
const nodeVariable = "PROMPTMILL_TEST_NODE"

// prepareNode makes a process of a program of testdata/clients. Node looks for packages beside the
// program, so it runs from a folder of its own.
func (a *batchAPI) prepareNode(t *testing.T, program string, args ...string) (*exec.Cmd, *lockedBuffer) {
	t.Helper()

	dir := t.TempDir()
	text, err := os.ReadFile(clientProgram(t, program))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, program), text, 0o600))
	must(t, os.Symlink(filepath.Join(os.Getenv(nodeVariable), "node_modules"), filepath.Join(dir, "node_modules")))

	return a.prepareClient("node", append([]string{filepath.Join(dir, program)}, args...)...)
}

// OpenAI's SDK for Node and Vercel's AI SDK run their batches here.
func TestBatchAPIWithNode(t *testing.T) {
	t.Parallel()

	if _, err := exec.LookPath("node"); err != nil || os.Getenv(nodeVariable) == "" {
		t.Skip("needs Node and the packages of .ci/package.json, in " + nodeVariable)
	}

	a := startBatchAPI(t)
	for _, program := range []string{"openai_node.mjs", "vercel_ai.mjs"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			cmd, out := a.prepareNode(t, program)
			a.runClient(t, cmd, out)
		})
	}
}
