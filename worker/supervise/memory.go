package supervise

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Memory is what vLLM's log tells while it loads; what is not told is 0. Bytes are
// those of one GPU: where several tell theirs, the most for weights and graphs, the
// least for the cache, since that bounds them all. Tokens are those of one engine.
type Memory struct {
	Weights  int64 // bytes
	KVCache  int64 // bytes
	Graphs   int64 // bytes, of CUDA graphs
	KVTokens int64 // that fit into the KV cache
}

// The wordings of vLLM from 0.4 (2024) on. What it calls GB is GiB, too.
const size = `([\d.]+) ?([KMGT])i?B\b`

var (
	weightsLine = regexp.MustCompile(`(?:Model loading|Loading model weights) took ` + size +
		`|model weights take ` + size)
	cacheLine = regexp.MustCompile(`Available KV cache memory: ` + size + `|reserved for KV Cache is ` + size +
		`|kv_cache_size=` + size + `|reserved ` + size + ` memory for KV Cache`)
	graphsLine = regexp.MustCompile(`Graph capturing finished in [\d.]+ secs?, took ` + size)
	tokensLine = regexp.MustCompile(`KV cache size: ([\d,]+) tokens`)

	// Until 0.7 the tokens were told in blocks, and how many requests of the longest
	// kind fit: both give the size of a block.
	blocksLine      = regexp.MustCompile(`# (?:GPU|cuda|rocm|xpu) blocks: (\d+)`)
	concurrencyLine = regexp.MustCompile(`Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x`)
)

// memoryReader gathers what the lines of a log tell.
type memoryReader struct {
	Memory
	blocks int64
}

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

// minKnown is the smaller of two numbers of which 0 is not known.
func minKnown(a, b int64) int64 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// parseSize is the size in a match of one of several patterns, of which each has a
// number and a unit; 0 if there is none that could be true.
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

// parseCount reads a number such as 123,456; 0 if it could not be true.
func parseCount(digits []byte) int64 {
	n, err := strconv.ParseInt(strings.ReplaceAll(string(digits), ",", ""), 10, 64)
	if err != nil || n > 1<<40 {
		return 0
	}
	return n
}
