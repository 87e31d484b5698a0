package supervise

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Memory has the figures that the log of vLLM, SGLang or llama.cpp reports about its memory while it
// loads; 0: unknown. Bytes are per GPU: if several report theirs, the most for weights and graphs, the
// least for the cache, since that bounds them all. Tokens are per engine.
type Memory struct {
	Weights  int64 // bytes
	KVCache  int64 // bytes
	Graphs   int64 // bytes, of CUDA graphs
	KVTokens int64 // that fit into the KV cache
}

// The wordings of vLLM from 0.4 (2024) on. Its GB are also GiB.
const sizePattern = `([\d.]+) ?([KMGT])i?B\b`

var (
	weightsLine = regexp.MustCompile(`(?:Model loading|Loading model weights) took ` + sizePattern +
		`|model weights take ` + sizePattern)
	cacheLine = regexp.MustCompile(`Available KV cache memory: ` + sizePattern +
		`|reserved for KV Cache is ` + sizePattern +
		`|kv_cache_size=` + sizePattern + `|reserved ` + sizePattern + ` memory for KV Cache`)
	graphsLine = regexp.MustCompile(`Graph capturing finished in [\d.]+ secs?, took ` + sizePattern)
	tokensLine = regexp.MustCompile(`KV cache size: ([\d,]+) tokens`)

	// Until 0.7 the log had the number of blocks, and how many requests of the longest kind
	// fit: both give the size of a block.
	blocksLine      = regexp.MustCompile(`# (?:GPU|cuda|rocm|xpu) blocks: (\d+)`)
	concurrencyLine = regexp.MustCompile(`Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x`)
)

// The wordings of SGLang from 0.4 (2025) on, in model_executor/model_runner.py and
// mem_cache/memory_pool.py. Its GB are GiB, too. Its ranks report several caches and kinds of graphs.
var (
	sglangWeightsLine = regexp.MustCompile(`Load weight end\..+mem usage=` + sizePattern)
	sglangCacheLine   = regexp.MustCompile(`KV Cache is allocated\..+(?:KV size: ` + sizePattern +
		`|K size: ` + sizePattern + `, V size: ` + sizePattern + `)`)
	sglangGraphsLine = regexp.MustCompile(`Capture .*graph end\..+mem usage=` + sizePattern)
	sglangTokensLine = regexp.MustCompile(`max_total_num_tokens=(\d+)`)
)

// The wordings of llama.cpp from b3000 (2024) on, in src/llama-model.cpp and src/llama-kv-cache.cpp,
// where it is verbose enough. Buffers of a device are added.
var (
	tensorsLine     = regexp.MustCompile(`load_tensors: loading model tensors`)
	modelBufferLine = regexp.MustCompile(`load_tensors: +(\S+) (?:model )?buffer size = +` + sizePattern)
	contextLine     = regexp.MustCompile(`llama_(?:context\w*|init_from_model|new_context_with_model): n_ctx += (\d+)`)
	cacheBufferLine = regexp.MustCompile(` +(\S+) KV buffer size = +` + sizePattern)
	hostBuffer      = regexp.MustCompile(`^(?:CPU|BLAS)|_Host$`)
)

// memoryReader gathers the sizes in the lines of a log.
type memoryReader struct {
	Memory
	blocks int64

	rankCaches, rankGraphs     parts // of SGLang, by rank
	modelBuffers, cacheBuffers parts // of llama.cpp, by device, of the latest model and context
}

// parts are bytes by who has them.
type parts map[string]int64

// add adds bytes, and returns all of the one who has them.
func (p *parts) add(who string, bytes int64) int64 {
	if *p == nil {
		*p = parts{}
	}

	if _, ok := (*p)[who]; !ok && len(*p) >= maxSources {
		return 0
	}

	(*p)[who] = min((*p)[who]+bytes, 1<<50)

	return (*p)[who]
}

// least returns the bytes of the one who has the least; 0: nobody has any.
func (p *parts) least() (bytes int64) {
	for _, n := range *p {
		bytes = minKnown(bytes, n)
	}
	return bytes
}

// parseLine takes a line of the log.
func (m *memoryReader) parseLine(line []byte) {
	m.parseVLLM(line)
	m.parseSGLang(line)
	m.parseLlama(line)
}

// parseVLLM takes a line that may be vLLM's.
func (m *memoryReader) parseVLLM(line []byte) {
	if n := parseSize(weightsLine.FindSubmatch(line)); n > 0 {
		m.Weights = max(m.Weights, n)
	}

	if n := parseSize(cacheLine.FindSubmatch(line)); n > 0 {
		m.KVCache = minKnown(m.KVCache, n)
	}

	if n := parseSize(graphsLine.FindSubmatch(line)); n > 0 {
		m.Graphs = max(m.Graphs, n)
	}

	if match := tokensLine.FindSubmatch(line); match != nil {
		m.KVTokens = minKnown(m.KVTokens, parseCount(match[1]))
	}

	if match := blocksLine.FindSubmatch(line); match != nil {
		m.blocks = parseCount(match[1])
	}

	if match := concurrencyLine.FindSubmatch(line); match != nil && m.blocks > 0 {
		requests, _ := strconv.ParseFloat(string(match[2]), 64)
		block := math.Round(requests * float64(parseCount(match[1])) / float64(m.blocks))
		if block <= 1<<16 {
			m.KVTokens = minKnown(m.KVTokens, m.blocks*int64(block))
		}
	}
}

// parseSGLang takes a line that may be SGLang's.
func (m *memoryReader) parseSGLang(line []byte) {
	rank := ""
	if match := sourceTag.FindSubmatch(line); match != nil {
		rank = string(match[2])
	}

	if n := parseSize(sglangWeightsLine.FindSubmatch(line)); n > 0 {
		m.Weights = max(m.Weights, n)
	}

	if match := sglangCacheLine.FindSubmatch(line); match != nil {
		bytes := parseSize(match[:5])
		if match[5] != nil {
			bytes += parseSize([][]byte{nil, match[5], match[6]})
		}

		m.rankCaches.add(rank, bytes)
		m.KVCache = m.rankCaches.least()
	}

	if n := parseSize(sglangGraphsLine.FindSubmatch(line)); n > 0 {
		m.Graphs = max(m.Graphs, m.rankGraphs.add(rank, n))
	}

	if match := sglangTokensLine.FindSubmatch(line); match != nil {
		m.KVTokens = minKnown(m.KVTokens, parseCount(match[1]))
	}
}

// parseLlama takes a line that may be llama.cpp's. It loads a draft model, and a trial of the settings
// that fit, like the model itself: the largest counts.
func (m *memoryReader) parseLlama(line []byte) {
	if tensorsLine.Match(line) {
		m.modelBuffers = nil
	}

	if match := contextLine.FindSubmatch(line); match != nil {
		m.cacheBuffers = nil
		m.KVTokens = max(m.KVTokens, parseCount(match[1]))
	}

	if match := modelBufferLine.FindSubmatch(line); match != nil && !hostBuffer.Match(match[1]) {
		m.Weights = max(m.Weights, m.modelBuffers.add(string(match[1]), parseSize(match[1:])))
	}

	if match := cacheBufferLine.FindSubmatch(line); match != nil && !hostBuffer.Match(match[1]) {
		m.cacheBuffers.add(string(match[1]), parseSize(match[1:]))
		m.KVCache = max(m.KVCache, m.cacheBuffers.least())
	}
}

// minKnown returns the smaller of two numbers of which 0 is unknown.
func minKnown(a, b int64) int64 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// parseSize returns the size in a match of one of several patterns, each of which has a number
// and a unit; 0 if there is none that is plausible.
func parseSize(match [][]byte) int64 {
	for i := 1; i+1 < len(match); i += 2 {
		if match[i] == nil {
			continue
		}

		number, err := strconv.ParseFloat(string(match[i]), 64)
		shift := 10 * (1 + strings.IndexByte("KMGT", match[i+1][0]))
		if n := number * float64(int64(1)<<shift); err == nil && n < 1<<50 {
			return int64(n)
		}
	}

	return 0
}

// parseCount parses a number such as 123,456; it returns 0 if that is implausible.
func parseCount(digits []byte) int64 {
	n, err := strconv.ParseInt(strings.ReplaceAll(string(digits), ",", ""), 10, 64)
	if err != nil || n > 1<<40 {
		return 0
	}
	return n
}
