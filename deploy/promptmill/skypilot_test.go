package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// readRun returns the commands of the field run in a task of SkyPilot: the block of lines that are indented.
func readRun(t *testing.T, file string) string {
	t.Helper()

	text, err := os.ReadFile(file)
	must(t, err)
	_, block, found := strings.Cut(string(text), "\nrun: |\n")
	if !found {
		t.Fatalf("%s has no field run", file)
	}

	var script strings.Builder
	for line := range strings.Lines(block) {
		if rest, indented := strings.CutPrefix(line, "  "); indented || strings.TrimSpace(line) == "" {
			script.WriteString(rest)
			continue
		}
		break
	}

	return script.String()
}

// The commands of the task take requests until the cloud takes the box back. The job does not count as done then, and
// so is started elsewhere.
func TestSkyPilot(t *testing.T) {
	t.Parallel()

	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash")
	}

	c := newCommand(t)
	c.serve()

	program, err := exec.LookPath("promptmill")
	must(t, err)
	must(t, os.Mkdir(filepath.Join(c.dir, "bin"), 0o700))
	must(t, os.Symlink(program, filepath.Join(c.dir, "bin", "promptmill")))

	spot := startSpotInstance(t)
	script := strings.Replace(readRun(t, "../skypilot/worker.yaml"), "--gpus all", "--gpus 0 --drain-on aws", 1)
	job, said := c.launch([]string{
		installVLLM(t),
		"HOME=" + c.dir,
		"MODEL=sim",
		"PROMPTMILL_JOIN=" + strings.TrimSpace(c.must("join", "worker")),
		"PROMPTMILL_AWAIT_END=0",
		"AWS_EC2_METADATA_SERVICE_ENDPOINT=" + spot.URL,
	}, exec.Command(bash, "-c", script))

	in := c.input("in.jsonl", 100)
	c.must("submit", in, "--run", "r", "--model", "sim", "--shard-size", "10")
	poll(t, patience, "answers", func() bool { m, ok := c.manifest("r"); return ok && m.Counts.Done > 0 })

	spot.taken.Store(true)
	if code := waitExit(t, job, said, patience); code != 1 ||
		!strings.Contains(said.String(), "leaving: this box goes away (aws, spot instance: terminate)") {
		t.Errorf("exit code %d:\n%s", code, said)
	}

	c.ended("r", patience)
	c.verified(in, "r")
}
