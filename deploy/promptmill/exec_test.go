package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
)

var startedServer = regexp.MustCompile(`started the model server .*\bpid=(\d+)`)

// serverPIDs returns the model servers that --exec has started, from the log of --verbose.
func serverPIDs(t *testing.T, out *lockedBuffer) (pids []int) {
	t.Helper()

	for _, found := range startedServer.FindAllStringSubmatch(out.String(), -1) {
		pid, err := strconv.Atoi(found[1])
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}

	return pids
}

// alive are the processes that have the command's state folder in their environment:
// it and all its descendants. Only Linux can list them.
func (c command) alive() (pids []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range all {
		if text, err := os.ReadFile(path); err == nil &&
			bytes.Contains(text, []byte("PROMPTMILL_STATE="+c.state+"\x00")) {
			pids = append(pids, filepath.Base(filepath.Dir(path)))
		}
	}

	return pids
}

func TestExec(t *testing.T) {
	t.Parallel()
	together(t, map[string]func(*testing.T){"killed": testExecKilled, "poison": testPoison})
}

// The model server of --exec is killed, and started again by its worker; then that is
// killed, and leaves no process behind; and the same command completes the run.
func testExecKilled(t *testing.T) {
	const requests = 500
	c := newCommand(t)
	in := c.input("in.jsonl", requests)
	address := fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1)[0])
	args := []string{
		"run", in, "--url", "http://" + address, "-o", "out.jsonl.zst", "--flush", "100ms", "--progress",
		"none", "--verbose",
		"--exec", "cd . && promptmill sim --listen " + address + // a script, of which a shell may stay beside the server
			" --model sim --sim-load 1s --sim-slots 16 --sim-ttft 60ms --sim-tpot 1ms",
	}

	run, out := c.startAs(nil, args...)
	more := func(n int) {
		t.Helper()
		goal := len(c.journal("out")) + n
		poll(t, pollTime, "lines", func() bool { return len(c.journal("out")) >= goal })
	}

	more(50)

	pids := serverPIDs(t, out)
	if len(pids) != 1 {
		t.Fatalf("servers %v were started:\n%s", pids, out)
	}

	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}

	poll(t, pollTime, "another server", func() bool { return len(serverPIDs(t, out)) == 2 })
	more(50)
	killHard(run)

	before := c.journal("out")
	if len(before) >= requests {
		t.Error("the run was done before it was killed")
	}

	poll(t, patience, "the end of all that was started", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err != nil && len(c.alive()) == 0
	})

	run, out = c.startAs(nil, args...)
	if code := waitExit(t, run, out, patience); code != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", code, out)
	}

	if left := c.alive(); len(left) > 0 {
		t.Errorf("processes %v are left of a run that is done", left)
	}

	c.verified(in, "out")
	c.keeps("out", before)
	meta := c.meta("out")
	r := meta.Results
	if r.SuccessCount != requests || r.FailureCount != 0 || r.Interruptions != 1 ||
		!strings.HasPrefix(meta.Platform, "vLLM ") {
		t.Errorf("%s answered %d and failed %d of %d requests, with %d interruptions",
			meta.Platform, r.SuccessCount, r.FailureCount, requests, r.Interruptions)
	}

	if r.ModelLoadTimeSeconds == nil || *r.ModelLoadTimeSeconds < 1 || *r.ModelLoadTimeSeconds > 30 {
		t.Errorf("the load time, of 1 s, is reported as %v", r.ModelLoadTimeSeconds)
	}

	if r.AttemptFailures["server_died"] == 0 {
		t.Errorf("no request was there when the server died: %v", r.AttemptFailures)
	}
}

// A prompt that kills the model server fails alone.
func testPoison(t *testing.T) {
	const requests, killer = 200, 117
	c := newCommand(t)

	var text strings.Builder
	for i := range requests {
		word := "question"
		if i == killer {
			word = "KILLER"
		}
		fmt.Fprintf(&text, "{\"custom_id\":\"q-%d\",\"messages\":[{\"role\":\"user\",\"content\":\"%s %d\"}]}\n",
			i, word, i)
	}

	if err := os.WriteFile(filepath.Join(c.dir, "in.jsonl"), []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}

	address := fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1)[0])
	// The loop starts it again at once; --exec would take longer each time.
	server := "promptmill sim --listen " + address +
		" --model sim --sim-poison KILLER --sim-slots 16 --sim-ttft 20ms --sim-tpot 1ms"
	run, out := c.startAs(nil, "run", "in.jsonl", "--url", "http://"+address, "-o", "out.jsonl.zst",
		"--progress", "none",
		"--exec", "sh -c 'while :; do "+server+"; done'")
	if code := waitExit(t, run, out, patience); code != exit.CodeFailed ||
		!strings.Contains(out.String(), "error: 1 of 200 requests failed") {
		t.Fatalf("exit code %d:\n%s", code, out)
	}

	c.verified("in.jsonl", "out")
	failed := c.lines("out.errors.jsonl.zst")
	var line struct {
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal(failed["q-117"], &line); err != nil {
		t.Fatalf("%v: %q", err, failed)
	}

	if line.Error.Code != proto.CodePoison || !strings.Contains(line.Error.Message, "died 3 times") {
		t.Errorf("the killer's error is %+v", line.Error)
	}

	if n := len(c.lines("out.jsonl.zst")); len(failed) != 1 || n != requests-1 {
		t.Errorf("%d failed, %d answered", len(failed), n)
	}

	if left := c.alive(); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}
