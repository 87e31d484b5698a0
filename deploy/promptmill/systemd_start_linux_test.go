package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// systemdBox has copies of the units under names, and with users and states, of this test alone. Nothing of them is
// left at the end.
type systemdBox struct {
	t       *testing.T
	name    string
	folder  string // of the program and of what is at /etc/promptmill
	program string
}

// newSystemdBox skips the test where systemd is not the first process of the machine.
func newSystemdBox(t *testing.T) *systemdBox {
	t.Helper()

	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skip("needs systemd as the first process of the machine")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: it starts units of the system")
	}

	name := fmt.Sprintf("promptmill-test-%d", os.Getpid())
	folder, err := os.MkdirTemp("/var/lib", name+"-") // the units see neither /tmp nor /root
	must(t, err)
	must(t, os.Chmod(folder, 0o755))
	t.Cleanup(func() { must(t, os.RemoveAll(folder)) })

	b := &systemdBox{t: t, name: name, folder: folder, program: filepath.Join(folder, "promptmill")}
	build := exec.Command("go", "build", "-o", b.program, ".") // the race detector needs calls that the units refuse
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build promptmill: %v\n%s", err, out)
	}

	return b
}

// install writes the units, with their variables in files as people set them.
func (b *systemdBox) install(serveEnv, workerEnv string) {
	b.t.Helper()

	b.write(filepath.Join(b.folder, "serve.env"), serveEnv)
	b.write(filepath.Join(b.folder, "worker.env"), workerEnv)

	rename := strings.NewReplacer(
		"/usr/local/bin/promptmill", b.program,
		"/etc/promptmill", b.folder,
		"User=promptmill\nGroup=promptmill\n", "DynamicUser=yes\n", // no account is left behind
		"%S/promptmill", "%S/"+b.name,
		"StateDirectory=promptmill promptmill/state promptmill/results",
		"StateDirectory="+b.name+" "+b.name+"/state "+b.name+"/results",
		"StateDirectory=promptmill-worker", "StateDirectory="+b.name+"-worker",
	)
	b.t.Cleanup(b.remove)
	for _, kind := range []string{"serve", "worker"} {
		b.write(b.unitFile(kind), rename.Replace(readUnit(b.t, "promptmill-"+kind+".service")))
	}
	b.systemctl("daemon-reload")
}

// write writes a file for root alone.
func (b *systemdBox) write(file, text string) {
	b.t.Helper()
	must(b.t, os.WriteFile(file, []byte(text), 0o600))
}

// unit returns the name of the copy of a unit.
func (b *systemdBox) unit(kind string) string { return b.name + "-" + kind + ".service" }

// unitFile returns its path, which a restart of the machine empties.
func (b *systemdBox) unitFile(kind string) string {
	return filepath.Join("/run/systemd/system", b.unit(kind))
}

// remove stops the units and removes them and their states.
func (b *systemdBox) remove() {
	for _, kind := range []string{"worker", "serve"} {
		if b.t.Failed() {
			log, _ := exec.Command("journalctl", "--no-pager", "-n", "40", "-u", b.unit(kind)).CombinedOutput()
			b.t.Logf("%s:\n%s", b.unit(kind), log)
		}

		b.systemctl("stop", b.unit(kind))
		exec.Command("systemctl", "reset-failed", b.unit(kind)).Run() // it says so of a unit that has not failed
		b.systemctl("clean", "--what=state", b.unit(kind))
		must(b.t, os.Remove(b.unitFile(kind)))
	}
	b.systemctl("daemon-reload")
}

// systemctl runs systemctl, which ends with 0.
func (b *systemdBox) systemctl(args ...string) {
	b.t.Helper()
	if out, err := exec.Command("systemctl", args...).CombinedOutput(); err != nil {
		b.t.Errorf("systemctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// checkUnit waits until a unit has these properties, such as ActiveState=active.
func (b *systemdBox) checkUnit(kind string, want ...string) {
	b.t.Helper()

	poll(b.t, time.Minute, fmt.Sprintf("%s with %v", b.unit(kind), want), func() bool {
		out, err := exec.Command("systemctl", "show", b.unit(kind)).Output()
		shown := "\n" + string(out)

		return err == nil && !slices.ContainsFunc(want, func(property string) bool {
			return !strings.Contains(shown, "\n"+property+"\n")
		})
	})
}

// ask runs promptmill on the head, as its administrator, and returns what it prints.
func (b *systemdBox) ask(args ...string) ([]byte, error) {
	args = append(args, "--state", filepath.Join("/var/lib", b.name, "state"))
	return exec.Command(b.program, args...).Output()
}

// awaitDone waits until a number of requests of the run have ended. A head that starts again does not answer meanwhile.
func (b *systemdBox) awaitDone(n int) {
	b.t.Helper()

	poll(b.t, 2*time.Minute, fmt.Sprintf("%d answers", n), func() bool {
		out, err := b.ask("list", "--json")
		var runs []struct{ Progress struct{ Done int } }

		return err == nil && json.Unmarshal(out, &runs) == nil && len(runs) == 1 && runs[0].Progress.Done >= n
	})
}

// The units run under systemd: a worker reads its credential, a stop uses the grace and hands back the rest, a killed
// worker and a killed head come back, and a join string that is none is not tried again.
func TestSystemdStarts(t *testing.T) {
	b := newSystemdBox(t)

	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := free.Addr().String()
	must(t, free.Close())

	b.install("PROMPTMILL_LISTEN="+address+"\nPROMPTMILL_METRICS=127.0.0.1:0\n",
		"PROMPTMILL_SIM=true\nPROMPTMILL_SIM_TTFT=500ms\nPROMPTMILL_CONCURRENCY=16\nPROMPTMILL_GRACE=3s\n")
	b.systemctl("start", b.unit("serve"))

	written := filepath.Join("/var/lib", b.name, "worker.join")
	poll(t, time.Minute, "the join string", func() bool { _, err := os.Stat(written); return err == nil })
	join, err := os.ReadFile(written)
	must(t, err)
	b.write(filepath.Join(b.folder, "join"), string(join))
	b.systemctl("start", b.unit("worker"))

	const requests = 400
	input := filepath.Join(t.TempDir(), "in.jsonl")
	var lines strings.Builder
	for i := range requests {
		fmt.Fprintf(&lines, "{\"custom_id\":\"q-%d\",\"prompt\":\"question %d\",\"max_tokens\":8}\n", i, i)
	}
	b.write(input, lines.String())
	_, err = b.ask("submit", input, "--model", "sim", "--run", "r")
	must(t, err)

	b.awaitDone(16)
	b.systemctl("stop", b.unit("worker"))
	b.checkUnit("worker", "ActiveState=inactive", "Result=success", "ExecMainStatus=0")

	b.systemctl("start", b.unit("worker"))
	b.awaitDone(160)
	b.systemctl("kill", "-s", "KILL", b.unit("serve"))
	b.checkUnit("serve", "ActiveState=active", "NRestarts=1")
	b.awaitDone(240)
	b.systemctl("kill", "-s", "KILL", b.unit("worker"))
	b.checkUnit("worker", "ActiveState=active", "NRestarts=1")
	output := filepath.Join("/var/lib", b.name, "results", "r.jsonl.zst")
	poll(t, 2*time.Minute, "the output", func() bool { _, err := os.Stat(output); return err == nil })
	out, err := exec.Command(b.program, "verify", "--answers", input, output).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "400 requests: 400 answered, 0 failed, 0 without a line") {
		t.Errorf("verify: %v\n%s", err, out)
	}

	b.write(filepath.Join(b.folder, "join"), "no join string")
	b.systemctl("restart", b.unit("worker"))
	b.checkUnit("worker", "ActiveState=failed", "Result=exit-code", "ExecMainStatus=2", "NRestarts=0")
}
