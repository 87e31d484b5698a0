package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// composeProject is a project of podman-compose with the simulated server: the containers, volumes and the network of
// this test alone.
type composeProject struct {
	podman  *podman
	program string
	name    string
}

// newComposeProject skips the test where podman-compose, or networks with names, are not at hand.
func newComposeProject(t *testing.T, p *podman) *composeProject {
	t.Helper()

	program := filepath.Join(filepath.Dir(os.Getenv("PROMPTMILL_TEST_PYTHON")), "podman-compose")
	if os.Getenv("PROMPTMILL_TEST_PYTHON") == "" {
		program = "podman-compose"
	}
	if _, err := exec.LookPath(program); err != nil {
		t.Skip("needs podman-compose, which is in .ci/requirements.txt")
	}

	c := &composeProject{podman: p, program: program, name: fmt.Sprintf("promptmill-test-%d", os.Getpid())}
	if output, code := p.call("network", "create", c.name); code != 0 {
		t.Skipf("podman cannot make a network here: %s", output)
	}
	output, code := p.run("--network="+c.name, "--", "version")
	p.call("network", "rm", "-f", c.name)
	if code != 0 {
		t.Skipf("podman cannot run a container in a network here: %s", output)
	}

	for _, folder := range []string{"/usr/lib/podman", "/usr/libexec/podman"} {
		if _, err := os.Stat(filepath.Join(folder, "aardvark-dns")); err == nil {
			return c
		}
	}
	t.Skip("needs aardvark-dns, which knows the names of containers")

	return nil
}

// call runs podman-compose in the folder of the page to its end, and returns what it prints.
func (c *composeProject) call(t *testing.T, stdin io.Reader, args ...string) string {
	t.Helper()

	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()

	args = append([]string{"-p", c.name, "-f", "compose.sim.yaml"}, args...)
	cmd := c.podman.command(ctx, c.program, args...)
	cmd.Dir = filepath.Join("..", "..", "compose")
	cmd.Env = append(cmd.Env, "PROMPTMILL_IMAGE="+c.podman.image)
	cmd.Stdin = stdin
	cmd.WaitDelay = time.Second
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("podman-compose %s: %v\n%s", strings.Join(args, " "), err, output)
	}

	return string(output)
}

// testCompose does what the page says of the first try: up, a run through the head, its answers, down. What is on the
// volumes is there after the next up.
func testCompose(t *testing.T, p *podman) {
	c := newComposeProject(t, p)
	t.Cleanup(func() { c.checkRemoved(t) })

	c.call(t, nil, "up", "-d")
	input, err := os.Open(filepath.Join("..", "..", "examples", "short.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()

	printed := c.call(t, input, "exec", "-T", "head", "promptmill", "submit", "-", "--wait", "--model", "sim")
	if !strings.Contains(printed, "is completed: 4 answered, 0 failed") {
		t.Errorf("submit prints %q; want 4 answered", printed)
	}
	if t.Failed() {
		t.Fatal(c.call(t, nil, "logs"))
	}

	results := filepath.Join(t.TempDir(), "results")
	if output, code := p.call("cp", c.name+"_head_1:/work", results); code != 0 {
		t.Fatalf("cp: exit code %d: %s", code, output)
	}
	checkAnswers(t, results)

	c.checkVolumes(t)
	c.call(t, nil, "down")
	c.call(t, nil, "up", "-d")
	if listed := c.call(t, nil, "exec", "-T", "head", "promptmill", "list"); !strings.Contains(listed, "4/4 100%") {
		t.Errorf("after down and up, list prints %q; want the run, complete", listed)
	}
}

// checkVolumes fails if a container has a volume without a name: each up would leave another one on the machine.
func (c *composeProject) checkVolumes(t *testing.T) {
	t.Helper()

	for _, service := range []string{"head", "worker"} {
		format := `--format={{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}`
		output, code := c.podman.call("inspect", format, c.name+"_"+service+"_1")
		if code != 0 || output == "" {
			t.Errorf("inspect %s: exit code %d: %q; want its volumes", service, code, output)
		}
		for volume := range strings.FieldsSeq(output) {
			if !strings.HasPrefix(volume, c.name+"_") {
				t.Errorf("%s has the volume %s, which down -v does not remove", service, volume)
			}
		}
	}
}

// checkAnswers fails unless the results are those of the example, each answered once.
func checkAnswers(t *testing.T, results string) {
	t.Helper()

	files, err := filepath.Glob(filepath.Join(results, "*.jsonl.zst"))
	if err != nil || len(files) != 1 {
		t.Fatalf("results %v, %v; want one", files, err)
	}
	compressed, err := os.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer compressed.Close()

	reader, err := zstd.NewReader(compressed)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()

	content, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	lines, answers := strings.Count(string(content), "\n"), strings.Count(string(content), `"status_code":200`)
	if lines != 4 || answers != 4 {
		t.Errorf("%d lines, %d answers; want 4 of both:\n%s", lines, answers, content)
	}
}

// checkRemoved removes all of the project, and fails if down -v leaves something of it.
func (c *composeProject) checkRemoved(t *testing.T) {
	c.call(t, nil, "down", "-v")
	for _, kind := range [][]string{
		{"ps", "-a", "--format={{.Names}}"},
		{"volume", "ls", "--format={{.Name}}"},
		{"network", "ls", "--format={{.Name}}"},
	} {
		if output, _ := c.podman.call(kind...); strings.Contains(output, c.name) {
			t.Errorf("podman %s has something of %s after down -v:\n%s", kind[0], c.name, output)
		}
	}
}
