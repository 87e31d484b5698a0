package modelservers

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"
)

// Flags are added behind the last word of the server, wherever it is in the command.
func TestLaunchAdd(t *testing.T) {
	t.Parallel()

	for command, want := range map[string]string{
		"vllm serve m --port {port}":                 "vllm: vllm serve m --port {port} --x 1",
		"vllm serve m --port 8000 2>&1 | tee log":    "vllm: vllm serve m --port 8000 --x 1 2>&1 | tee log",
		"vllm serve m>log":                           "vllm: vllm serve m --x 1 >log",
		"cd /x && exec vllm serve m &":               "vllm: cd /x && exec vllm serve m --x 1 &",
		"vllm serve m \\\n  --port {port}\n":         "vllm: vllm serve m \\\n  --port {port} --x 1\n",
		"CUDA_VISIBLE_DEVICES={gpu} vllm serve m":    "vllm: CUDA_VISIBLE_DEVICES={gpu} vllm serve m --x 1",
		"uv run --with vllm vllm serve m":            "vllm: uv run --with vllm vllm serve m --x 1",
		"/opt/vllm/bin/vllm serve 'a b' > 'the log'": "vllm: /opt/vllm/bin/vllm serve 'a b' --x 1 > 'the log'",
		"python3 -m vllm.entrypoints.openai.api_server --model m": "vllm: " +
			"python3 -m vllm.entrypoints.openai.api_server --model m --x 1",
		"python -m sglang.launch_server --model-path m":      "sglang: python -m sglang.launch_server --model-path m --x 1",
		"sglang serve --model-path m":                        "sglang: sglang serve --model-path m --x 1",
		"/opt/llama.cpp/llama-server -m vllm.gguf":           "llama-server: /opt/llama.cpp/llama-server -m vllm.gguf --x 1",
		"bash -c '. venv/bin/activate; vllm serve m'":        "vllm: bash -c '. venv/bin/activate; vllm serve m --x 1'",
		`sh -c "vllm serve m --port '8083'" # it`:            `vllm: sh -c 'vllm serve m --port '\''8083'\'' --x 1' # it`,
		"docker run -p {port}:8000 vllm/vllm-openai:v1 -q a": "vllm: docker run -p {port}:8000 vllm/vllm-openai:v1 -q a --x 1",
		"docker run ghcr.io/ggml-org/llama.cpp:server-cuda -m m": "llama-server: " +
			"docker run ghcr.io/ggml-org/llama.cpp:server-cuda -m m --x 1",
	} {
		l, err := FindLaunch(command)
		if err != nil {
			t.Errorf("%s: %v", command, err)
			continue
		}
		if got := l.Program + ": " + l.Add("--x", "1"); got != want {
			t.Errorf("%s: %s, want %s", command, got, want)
		}
	}
}

// A word reaches the program as it is, also in the script of a shell in the script of a shell.
func TestLaunchAddQuotes(t *testing.T) {
	t.Parallel()

	const word = `it's {"a": "$HOME"} \`
	for _, command := range []string{
		"printf %s\\\\n vllm serve",
		"sh -c 'printf %s\\\\n vllm serve'",
		`sh -c "sh -c 'printf %s\\\\n vllm serve'"`,
	} {
		l, err := FindLaunch(command)
		if err != nil {
			t.Fatal(err)
		}

		out, err := exec.Command("sh", "-c", l.Add(word)).Output()
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Split(strings.TrimSpace(string(out)), "\n"); lines[len(lines)-1] != word {
			t.Errorf("%s: the program got %q", command, lines)
		}
	}
}

func TestFindLaunchRefuses(t *testing.T) {
	t.Parallel()

	for command, want := range map[string]string{
		"ollama serve":              "none of vllm serve",
		"./start.sh {model} {port}": "none of vllm serve",
		"pip install vllm":          "none of vllm serve",
		"sh -c './start.sh'":        "none of vllm serve",
		"vllm bench m":              "none of vllm serve",
		"vllm serve 'm":             "the shell cannot read it",
		"if x; then vllm serve a; else vllm serve b; fi":   "names 2 model servers",
		"sh -c 'vllm serve a & llama-server -m b'":         "names 2 model servers",
		`export M=a; sh -c "vllm serve a$(cat b) --seed 1`: "the shell cannot read it",
	} {
		if l, err := FindLaunch(command); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v, want %q", command, l, err, want)
		}
	}
}

// A script that the outer shell puts together cannot be written again as it was.
func TestFindLaunchRefusesScriptsOfTheOuterShell(t *testing.T) {
	t.Setenv("MODEL", "m")

	_, err := FindLaunch(`sh -c "vllm serve $MODEL"`)
	if err == nil || errors.Is(err, ErrNoLaunch) || !strings.Contains(err.Error(), "single quotes") {
		t.Errorf("%v, want that it asks for single quotes", err)
	}
}

func TestLaunchSets(t *testing.T) {
	for command, want := range map[string]bool{
		"vllm serve m --max-num-seqs 8":                                true,
		"vllm serve m --max-num-seqs=8":                                true,
		"vllm serve m --max_num_seqs 8":                                true,
		"vllm serve m --max-num-s 8":                                   true,
		"vllm serve m --max-num-seqs-x 8":                              false,
		"vllm serve m --max-model-len 8":                               false,
		"vllm serve m -- 8":                                            false,
		"docker run --max-num-seqs vllm/vllm-openai --seed 1":          false, // a flag of docker
		"sh -c 'vllm serve m --max-num-seqs 8'":                        true,
		"sh -c 'vllm serve m'":                                         false,
		"llama-server -np 8":                                           true,
		"llama-server --parallel 8":                                    true,
		"llama-server --para 8":                                        false, // it takes no beginnings
		"LLAMA_ARG_N_PARALLEL=8 llama-server":                          true,
		"LLAMA_ARG_N_PARALLEL=8 sh -c 'exec llama-server'":             true,
		"env LLAMA_ARG_N_PARALLEL=8 llama-server":                      true,
		"docker run -e LLAMA_ARG_N_PARALLEL=8 x/llama.cpp:server -c 8": true,
		"llama-server -n 8":                                            false,
	} {
		l, err := FindLaunch(command)
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		if got := l.Sets("--max-num-seqs", "-np", "--parallel", "LLAMA_ARG_N_PARALLEL"); got != want {
			t.Errorf("%s: %t, want %t", command, got, want)
		}
	}

	t.Setenv("LLAMA_ARG_N_PARALLEL", "8")
	if l, _ := FindLaunch("llama-server"); !l.Sets("LLAMA_ARG_N_PARALLEL") {
		t.Error("a variable of this process's environment is not seen")
	}
}

// Flags come back out of a command as they went in, and nothing else of it changes.
func FuzzLaunch(f *testing.F) {
	f.Add("vllm serve m --port {port} 2>&1 | tee log", "--x")
	f.Add("sh -c 'vllm serve m'", "it's")
	f.Add(`bash -lc "llama-server -m 'a b' \$x"`, "")
	f.Add("x=$(vllm serve) sglang serve <<E\nvllm serve\nE\n", "é\n")

	f.Fuzz(func(t *testing.T, command, word string) {
		if strings.ContainsRune(word, 0) || !utf8.ValidString(word) { // no program gets such a word from here
			t.Skip()
		}
		l, err := FindLaunch(command)
		if err != nil {
			return
		}

		again, err := FindLaunch(l.Add(word))
		if err != nil {
			t.Fatalf("%q with %q is %q: %v", command, word, l.Add(word), err)
		}
		for l.inner != nil {
			l, again = l.inner, again.inner
		}
		if n := len(again.flags); n != len(l.flags)+1 || again.flags[n-1] != word {
			t.Errorf("%q: flags %q became %q", command, l.flags, again.flags)
		}
	})
}
