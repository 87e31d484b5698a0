package supervise

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Memory has the figures that vLLM's log reports about its memory while it loads; 0: unknown. Bytes
// are per GPU: if several report theirs, the most for weights and graphs, the least for the cache,
// since that bounds them all. Tokens are per engine.
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

// memoryReader gathers the sizes in the lines of a log.
type memoryReader struct {
	Memory
	blocks int64
}

// parseLine takes a line of the log.
func (m *memoryReader) parseLine(line []byte) {
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
