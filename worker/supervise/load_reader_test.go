package supervise

import (
	"embed"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// newLoad returns a load of phases in seconds; below 0: unknown.
func newLoad(download, weights, compile, graphs, warmUp float64) Load {
	phase := func(seconds float64) *time.Duration {
		if seconds < 0 {
			return nil
		}
		return new(time.Duration(seconds * float64(time.Second)).Round(time.Microsecond))
	}

	return Load{
		Download: phase(download),
		Weights:  phase(weights),
		Compile:  phase(compile),
		Graphs:   phase(graphs),
		WarmUp:   phase(warmUp),
	}
}

// loadLogs are lines as servers wrote them.
var loadLogs = []struct {
	name, text string
	want       Load
}{
	{"vLLM 0.21, from a file system", readTestdata("vllm-0.21.log"),
		newLoad(0, 433.18481, 30.08, 4, 60.86-30.08-4+33.132)},
	{"SGLang 0.5", readTestdata("sglang-0.5.log"), newLoad(-1, 329.53, -1, 10.1, 21)},
	{"llama.cpp b4687", readTestdata("llama.cpp-b4687.log"), newLoad(-1, .018305, -1, -1, .035005)},
	{"llama.cpp b9700", readTestdata("llama.cpp-b9700.log"), newLoad(-1, 18.071964, -1, -1, .326275)},
	{"vLLM 0.19, downloaded", `
(EngineCore pid=1504) INFO 04-24 12:35:14 [weight_utils.py:581] Time spent downloading weights for kaitchup/Qwen3.5-27B-autoround-W4A16: 17.034664 seconds
(EngineCore pid=1504) INFO 04-24 12:35:29 [default_loader.py:384] Loading weights took 15.06 seconds
(EngineCore pid=1504) INFO 04-24 12:35:32 [gpu_model_runner.py:4879] Model loading took 18.1 GiB memory and 35.5 seconds`,
		newLoad(17.034664, 35.5-17.034664, -1, -1, -1)},
	{"vLLM 0.8", `
INFO 03-23 05:01:50 [loader.py:447] Loading weights took 3.42 seconds
INFO 03-23 05:01:52 [gpu_model_runner.py:1186] Model loading took 7.5552 GB and 5.093652 seconds
INFO 03-23 05:02:31 [backends.py:409] Dynamo bytecode transform time: 7.30 s
INFO 03-23 05:02:56 [backends.py:144] Compiling a graph for general shape takes 27.31 s
INFO 03-23 05:03:04 [monitor.py:33] torch.compile takes 34.61 s in total
INFO 03-23 05:03:30 [gpu_model_runner.py:1499] Graph capturing finished in 25 secs, took 1.58 GiB
INFO 03-23 05:03:30 [core.py:138] init engine (profile, create kv cache, warmup model) took 70.27 seconds`,
		newLoad(0, 5.093652, 34.61, 25, 70.27-34.61-25)},
	{"compiled before", `
INFO 07-10 15:18:27 [backends.py:519] Dynamo bytecode transform time: 5.27 s
INFO 07-10 15:18:31 [backends.py:155] Directly load the compiled graph(s) for shape None from the cache, took 2.828 s
INFO 07-10 15:18:31 [monitor.py:34] torch.compile takes 5.27 s in total`,
		newLoad(-1, -1, 8.098, -1, -1)},
	{"torch.compile and the warm-up in one figure", `
(EngineCore pid=8878) INFO 07-22 04:31:26 [backends.py:1048] Dynamo bytecode transform time: 9.48 s
(EngineCore pid=8878) INFO 07-22 04:31:48 [backends.py:387] Compiling a graph for compile range (1, 16384) takes 20.50 s
(EngineCore pid=8878) INFO 07-22 04:31:51 [monitor.py:48] torch.compile and initial profiling/warmup run together took 34.69 s in total`,
		newLoad(-1, -1, 29.98, -1, -1)},
	{"several GPUs of vLLM, in colours", "" +
		"\x1b[0;36m(Worker_TP0 pid=41702)\x1b[0;0m INFO 10-06 15:57:20 [default_loader.py:267] Loading weights took 20.10 seconds\n" +
		"\x1b[0;36m(Worker_TP1 pid=41700)\x1b[0;0m INFO 10-06 15:57:21 [default_loader.py:267] Loading weights took 21.30 seconds\n" +
		"\x1b[0;36m(Worker_TP0 pid=41702)\x1b[0;0m INFO 10-06 15:57:45 [backends.py:559] Dynamo bytecode transform time: 13.11 s\n" +
		"\x1b[0;36m(Worker_TP1 pid=41700)\x1b[0;0m INFO 10-06 15:57:50 [backends.py:559] Dynamo bytecode transform time: 12.00 s\n" +
		"\x1b[0;36m(Worker_TP0 pid=41702)\x1b[0;0m INFO 10-06 15:57:55 [gpu_model_runner.py:3480] Graph capturing finished in 8 secs, took 0.31 GiB\n" +
		"\x1b[0;36m(Worker_TP1 pid=41700)\x1b[0;0m INFO 10-06 15:57:55 [gpu_model_runner.py:3480] Graph capturing finished in 9 secs, took 0.31 GiB\n",
		newLoad(-1, 21.3, 13.11, 9, -1)},
	{"a model and its draft model", `
(EngineCore pid=7) INFO [default_loader.py:384] Loading weights took 20.00 seconds
(EngineCore pid=7) INFO [default_loader.py:384] Loading weights took 1.50 seconds
(EngineCore pid=7) INFO [gpu_model_runner.py:4879] Model loading took 18.1 GiB memory and 21.0 seconds`,
		newLoad(0, 21.5, -1, -1, -1)},
	{"ranks of SGLang 0.4", `
[2025-08-13 14:47:38 TP0] Load weight begin. avail mem=175.34 GB
[2025-08-13 14:47:40 TP1] Load weight begin. avail mem=175.34 GB
[2025-08-13 14:54:24 TP0] Load weight end. type=DeepseekV3ForCausalLM, dtype=torch.bfloat16, avail mem=80.84 GB, mem usage=94.50 GB.
[2025-08-13 14:54:25 TP1] Load weight end. type=DeepseekV3ForCausalLM, dtype=torch.bfloat16, avail mem=80.84 GB, mem usage=94.50 GB.
[2025-11-10 19:59:09 TP1] Capture cuda graph end. Time elapsed: 11.35 s. mem usage=1.04 GB. avail mem=11.22 GB.
[2025-11-10 19:59:09 TP0] Capture cuda graph end. Time elapsed: 11.39 s. mem usage=1.00 GB. avail mem=11.17 GB.
[2025-11-10 19:59:27 TP0] Capture piecewise CUDA graph end. Time elapsed: 17.62 s. mem usage=2.32 GB. avail mem=21.22 GB.`,
		newLoad(-1, 406, -1, 29.01, -1)},
	{"kinds of graphs", `
[2026-07-21 10:36:54] Capture target prefill CUDA graph end. elapsed=3.83 s, mem usage=0.28 GB, avail mem=5.23 GB.
[2026-07-21 10:36:55] Capture target decode CUDA graph end. elapsed=0.80 s, mem usage=0.11 GB, avail mem=5.12 GB.`,
		newLoad(-1, -1, -1, 4.63, -1)},
	{"weights of SGLang that are there", `
[2025-12-23 14:18:01] Load weight begin. avail mem=46.81 GB
[2025-12-23 14:18:01] Found local HF snapshot for meta-llama/Llama-3.1-8B-Instruct at /home/user/.cache/huggingface/hub/models--meta-llama--Llama-3.1-8B-Instruct/snapshots/0e9e39f; skipping download.
[2025-12-23 14:18:06] Load weight end. elapsed=4.85 s, type=LlamaForCausalLM, dtype=torch.bfloat16, avail mem=31.70 GB, mem usage=15.11 GB.`,
		newLoad(0, 4.85, -1, -1, -1)},
	{"progress bars of Hugging Face Hub", "" +
		"model-00001-of-00002.safetensors:  45%|████▌     | 2.24G/4.98G [00:37<00:46, 59.8MB/s]\r" +
		"model-00001-of-00002.safetensors: 100%|██████████| 4.98G/4.98G [01:23<00:00, 59.8MB/s]\r" +
		"model-00002-of-00002.safetensors: 100%|██████████| 4.98G/4.98G [1:01:20<00:00, 59.8MB/s]\r" +
		"Fetching 10 files: 100%|██████████| 10/10 [22:10<00:00, 133.04s/it]\n",
		newLoad(3680, -1, -1, -1, -1)},
	{"files that are there", `
Fetching 10 files: 100%|██████████| 10/10 [00:00<00:00, 1146.92it/s]`,
		newLoad(0, -1, -1, -1, -1)},
	{"nothing to read", `
Loading weights took 1.2.3 seconds
Loading weights took 1e9 seconds
Loading weights took 99999999999 seconds
Fetching 10 files: 100%|██████████| 10/10 [99999:00<00:00, 1146.92it/s]
0.19.526.200 W llama_context: n_ctx_seq (131072) < n_ctx_train (262144)
The server is fired up and ready to roll!`,
		newLoad(-1, -1, -1, -1, -1)},
}

// Tests start this program in other folders.
//
//go:embed testdata/*.log
var testdata embed.FS

func readTestdata(name string) string {
	text, err := testdata.ReadFile("testdata/" + name)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func isLineEnd(r rune) bool { return r == '\n' || r == '\r' }

func TestLoad(t *testing.T) {
	t.Parallel()

	for _, tt := range loadLogs {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var l loadReader
			for line := range strings.FieldsFuncSeq(tt.text, isLineEnd) {
				l.parseLine([]byte(line), time.Hour)
			}

			got := l.load()
			for _, phase := range []*time.Duration{got.Download, got.Weights, got.Compile, got.Graphs, got.WarmUp} {
				if phase != nil {
					*phase = phase.Round(time.Microsecond)
				}
			}

			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("load (-want +got):\n%s", diff)
			}
		})
	}
}

// Lines without a time are timed by when they were read.
func TestLoadWithoutTimesInTheLog(t *testing.T) {
	t.Parallel()

	var l loadReader
	for i, line := range []string{
		"load_tensors: loading model tensors, this can take a while... (mmap = true)",
		"load_tensors:        CUDA0 model buffer size =    40.73 MiB",
		"llama_context: constructing llama_context",
		"common_init_from_params: warming up the model with an empty run - please wait ... (--no-warmup to disable)",
		"srv    load_model: initializing slots, n_slots = 4",
	} {
		l.parseLine([]byte(line), time.Duration(i*i)*time.Second)
	}

	if diff := cmp.Diff(newLoad(-1, 4, -1, -1, 7), l.load()); diff != "" {
		t.Errorf("load (-want +got):\n%s", diff)
	}
}

// The durations are plausible, whatever is in the log.
func FuzzLoadReader(f *testing.F) {
	for _, s := range loadLogs {
		f.Add(s.text)
	}

	f.Fuzz(func(t *testing.T, text string) {
		var l loadReader
		var at time.Duration
		for line := range strings.FieldsFuncSeq(text, isLineEnd) {
			at += time.Second
			l.parseLine([]byte(line), at)
		}

		got := l.load()
		for _, phase := range []*time.Duration{got.Download, got.Weights, got.Compile, got.Graphs, got.WarmUp} {
			if phase != nil && (*phase < 0 || *phase > 2*maxDuration) {
				t.Errorf("a phase of %v", *phase)
			}
		}
	})
}
