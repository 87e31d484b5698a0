package supervise

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const gib = 1 << 30

// inGiB returns a size as a server rounds it.
func inGiB(n float64) int64 { return int64(n * gib) }

var startups = []struct {
	name, text string
	want       Memory
}{
	{"vLLM 0.19", `
(EngineCore pid=258) INFO 04-18 20:24:11 [gpu_model_runner.py:4879] Model loading took 13.75 GiB memory and 62.336108 seconds
(EngineCore pid=258) INFO 04-18 20:24:40 [gpu_worker.py:440] Available KV cache memory: 36.5 GiB
(EngineCore pid=258) INFO 04-18 20:24:40 [kv_cache_utils.py:1708] GPU KV cache size: 396,928 tokens
(EngineCore pid=258) INFO 04-18 20:24:40 [kv_cache_utils.py:1711] Maximum concurrency for 131,072 tokens per request: 3.03x
(EngineCore pid=258) INFO 04-18 20:24:52 [gpu_model_runner.py:6243] Graph capturing finished in 2 secs, took 0.125 GiB
(EngineCore pid=258) INFO 04-18 20:24:52 [gpu_worker.py:621] CUDA graph pool memory: 0.11 GiB (actual), 0.14 GiB (estimated), difference: 0.03 GiB (25.0%).`,
		Memory{Weights: 13.75 * gib, KVCache: 36.5 * gib, KVTokens: 396928, Graphs: gib / 8}},
	{"tokens and concurrency in one line", `
INFO 09-21 12:50:12 [model_runner.py:404] Model loading took 17.5 GiB memory and 12.003756 seconds
INFO 09-21 12:50:52 [kv_cache_utils.py:2481] GPU KV cache size: 75,456 tokens, Maximum concurrency for 4,096 tokens per request: 18.42x`,
		Memory{Weights: 17.5 * gib, KVTokens: 75456}},
	{"model runner V2", `
(EngineCore pid=1265223) INFO 06-02 00:51:40 [model_runner.py:295] Model loading took 7.5 GiB and 32.969258 seconds`,
		Memory{Weights: 7.5 * gib}},
	{"cache of a given size", `
(EngineCore pid=2461) INFO 09-11 16:26:47 [gpu_worker.py:381] Initial free memory 10.04 GiB, reserved 0.5 GiB memory for KV Cache as specified by kv_cache_memory_bytes config and skipped memory profiling. This does not respect the gpu_memory_utilization config.
(EngineCore pid=2461) INFO 09-11 16:26:47 [kv_cache_utils.py:1710] GPU KV cache size: 5,529 tokens`,
		Memory{KVCache: gib / 2, KVTokens: 5529}},
	{"two GPUs", `
(VllmWorker rank=0 pid=11) INFO [gpu_model_runner.py:2581] Model loading took 8.5 GiB and 31.1 seconds
(VllmWorker rank=1 pid=12) INFO [gpu_model_runner.py:2581] Model loading took 8.25 GiB and 31.2 seconds
(VllmWorker rank=0 pid=11) INFO [gpu_worker.py:227] Available KV cache memory: 10.25 GiB
(VllmWorker rank=1 pid=12) INFO [gpu_worker.py:227] Available KV cache memory: 10.5 GiB
INFO [kv_cache_utils.py:634] GPU KV cache size: 90,000 tokens
INFO [kv_cache_utils.py:634] GPU KV cache size: 80,000 tokens
(VllmWorker rank=0 pid=11) INFO [gpu_model_runner.py:1933] Graph capturing finished in 21 secs, took 0.25 GiB
(VllmWorker rank=1 pid=12) INFO [gpu_model_runner.py:1933] Graph capturing finished in 21 secs, took 0.5 GiB`,
		Memory{Weights: 8.5 * gib, KVCache: 10.25 * gib, KVTokens: 80000, Graphs: gib / 2}},
	{"vLLM 0.7", `
INFO 03-21 20:15:10 [model_runner.py:1110] Loading model weights took 12.5000 GB
INFO 03-21 20:15:45 [worker.py:267] the current vLLM instance can use total_gpu_memory (79.19GiB) x gpu_memory_utilization (0.90) = 71.27GiB
INFO 03-21 20:15:45 [worker.py:267] model weights take 12.55GiB; non_torch_memory takes 0.16GiB; PyTorch activation peak memory takes 2.38GiB; the rest of the memory reserved for KV Cache is 56.25GiB.
INFO 03-21 20:15:46 [executor_base.py:111] # cuda blocks: 7191, # CPU blocks: 512
INFO 03-21 20:15:46 [executor_base.py:116] Maximum concurrency for 32768 tokens per request: 3.51x
INFO 03-21 20:16:10 [model_runner.py:1562] Graph capturing finished in 20 secs, took 0.25 GiB`,
		Memory{Weights: 13475459891, KVCache: 56.25 * gib, KVTokens: 7191 * 16, Graphs: gib / 4}},
	{"vLLM 0.6, blocks of 32 tokens", `
INFO 12-13 02:10:28 worker.py:237] Memory profiling results: duration=72.36 seconds, total_gpu_memory=79.15GiB, kv_cache_size=34.75GiB, gpu_memory_utilization=0.90.
INFO 12-13 02:10:29 distributed_gpu_executor.py:58] # GPU blocks: 189945, # CPU blocks: 21845
INFO 12-13 02:10:29 distributed_gpu_executor.py:62] Maximum concurrency for 1024 tokens per request: 5935.78x`,
		Memory{KVCache: 34.75 * gib, KVTokens: 189945 * 32}},
	{"vLLM 0.4", `
INFO 02-29 19:21:45 model_runner.py:90] Loading model weights took 244.5 MB
INFO 02-29 19:21:45 llm_engine.py:338] # GPU blocks: 76240, # CPU blocks: 7281`,
		Memory{Weights: 244.5 * (1 << 20)}},
	{"SGLang", readTestdata("sglang-0.5.log"),
		Memory{Weights: inGiB(80.31), KVCache: inGiB(9.21), KVTokens: 1226984, Graphs: inGiB(.79)}},
	{"ranks of SGLang", `
[2025-11-10 19:58:14 TP0] Load weight end. type=LlamaForCausalLM, dtype=torch.bfloat16, avail mem=75.11 GB, mem usage=10.50 GB.
[2025-11-10 19:58:14 TP1] Load weight end. type=LlamaForCausalLM, dtype=torch.bfloat16, avail mem=75.11 GB, mem usage=10.75 GB.
[2025-11-10 19:58:15 TP0] KV Cache is allocated. #tokens: 834615, K size: 30.25 GB, V size: 30.25 GB
[2025-11-10 19:58:15 TP1] KV Cache is allocated. #tokens: 834615, K size: 30.25 GB, V size: 30.25 GB
[2025-11-10 19:58:15 TP0] KV Cache is allocated. #tokens: 834615, K size: 0.50 GB, V size: 0.50 GB
[2025-11-10 19:59:09 TP1] Capture cuda graph end. Time elapsed: 11.35 s. mem usage=1.25 GB. avail mem=11.22 GB.
[2025-11-10 19:59:09 TP0] Capture cuda graph end. Time elapsed: 11.39 s. mem usage=1.00 GB. avail mem=11.17 GB.
[2025-11-10 19:59:27 TP0] Capture piecewise CUDA graph end. Time elapsed: 17.62 s. mem usage=2.50 GB. avail mem=21.22 GB.
[2025-11-10 19:59:28 TP0] max_total_num_tokens=834615, chunked_prefill_size=8192, max_prefill_tokens=16384`,
		Memory{Weights: inGiB(10.75), KVCache: inGiB(60.5), KVTokens: 834615, Graphs: inGiB(3.5)}},
	{"llama.cpp", readTestdata("llama.cpp-b4687.log"),
		Memory{Weights: 42708500, KVCache: 9 << 20, KVTokens: 512}},
	{"llama.cpp on two GPUs, with a draft model and caches of two kinds", `
load_tensors: loading model tensors, this can take a while... (mmap = true)
load_tensors:        CUDA0 model buffer size =  4096.00 MiB
load_tensors:        CUDA1 model buffer size =  5120.00 MiB
load_tensors:   CPU_Mapped model buffer size =  9000.00 MiB
llama_context: n_ctx         = 131072
llama_kv_cache_unified:      CUDA0 KV buffer size =   500.00 MiB
llama_kv_cache_unified:      CUDA1 KV buffer size =   600.00 MiB
llama_kv_cache_unified:      CUDA0 KV buffer size =    12.00 MiB
load_tensors: loading model tensors, this can take a while... (mmap = true)
load_tensors:        CUDA0 model buffer size =   512.00 MiB
llama_context: n_ctx         = 4096
llama_kv_cache_unified:      CUDA0 KV buffer size =    64.00 MiB`,
		Memory{Weights: 5 * gib, KVCache: 512 << 20, KVTokens: 131072}},
	{"nothing left for the cache", `
INFO [gpu_worker.py:227] Available KV cache memory: -2.81 GiB
INFO [gpu_model_runner.py:1933] Graph capturing finished in 3 secs, took -0.73 GiB
ValueError: No available memory for the cache blocks.`,
		Memory{}},
	{"other lines", `
INFO [default_loader.py:397] Loading weights took 26.93 seconds
INFO [model_runner.py:1562] Graph capturing finished in 69 secs.
INFO [kv_cache_utils.py:1711] Maximum concurrency for 131,072 tokens per request: 3.03x
Multiplying the GPU KV cache size by the cp_world_size 2 (pcp_world_size 1 * dcp_world_size 2).
Model loading took 1.2.3 GiB memory and 5 seconds
GPU KV cache size: ,,, tokens`,
		Memory{}},
}

func TestMemory(t *testing.T) {
	t.Parallel()

	for _, tt := range startups {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var m memoryReader
			for line := range strings.SplitSeq(tt.text, "\n") {
				m.parseLine([]byte(line))
			}

			if diff := cmp.Diff(tt.want, m.Memory); diff != "" {
				t.Errorf("memory (-want +got):\n%s", diff)
			}
		})
	}
}

// The sizes are plausible, whatever is in the log.
func FuzzMemoryReader(f *testing.F) {
	for _, s := range startups {
		f.Add(s.text)
	}

	f.Fuzz(func(t *testing.T, text string) {
		var m memoryReader
		for line := range strings.SplitSeq(text, "\n") {
			m.parseLine([]byte(line))
		}

		for _, n := range []int64{m.Weights, m.KVCache, m.Graphs, m.KVTokens} {
			if n < 0 || n > 1<<60 {
				t.Errorf("%+v", m)
			}
		}
	})
}
