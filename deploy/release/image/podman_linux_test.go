package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// podman runs containers of the image of one test, in the store of this user, and removes both.
type podman struct {
	t      *testing.T
	folder string
	image  string
}

// newPodman builds the image of the real promptmill and loads it. It skips the test where containers cannot be run.
func newPodman(t *testing.T) *podman {
	t.Helper()

	if testing.Short() {
		t.Skip("builds promptmill, which takes minutes on a busy machine")
	}
	for _, program := range []string{"podman", "crun", "unshare"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs " + program)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: it runs crun in a mount namespace")
	}

	folder := t.TempDir()
	p := &podman{t: t, folder: folder, image: "localhost/promptmill:v0.0.1"}
	if err := p.configure(); err != nil {
		t.Fatal(err)
	}

	out := filepath.Join(folder, "image")
	var stdout, stderr bytes.Buffer
	platform := "linux/" + runtime.GOARCH
	args := []string{"-o", out, "--version", "v0.0.1", "--platforms", platform,
		"--binary", platform + "=" + buildPromptmill(t)}
	if code := run(t.Context(), args, os.Getenv, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	checkSize(t, out)

	archive := filepath.Join(out, "promptmill-linux-"+runtime.GOARCH+".tar")
	if output, code := p.call("load", "-q", "-i", archive); code != 0 {
		t.Skipf("podman cannot load an image here: %s", output)
	}
	t.Cleanup(func() { p.call("rmi", "-f", "localhost/promptmill:v0.0.1") })

	if output, code := p.run("version"); code == 125 || code == 126 {
		t.Skipf("podman cannot run a container here: %s", output)
	}

	return p
}

// buildPromptmill returns the path of a promptmill for the image. It is built without -trimpath, from packages that the
// other tests have built.
func buildPromptmill(t *testing.T) string {
	t.Helper()

	file := filepath.Join(t.TempDir(), "promptmill")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w -X main.version=v0.0.1", "-o", file, programPackage)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build promptmill: %v\n%s", err, output)
	}

	return file
}

// checkSize fails if the image is larger than it may be.
func checkSize(t *testing.T, folder string) {
	t.Helper()

	size, err := compressedSize(readArchive(t, folder))
	if err != nil {
		t.Fatal(err)
	}

	const most = 35_000_000
	if size > most {
		t.Errorf("the image is %d bytes compressed, of %d at most", size, most)
	}
	t.Logf("the image is %.1f MB compressed", float64(size)/1e6)
}

// configure has containers keep to the limits of this process: one without CAP_SYS_RESOURCE cannot raise them. crun
// refuses a machine with both versions of cgroups, so the second is hidden from it. It is not hidden from podman: in a
// mount namespace of its own, each call would lose the networks that the one before has made.
func (p *podman) configure() error {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return err
	}

	crun, err := exec.LookPath("crun")
	if err != nil {
		return err
	}
	runtime := filepath.Join(p.folder, "crun")
	script := "#!/bin/sh\nexec unshare -m sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$0\" \"$@\"' " +
		crun + ` "$@"` + "\n"
	if err := os.WriteFile(runtime, []byte(script), 0o700); err != nil {
		return err
	}

	text := fmt.Sprintf("[containers]\ndefault_ulimits = [\"nofile=%d:%d\", \"nproc=1000:1000\"]\n"+
		"cgroups = \"disabled\"\nnetns = \"host\"\n"+
		"[engine]\nevents_logger = \"file\"\ncgroup_manager = \"cgroupfs\"\nruntime = \"crun\"\n"+
		"[engine.runtimes]\ncrun = [%q]\n",
		files.Max, files.Max, runtime)

	return os.WriteFile(filepath.Join(p.folder, "containers.conf"), []byte(text), 0o600)
}

// command returns a command of podman, or of a program that calls it.
func (p *podman) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+filepath.Join(p.folder, "containers.conf"))

	return cmd
}

// call runs podman to its end and returns what it prints and its exit code.
func (p *podman) call(args ...string) (output string, code int) {
	p.t.Helper()

	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()

	cmd := p.command(ctx, "podman", args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		p.t.Fatal(err)
	}

	return string(out), cmd.ProcessState.ExitCode()
}

// withoutRights are the options of a container that may do nothing.
var withoutRights = []string{
	"--rm", "--pull=never", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges",
}

// run runs promptmill in a container without rights. Arguments before "--" are podman's.
func (p *podman) run(args ...string) (output string, code int) {
	p.t.Helper()

	return p.call(p.arguments(args)...)
}

// arguments returns the arguments of podman.
func (p *podman) arguments(args []string) []string {
	var options []string
	for i, arg := range args {
		if arg == "--" {
			options, args = args[:i], args[i+1:]
			break
		}
	}

	return append(append(append(append([]string{"run"}, withoutRights...), options...), p.image), args...)
}

// promptmill runs in the image as a user without rights, and says what is missing.
func TestImageRuns(t *testing.T) {
	p := newPodman(t)

	examples, err := filepath.Abs(filepath.Join("..", "..", "examples"))
	if err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(t.TempDir(), "foreign")
	if err := os.Mkdir(foreign, 0o755); err != nil {
		t.Fatal(err)
	}
	input := "-v=" + examples + ":/work:ro"

	for name, test := range map[string]struct {
		args []string
		code int
		want string
	}{
		"version": {[]string{"version"}, 0, "promptmill v0.0.1"},
		"run": {
			[]string{input, "--", "run", "short.jsonl", "--sim", "-o", "/var/lib/promptmill/o.jsonl.zst"}, 0, "done",
		},
		"state of another user": {
			[]string{
				input, "-v=" + foreign + ":/var/lib/promptmill", "--",
				"run", "short.jsonl", "--sim", "-o", "/tmp/o.jsonl.zst",
			},
			1, "chown 65532 the folder that is mounted at /var/lib/promptmill",
		},
		"output of another user": {
			[]string{"-v=" + foreign + ":/work", "--", "serve", "--listen", "127.0.0.1:0"},
			1, "no output can be written into /work",
		},
		"a command": {
			[]string{input, "--", "run", "short.jsonl", "--exec", "vllm serve M", "-o", "/tmp/o.jsonl.zst"},
			2, "this system has no /bin/sh",
		},
	} {
		t.Run(name, func(t *testing.T) {
			output, code := p.run(test.args...)
			if code != test.code || !strings.Contains(output, test.want) {
				t.Errorf("exit code %d, want %d and %q:\n%s", code, test.code, test.want, output)
			}
		})
	}

	t.Run("SIGTERM", func(t *testing.T) { testStop(t, p) })
	t.Run("compose", func(t *testing.T) { testCompose(t, p) })
}

// testStop ends a serve, the first process of its container, as engines do.
func testStop(t *testing.T, p *podman) {
	name := fmt.Sprintf("promptmill-test-%d", os.Getpid())
	args := []string{"--name=" + name, "--", "serve", "--listen", "127.0.0.1:0", "--dir", "/tmp/out"}
	cmd := p.command(t.Context(), "podman", p.arguments(args)...)
	t.Cleanup(func() { p.call("rm", "-f", "-i", name) })

	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	var printed strings.Builder
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		fmt.Fprintln(&printed, lines.Text())
		if !strings.HasPrefix(lines.Text(), "serving on ") {
			continue
		}

		if output, code := p.call("stop", "-t", "60", name); code != 0 {
			t.Errorf("stop: exit code %d: %s", code, output)
		}
	}

	if err := cmd.Wait(); err != nil || !strings.Contains(printed.String(), "promptmill serve resumes where it was") {
		t.Errorf("%v; want exit code 0 after SIGTERM:\n%s", err, printed.String())
	}
}
