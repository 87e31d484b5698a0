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

func TestExecURL(t *testing.T) {
	t.Parallel()

	for command, port := range map[string]string{
		"vllm serve meta-llama/Llama-3.1-8B-Instruct":                             "8000",
		"CUDA_VISIBLE_DEVICES=1 vllm serve m --port 8123 --seed 7":                "8123",
		"vllm serve m --port=8123":                                                "8123",
		"vllm serve /models/ollama/sglang-llama-server":                           "8000",
		"python -m sglang.launch_server --model-path m":                           "30000",
		"python -m sglang.launch_server --model-path m --tp 2 --port 30001":       "30001",
		"/opt/llama.cpp/llama-server -m m.gguf -np 8":                             "8080",
		"llama-server -m ollama.gguf --props":                                     "8080",
		"LLAMA_ARG_PORT=8090 llama-server -m x.gguf":                              "8090",
		"LLAMA_ARG_PORT=8090 llama-server --port 8091":                            "8091",
		"LLAMA_ARG_PORT=8090 vllm serve m":                                        "8000",
		"trtllm-serve m":                                                          "8000",
		"python -m dynamo.frontend":                                               "8000",
		"lmdeploy serve api_server m":                                             "23333",
		"lmdeploy serve api_server m --server-port 8123":                          "8123",
		"text-generation-launcher --model-id m":                                   "3000",
		"mistralrs serve -m m":                                                    "1234",
		"llama-swap --config c.yaml":                                              "8080",
		"llama-swap --listen :8090":                                               "8090",
		"ollama serve":                                                            "11434",
		"sh -c '. venv/bin/activate && exec vllm serve m --served-model-name p'":  "8000",
		"text-generation-launcher --model-id m -p 3000":                           "3000",
		"llama-server -m x.gguf --top-p 0.95 --min-p 0.05 --port 8081":            "8081",
		"llama-server --port 8081 --top-p 0.95":                                   "8081",
		"llama-server --top-p 0.95 --min-p 5":                                     "8080",
		"llama-server -p 7000 --port 8081":                                        "8081",
		"vllm serve m --port 8000 --port=8002":                                    "8002",
		"vllm serve m --port '8123'":                                              "8123",
		`vllm serve m "--port" 8123`:                                              "8123",
		`vllm serve m --chat-template "a --port 9" --port \8123`:                  "8123",
		"vllm serve m --port 99999":                                               "8000",
		"vllm serve m --port 0":                                                   "8000",
		"vllm serve m --port":                                                     "8000",
		"vllm serve m --api-server-port 9":                                        "8000",
		"HF_HOME=/data/ollama vllm serve m":                                       "8000",
		"env HF_HOME=/data vllm serve m --port 8123":                              "8123",
		"OLLAMA_HOST=0.0.0.0:11500 ollama serve":                                  "11500",
		"OLLAMA_HOST=0.0.0.0 ollama serve":                                        "11434",
		"PORT=8123; vllm serve m --port 8124":                                     "8124",
		"ssh -p 22 gpu vllm serve m --port 8005":                                  "8005",
		"ssh -p 22 gpu vllm serve m":                                              "8000",
		"sh -c 'cd /x && exec llama-server --port 8082'":                          "8082",
		`bash -lc "wait-for --port 5432; vllm serve m --port '8083'"`:             "8083",
		"docker run --gpus all -p 8001:8000 vllm/vllm-openai --model m":           "8001",
		"docker run -p 127.0.0.1:8001:8000 vllm/vllm-openai --port 8000":          "8001",
		"docker run --network host vllm/vllm-openai --port 8004":                  "8004",
		"vllm serve m --port $(cat port)":                                         "8000",
		"vllm serve 'm --port 8123":                                               "8123", // the shell will refuse it
		"promptmill sim --sim-flavour ollama --listen 127.0.0.1:11434 --model m ": "11434",
	} {
		if got, want := execURL(command), "http://localhost:"+port; got != want {
			t.Errorf("%s: %s, want %s", command, got, want)
		}
	}
}

// A llama-server whose command names no port gets one: its own will be another some day.
func TestPinPort(t *testing.T) {
	for command, want := range map[string]string{
		"llama-server -m x.gguf":                   "LLAMA_ARG_PORT=8080 llama-server -m x.gguf",
		"CUDA_VISIBLE_DEVICES=1 llama-server -m x": "LLAMA_ARG_PORT=8080 CUDA_VISIBLE_DEVICES=1 llama-server -m x",
		"sh -c 'cd /x && exec llama-server -m x'":  "LLAMA_ARG_PORT=8080 sh -c 'cd /x && exec llama-server -m x'",
		"llama-server --port 8081":                 "llama-server --port 8081",
		"LLAMA_ARG_PORT=8090 llama-server":         "LLAMA_ARG_PORT=8090 llama-server",
		"docker run -p 9:9 llama-server":           "docker run -p 9:9 llama-server",
		"ssh gpu llama-server -m x":                "ssh gpu llama-server -m x",
		"vllm serve m":                             "vllm serve m",
	} {
		if got := pinPort(command); got != want {
			t.Errorf("%s: %s, want %s", command, got, want)
		}
	}

	t.Setenv("LLAMA_ARG_PORT", "8095")
	if got := pinPort("llama-server -m x"); got != "llama-server -m x" {
		t.Errorf("with a port in the environment: %s", got)
	}

	if got := execURL("llama-server -m x"); got != "http://localhost:8095" {
		t.Errorf("with a port in the environment: %s", got)
	}
}

func TestExecHost(t *testing.T) {
	t.Parallel()

	for command, want := range map[string]string{
		"vllm serve m --host 0.0.0.0 --port 8001":         "http://localhost:8001",
		"vllm serve m --host=10.0.0.5":                    "http://10.0.0.5:8000",
		"llama-server --host ::1 --port 8081":             "http://[::1]:8081",
		"llama-server --host :: --port 8081":              "http://localhost:8081",
		"ssh gpu vllm serve m --host 10.0.0.5":            "http://localhost:8000",
		"OLLAMA_HOST=http://127.0.0.1:11500 ollama serve": "http://127.0.0.1:11500",
	} {
		if got := execURL(command); got != want {
			t.Errorf("%s: %s, want %s", command, got, want)
		}
	}
}

var startedServer = regexp.MustCompile(`started the model server .*\bpid=(\d+)`)

// serverPIDs are the model servers that --exec has started, as --verbose tells.
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
// it and all that it started, and what these started. Only Linux tells.
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
		"--exec", "promptmill sim --listen " + address +
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
		t.Errorf("the load time, of 1 s, is told as %v", r.ModelLoadTimeSeconds)
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
