package tune

import (
	"strconv"

	"github.com/promptmill/promptmill/deploy/modelservers"
)

// flag is a flag of a model server with the values to try.
type flag struct {
	name string
	// set are its spellings, and other flags and variables of the environment that decide the same: the flag is left
	// alone if the command sets one of them.
	set []string
	// ladders are the values to try. One ladder goes on as long as its values start and are not slower; the next one
	// begins if none of its values was kept.
	ladders [][]value
}

// value is a value of a flag.
type value struct {
	text  string
	words []string // the flags for the command
}

// flagsOf returns the flags to try with a model server, without those that its command sets.
func flagsOf(l *modelservers.Launch, context int) (flags []flag) {
	all := map[string][]flag{
		modelservers.VLLM:        vllmFlags,
		modelservers.SGLang:      sglangFlags,
		modelservers.LlamaServer: llamaFlags(l, context),
	}
	for _, f := range all[l.Program] {
		if !l.Sets(f.set...) {
			flags = append(flags, f)
		}
	}

	return flags
}

// plainFlag returns a flag whose values are passed as they are.
func plainFlag(name string, ladders ...[]string) flag {
	f := flag{name: name, set: []string{"--" + name}}
	for _, l := range ladders {
		var values []value
		for _, text := range l {
			values = append(values, value{text: text, words: []string{"--" + name, text}})
		}
		f.ladders = append(f.ladders, values)
	}

	return f
}

// vllmFlags are those of vLLM 0.33.0 (vllm/engine/arg_utils.py, vllm/config/cache.py). By itself it runs 256 sequences
// and 2,048 tokens a step, or 1,024 and 8,192 on a card of 70 GiB or more, or 1,024 and 16,384 on one of 160 GiB
// (EngineArgs.get_batch_defaults), in 0.92 of the memory. Chunked prefill, prefix caching and async scheduling are on
// by themselves wherever they can be. --max-model-len is left alone: it bounds a request, and the cache has pages.
var vllmFlags = []flag{
	plainFlag("max-num-seqs", []string{"512", "1024"}, []string{"128"}),
	plainFlag("max-num-batched-tokens", []string{"8192", "16384"}, []string{"4096"}),
	plainFlag("kv-cache-dtype", []string{"fp8"}),
	{
		name:    "gpu-memory-utilization",
		set:     []string{"--gpu-memory-utilization", "--device-memory-utilization", "--kv-cache-memory-bytes"},
		ladders: plainFlag("gpu-memory-utilization", []string{"0.95"}).ladders,
	},
	plainFlag("performance-mode", []string{"throughput"}), // larger CUDA graphs, kernels for many sequences
}

// sglangFlags are those of SGLang 0.5.23 (python/sglang/srt/arg_groups/fields, memory_hook.py) that its guide to tuning
// names (docs/advanced_features/hyperparameter_tuning). By itself it has a chunk of 2,048 to 16,384 tokens, by the
// memory of the card, and no bound on the requests that run but the cache. --context-length is left alone: it bounds a
// request, and the cache has pages.
var sglangFlags = []flag{
	plainFlag("schedule-conservativeness", []string{"0.3"}, []string{"1.3"}),
	plainFlag("max-running-requests", []string{"256", "128"}),
	plainFlag("chunked-prefill-size", []string{"8192", "16384"}, []string{"4096"}),
	plainFlag("kv-cache-dtype", []string{"fp8_e4m3"}),
	plainFlag("mem-fraction-static", []string{"0.92"}),
}

// llamaFlags are those of llama-server, as its README of November 2026 has them (tools/server/README.md). By itself it
// has 4 slots that share one cache, and batches of 512 tokens. Slots of their own are faster than shared ones (pull
// request 14363 of ggml-org/llama.cpp), if each has room for a request: so the context grows with them where it is
// known what a request needs, and they share the context of the model or of the command where it is not.
func llamaFlags(l *modelservers.Launch, context int) []flag {
	const (
		flashOn  = "on"
		allLayer = "99" // more than models have
	)

	slots := flag{name: "parallel", set: []string{"-np", "--parallel", "LLAMA_ARG_N_PARALLEL"}, ladders: [][]value{nil}}
	for _, n := range []int{8, 16, 32, 64} {
		v := value{text: strconv.Itoa(n), words: []string{"--parallel", strconv.Itoa(n)}}
		switch {
		case l.Sets("-kvu", "--kv-unified", "-no-kvu", "--no-kv-unified", "LLAMA_ARG_KV_UNIFIED"):
		case context > 0 && !l.Sets("-c", "--ctx-size", "LLAMA_ARG_CTX_SIZE"):
			v.words = append(v.words, "--ctx-size", strconv.Itoa(n*roundContext(context)))
		default:
			v.words = append(v.words, "--kv-unified")
		}
		slots.ladders[0] = append(slots.ladders[0], v)
	}

	cache := value{text: "q8_0", words: []string{"--cache-type-k", "q8_0", "--cache-type-v", "q8_0"}}
	if !l.Sets("-fa", "--flash-attn", "LLAMA_ARG_FLASH_ATTN") { // which a quantized cache of V needs
		cache.words = append(cache.words, "--flash-attn", flashOn)
	}

	return []flag{
		{
			name:    "gpu-layers",
			set:     []string{"-ngl", "--gpu-layers", "--n-gpu-layers", "LLAMA_ARG_N_GPU_LAYERS"},
			ladders: [][]value{{{text: allLayer, words: []string{"--gpu-layers", allLayer}}}},
		},
		slots,
		{
			name:    "ubatch-size",
			set:     []string{"-ub", "--ubatch-size", "LLAMA_ARG_UBATCH", "-b", "--batch-size", "LLAMA_ARG_BATCH"},
			ladders: plainFlag("ubatch-size", []string{"1024", "2048"}).ladders,
		},
		{
			name: "cache-type",
			set: []string{
				"-ctk", "--cache-type-k", "LLAMA_ARG_CACHE_TYPE_K",
				"-ctv", "--cache-type-v", "LLAMA_ARG_CACHE_TYPE_V",
			},
			ladders: [][]value{{cache}},
		},
	}
}

// roundContext rounds a number of tokens up to a whole block of llama.cpp's cache.
func roundContext(tokens int) int { return (tokens + 255) / 256 * 256 }
