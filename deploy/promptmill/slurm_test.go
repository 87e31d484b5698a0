package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
)

// fakeVLLM is a program named vllm that starts a simulated server at the port that it is to have.
const fakeVLLM = `#!/bin/bash
while [ $# -gt 0 ] && [ "$1" != --port ]; do shift; done
exec promptmill sim --listen "127.0.0.1:$2" --model sim --sim-slots 4 --sim-ttft 100ms
`

// installVLLM installs a fake vLLM, and returns the PATH that has it.
func installVLLM(t *testing.T) string {
	t.Helper()

	folder := t.TempDir()
	must(t, os.WriteFile(filepath.Join(folder, "vllm"), []byte(fakeVLLM), 0o755))

	return "PATH=" + folder + string(os.PathListSeparator) + os.Getenv("PATH")
}

// joinFile writes the join string of workers into a file.
func (c command) joinFile(name string) string {
	c.t.Helper()

	path := filepath.Join(c.dir, name)
	must(c.t, os.WriteFile(path, []byte(c.must("join", "worker")), 0o600))

	return path
}

// Two tasks of a job array share a node. The one whose time is over leaves by the signal of Slurm, and the other does
// the rest.
func TestSlurm(t *testing.T) {
	t.Parallel()

	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash")
	}

	script, err := filepath.Abs("../slurm/workers.sbatch")
	must(t, err)

	c := newCommand(t)
	c.serve()
	temporary := t.TempDir()
	must(t, os.WriteFile(filepath.Join(temporary, "promptmill-4000"), nil, 0o600)) // of another user of the node

	start := func(task int) (*exec.Cmd, *lockedBuffer) {
		return c.launch([]string{
			installVLLM(t),
			"MODEL=sim",
			"PROMPTMILL_JOIN_FILE=" + c.joinFile("promptmill.join"),
			"TMPDIR=" + temporary,
			"SLURMD_NODENAME=gpu7",
			"SLURM_ARRAY_JOB_ID=4000",
			fmt.Sprintf("SLURM_ARRAY_TASK_ID=%d", task),
			fmt.Sprintf("SLURM_JOB_ID=%d", 4000+task),
		}, exec.Command(bash, script))
	}
	first, firstSaid := start(0)
	second, secondSaid := start(1)
	c.workers(2)

	for task := range 2 {
		names, err := filepath.Glob(filepath.Join(temporary, fmt.Sprintf("promptmill-%d.*", 4000+task)))
		must(t, err)
		if len(names) != 1 {
			t.Fatalf("the state folders of task %d are %q, want one", task, names)
		}

		state, err := os.Stat(names[0])
		must(t, err)
		if state.Mode().Perm() != 0o700 {
			t.Errorf("the state folder of task %d has the rights %o", task, state.Mode().Perm())
		}
	}

	in := c.input("in.jsonl", 200)
	c.must("submit", in, "--run", "r", "--model", "sim", "--shard-size", "10")
	poll(t, patience, "answers", func() bool { m, ok := c.manifest("r"); return ok && m.Counts.Done > 0 })

	must(t, first.Process.Signal(syscall.SIGTERM))
	if code := waitExit(t, first, firstSaid, patience); code != exit.CodeOK ||
		!strings.Contains(firstSaid.String(), "left; unfinished requests go to other workers") {
		t.Errorf("exit code %d:\n%s", code, firstSaid)
	}

	meta := c.ended("r", patience)
	c.verified(in, "r")
	for _, w := range meta.Workers {
		if !strings.HasPrefix(w.Name, "gpu7-4000-") {
			t.Errorf("a worker is named %s", w.Name)
		}
	}

	terminate(t, second, secondSaid)
}

// The script says what is missing.
func TestSlurmWithout(t *testing.T) {
	t.Parallel()

	for want, variables := range map[string][]string{
		"MODEL: name the model":        {"MODEL="},
		"promptmill join create slurm": {"MODEL=sim", "PROMPTMILL_JOIN_FILE=nosuch"},
		"SLURM_JOB_ID: unbound var":    {"MODEL=sim", "PROMPTMILL_JOIN_FILE=/dev/null"},
	} {
		cmd := exec.Command("bash", "../slurm/workers.sbatch")
		cmd.Env = append(os.Environ(), variables...)
		if text, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(text), want) {
			t.Errorf("%v: %v, and it does not say %q:\n%s", variables, err, want, text)
		}
	}
}
