package tune

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/sweep"
)

// startProgram runs a command as a trial would, with the stand-ins of testdata for the model servers and echo for
// promptmill. It returns the command line of the simulated server, or what the stand-in says as it refuses.
func startProgram(t *testing.T, command string) (output string, ok bool) {
	t.Helper()

	folder, err := filepath.Abs("testdata/bin")
	if err != nil {
		t.Fatal(err)
	}

	cmd := exec.CommandContext(context.Background(), "sh", "-c", strings.ReplaceAll(command, "{port}", "8123"))
	cmd.Env = append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"), "PROMPTMILL=echo")
	out, err := cmd.CombinedOutput()

	return string(out), err == nil
}

// The programs take every value that a search tries, each with the one before it.
func TestProgramsTakeTheFlags(t *testing.T) {
	t.Parallel()

	for _, command := range []string{
		"vllm serve m --port {port}",
		"vllm serve --model m --port {port}",
		"python3 -m sglang.launch_server --model-path m --port {port}",
		"llama-server -m x.gguf --port {port}",
		"llama-server -m x.gguf --port {port} -c 32768",
		"llama-server -m x.gguf --port {port} --kv-unified --flash-attn auto",
	} {
		for _, context := range []int{0, 700} {
			s, err := New(sweep.Spec{Command: command}, context)
			if err != nil {
				t.Fatal(err)
			}

			var last []choice
			for _, f := range s.flags {
				for _, ladder := range f.ladders {
					for _, v := range ladder {
						c := choice{flag: f.name, value: v}
						checkTaken(t, s.spec([]choice{c}).Command)
						checkTaken(t, s.spec(append(last[:len(last):len(last)], c)).Command)
					}
				}
				last = append(last, choice{flag: f.name, value: f.ladders[0][0]})
			}
		}
	}
}

func checkTaken(t *testing.T, command string) {
	t.Helper()

	output, ok := startProgram(t, command)
	isFull := strings.Contains(output, "out of memory") // as the stand-in of vLLM is with 0.95 of the memory
	if !ok && !isFull || ok && !strings.HasPrefix(output, "sim ") {
		t.Errorf("%s: %s", command, output)
	}
}

// The stand-ins refuse what the programs refuse, so that taking a flag means something.
func TestProgramsRefuseOtherFlags(t *testing.T) {
	t.Parallel()

	for command, want := range map[string]string{
		"vllm serve m --max-sequences 8":                                             "unrecognized arguments: --max-sequences",
		"vllm serve m --max-num-seqs many":                                           "invalid int value",
		"vllm serve m --max-num-seqs":                                                "expected one argument",
		"vllm serve m --kv-cache-dtype q8_0":                                         "invalid choice: 'q8_0'",
		"vllm serve m --max-num-seqs 4096":                                           "must be greater than or equal to max_num_seqs",
		"vllm bench m":                                                               "no command serve",
		"python3 -m sglang.launch_server --model-path m --max-num-seqs 8":            "unrecognized arguments",
		"python3 -m sglang.launch_server --model-path m --kv-cache-dtype fp8":        "invalid choice: 'fp8'",
		"python3 -m sglang.other":                                                    "no module",
		"llama-server -m x --max-num-seqs 8":                                         "invalid argument: --max-num-seqs",
		"llama-server -m x -ctk fp8":                                                 "invalid choice: 'fp8'",
		"llama-server -m x --cache-type-k q8_0 --cache-type-v q8_0 --flash-attn off": "requires flash_attn",
		"llama-server -m x --parallel":                                               "expected value for argument",
	} {
		if output, ok := startProgram(t, command); ok || !strings.Contains(output, want) {
			t.Errorf("%s: %q, want %q", command, output, want)
		}
	}
}

// The slots of llama-server have room for a request each, where it is known what a request needs.
func TestLlamaContext(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		command string
		context int
		want    string
	}{
		{"llama-server -m x", 0, "--parallel 8 --kv-unified"},
		{"llama-server -m x", 700, "--parallel 8 --ctx-size 6144"}, // 8 × 768
		{"llama-server -m x -c 32768", 700, "--parallel 8 --kv-unified"},
		{"llama-server -m x -kvu", 700, "--parallel 8"},
		{"LLAMA_ARG_CTX_SIZE=9 llama-server -m x", 700, "--parallel 8 --kv-unified"},
	} {
		s, err := New(sweep.Spec{Command: c.command + " -ngl 99"}, c.context)
		if err != nil {
			t.Fatal(err)
		}
		if got := joinWords([]choice{{value: s.flags[0].ladders[0][0]}}); got != c.want {
			t.Errorf("%s, %d tokens: %s, want %s", c.command, c.context, got, c.want)
		}
	}
}
