package modelservers

import (
	"testing"
)

func TestCommandURL(t *testing.T) {
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
		"vllm serve m --config <(cat config.yaml) --port 8123":                    "8123",
		"vllm serve 'm --port 8123":                                               "8123", // the shell will refuse it
		"promptmill sim --sim-flavour ollama --listen 127.0.0.1:11434 --model m ": "11434",
	} {
		if got, want := commandURL(command), "http://localhost:"+port; got != want {
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
		"/bin/sh -c 'cd /x && llama-server -m x'":  "LLAMA_ARG_PORT=8080 /bin/sh -c 'cd /x && llama-server -m x'",
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

	if got := commandURL("llama-server -m x"); got != "http://localhost:8095" {
		t.Errorf("with a port in the environment: %s", got)
	}
}

func TestCommandHost(t *testing.T) {
	t.Parallel()

	for command, want := range map[string]string{
		"vllm serve m --host 0.0.0.0 --port 8001":         "http://localhost:8001",
		"vllm serve m --host=10.0.0.5":                    "http://10.0.0.5:8000",
		"llama-server --host ::1 --port 8081":             "http://[::1]:8081",
		"llama-server --host :: --port 8081":              "http://localhost:8081",
		"ssh gpu vllm serve m --host 10.0.0.5":            "http://localhost:8000",
		"OLLAMA_HOST=http://127.0.0.1:11500 ollama serve": "http://127.0.0.1:11500",
	} {
		if got := commandURL(command); got != want {
			t.Errorf("%s: %s, want %s", command, got, want)
		}
	}
}

// A script of one's own that names no port may listen anywhere.
func TestNamesServer(t *testing.T) {
	t.Parallel()

	for command, want := range map[string]bool{
		"vllm serve m":           true,
		"./start.sh --port 8123": true,
		"./start.sh m 8123":      false,
		"./start.sh":             false,
	} {
		if got := NamesServer(command); got != want {
			t.Errorf("%s: %t, want %t", command, got, want)
		}
	}
}

// The supervisor takes one command, which it puts exec env before. A person types any script of the shell.
func TestAsOneCommand(t *testing.T) {
	t.Parallel()

	for script, want := range map[string]string{
		"vllm serve m":                         "vllm serve m",
		"A=1 vllm serve m > log 2>&1":          "A=1 vllm serve m > log 2>&1",
		"exec llama-server -m x":               "llama-server -m x",
		" A=1 exec  vllm serve m":              " A=1 vllm serve m",
		"cd /x && vllm serve 'm n'":            `/bin/sh -c 'cd /x && vllm serve '\''m n'\'''`,
		". venv/bin/activate; exec vllm serve": "/bin/sh -c '. venv/bin/activate; exec vllm serve'",
		"export A=1\nvllm serve m":             "/bin/sh -c 'export A=1\nvllm serve m'",
		"vllm serve m | tee log":               "/bin/sh -c 'vllm serve m | tee log'",
		"(cd /x && vllm serve m)":              "/bin/sh -c '(cd /x && vllm serve m)'",
		"vllm serve m &":                       "vllm serve m &",
		"vllm serve 'm":                        "vllm serve 'm",
		"exec":                                 "exec",
		"":                                     "",
		"sh -c 'cd /x && exec vllm serve' 2>l": "sh -c 'cd /x && exec vllm serve' 2>l",
	} {
		if got := asOneCommand(script); got != want {
			t.Errorf("%s: %s, want %s", script, got, want)
		}
	}
}
