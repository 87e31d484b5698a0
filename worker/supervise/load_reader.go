package supervise

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// step is something that a line of the log times.
type step int

const (
	downloading  step = iota // the weights
	fetching                 // a file or several; progress bars overlap
	reading                  // the weights, without their download
	loading                  // the model: download, weights, and what is done to them
	compiling                // all of torch.compile
	tracing                  // a part of it
	capturing                // graphs
	initializing             // vLLM's engine: compile, graphs and warm-up
	warming
	steps // their number
)

// timedLines are the lines that have a duration in seconds. Later ones of the same process are added
// where sum is set: a model and its draft model are read one after the other.
//
//   - vLLM: model_loader/weight_utils.py and default_loader.py, worker/gpu_model_runner.py,
//     compilation/backends.py and monitor.py, engine/core.py, multimodal's base.py, of 0.6 to 0.25. The
//     download is reported if it takes more than 0.5 s. "takes" became "took" in 0.18. 0.19 has one
//     figure for torch.compile and the warm-up together, so the parts of the former count there.
//   - SGLang: model_executor/model_runner.py, of 0.4 to 0.5. Each kind of graph has a line of its own.
var timedLines = []struct {
	step    step
	sum     bool
	pattern *regexp.Regexp
}{
	{downloading, true, regexp.MustCompile(`Time spent downloading weights for .+: ([\d.]+) seconds`)},
	{reading, true, regexp.MustCompile(`Loading weights took ([\d.]+) seconds`)},
	{loading, true, regexp.MustCompile(`Model loading took [\d.]+ [GM]i?B (?:memory )?and ([\d.]+) seconds`)},
	{loading, true, regexp.MustCompile(`Load weight end\. elapsed=([\d.]+) s`)},
	{compiling, false, regexp.MustCompile(`torch\.compile (?:takes|took) ([\d.]+) s in total`)},
	{compiling, false, regexp.MustCompile(`init engine .+\(compilation: ([\d.]+) s\)`)},
	{tracing, true, regexp.MustCompile(`Dynamo bytecode transform time: ([\d.]+) s`)},
	{tracing, true, regexp.MustCompile(`Compiling a graph for .+ takes ([\d.]+) s`)},
	{tracing, true, regexp.MustCompile(`Directly load the compiled graph.+ from the cache, took ([\d.]+) s`)},
	{capturing, true, regexp.MustCompile(`Graph capturing finished in ([\d.]+) secs?`)},
	{capturing, true, regexp.MustCompile(`Capture .*graph end\. (?:Time elapsed: |elapsed=)([\d.]+) s`)},
	{initializing, false, regexp.MustCompile(`init engine \(profile, create kv cache, warmup model\) took ([\d.]+) s`)},
	{warming, true, regexp.MustCompile(`Initial profiling/warmup run took ([\d.]+) s`)},
	{warming, true, regexp.MustCompile(`ulti-modal warmup completed in ([\d.]+)s`)},
}

// spans are the steps that begin with a line and end with another, or with any other where end is nil.
//
//   - SGLang before 0.5.6 has no duration of the weights; none has one of the warm-up.
//   - llama.cpp: src/llama-model.cpp, src/llama-context.cpp, common/common.cpp and tools/server, of b3000
//     to b9800. The latest do not report the tensors unless they are asked to be verbose.
var spans = [...]struct {
	step       step
	begin, end *regexp.Regexp
}{
	{loading, regexp.MustCompile(`Load weight begin\.`), regexp.MustCompile(`Load weight end\. type=`)},
	{warming, regexp.MustCompile(`Uvicorn running on`), regexp.MustCompile(`The server is fired up`)},
	{reading, regexp.MustCompile(`load_tensors: loading model tensors|srv +load_model: loading model '`),
		regexp.MustCompile(`llama_(?:context\w*|init_from_model|new_context_with_model): `)},
	{warming, regexp.MustCompile(`warming up the model with an empty run`), nil},
}

var (
	// fetchedLine is a progress bar of Hugging Face Hub at its end.
	fetchedLine = regexp.MustCompile(`(?:Fetching \d+ files|\.(?:safetensors|bin|pt|gguf)): +100%\|.*\[([\d:]+)<`)

	// cachedLine is SGLang's, from 0.5.6 on.
	cachedLine = regexp.MustCompile(`Found local HF snapshot for .+; skipping download`)

	vllmLine = regexp.MustCompile(`Model loading took `)

	// sourceTag names the process of a line: vLLM's, which may be coloured, or SGLang's ranks.
	sourceTag = regexp.MustCompile(`\((\w+(?: rank=\d+)? pid=\d+)\)|\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d((?: [A-Z]+\d+)+)\]`)

	// sglangTime and llamaTime are the times in front of a line. llama.cpp counts from its start.
	sglangTime = regexp.MustCompile(`\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)[ \]]`)
	llamaTime  = regexp.MustCompile(`^(\d+)\.(\d\d)\.(\d{3})\.(\d{3}) [A-Z] `)
)

// A log with more processes, or a longer duration, is not that of a start.
const (
	maxSources  = 4096
	maxDuration = 30 * 24 * time.Hour
)

// loadReader gathers the durations in the lines of a log.
type loadReader struct {
	sources map[string]*sourceTimes
	cached  bool // the log says that the weights were on the disk
	vllm    bool
}

// sourceTimes has what one process reports.
type sourceTimes struct {
	took  [steps]*time.Duration
	began [len(spans)]*moment // of each of the spans that has begun
}

// moment is the time of a line.
type moment struct {
	arrived time.Duration  // when it was read, after the start; late by up to a poll
	stamped *time.Duration // in front of it; nil: it has none
}

// parseLine takes a line of the log that was read at a time after the start.
func (l *loadReader) parseLine(line []byte, arrived time.Duration) {
	source := l.findSource(line)
	for _, timed := range timedLines {
		match := timed.pattern.FindSubmatch(line)
		if match == nil {
			continue
		}

		if took, ok := parseSeconds(match[1]); ok {
			source.add(timed.step, took, timed.sum)
		}
	}

	if match := fetchedLine.FindSubmatch(line); match != nil {
		if took, ok := parseClock(match[1]); ok {
			source.add(fetching, took, false)
		}
	}

	l.cached = l.cached || cachedLine.Match(line)
	l.vllm = l.vllm || vllmLine.Match(line)
	source.parseSpans(line, arrived)
}

// findSource returns the times of the process that has written a line.
func (l *loadReader) findSource(line []byte) *sourceTimes {
	name := ""
	if match := sourceTag.FindSubmatch(line); match != nil {
		name = string(match[1]) + string(match[2])
	}

	if l.sources[name] == nil && len(l.sources) >= maxSources {
		name = ""
	}

	if l.sources == nil {
		l.sources = map[string]*sourceTimes{}
	}

	if l.sources[name] == nil {
		l.sources[name] = &sourceTimes{}
	}

	return l.sources[name]
}

// parseSpans begins and ends the spans whose lines this is.
func (s *sourceTimes) parseSpans(line []byte, arrived time.Duration) {
	for i, span := range spans {
		if begun := s.began[i]; begun != nil && (span.end == nil || span.end.Match(line)) {
			s.began[i] = nil
			if took := newMoment(line, arrived).since(*begun); took >= 0 && took <= maxDuration {
				s.add(span.step, took, true)
			}
		}

		if span.begin.Match(line) {
			s.began[i] = new(newMoment(line, arrived))
		}
	}
}

// add adds a duration of a step, or takes it where it is longer than the others.
func (s *sourceTimes) add(what step, took time.Duration, sum bool) {
	before := s.took[what]
	switch {
	case before == nil:
	case sum:
		took = min(maxDuration, took+*before)
	default:
		took = max(took, *before)
	}

	s.took[what] = &took
}

// newMoment returns the time of a line.
func newMoment(line []byte, arrived time.Duration) moment {
	m := moment{arrived: arrived}
	if match := sglangTime.FindSubmatch(line); match != nil {
		if at, err := time.Parse(time.DateTime, string(match[1])); err == nil {
			m.stamped = new(time.Duration(at.Unix()) * time.Second)
		}
	}

	if match := llamaTime.FindSubmatch(line); match != nil {
		micros := bytes.Join(match[2:], nil)
		minutes, err := strconv.ParseInt(string(match[1]), 10, 32)
		rest, _ := strconv.ParseInt(string(micros), 10, 64)
		if err == nil {
			m.stamped = new(time.Duration(minutes)*time.Minute + time.Duration(rest)*time.Microsecond)
		}
	}

	return m
}

// since returns the time from an earlier line to this one.
func (m moment) since(earlier moment) time.Duration {
	if m.stamped != nil && earlier.stamped != nil {
		return *m.stamped - *earlier.stamped
	}
	return m.arrived - earlier.arrived
}

// longest returns the longest time of a step among the engine's processes, or the API servers'; nil:
// unknown.
func (l *loadReader) longest(what step, ofAPI bool) (most *time.Duration) {
	for name, source := range l.sources {
		took := source.took[what]
		if took != nil && strings.HasPrefix(name, "APIServer") == ofAPI && (most == nil || *took > *most) {
			most = took
		}
	}
	return most
}

// load returns the phases as far as the log has come.
func (l *loadReader) load() Load {
	engine := func(what step) *time.Duration { return l.longest(what, false) }
	found := Load{
		Download: longer(longer(engine(downloading), engine(fetching)), l.longest(fetching, true)),
		Compile:  longer(engine(compiling), engine(tracing)),
		Graphs:   engine(capturing),
		WarmUp:   engine(warming),
	}

	// vLLM is silent about a download that takes no time.
	if found.Download == nil && (l.cached || l.vllm && engine(reading) != nil) {
		found.Download = new(time.Duration(0))
	}

	found.Weights = longer(engine(reading), subtract(engine(loading), found.Download))
	if whole := subtract(subtract(engine(initializing), found.Compile), found.Graphs); whole != nil {
		found.WarmUp = longer(found.WarmUp, whole)
	}

	if own := l.longest(warming, true); own != nil { // vLLM's API server, after the engine
		found.WarmUp = new(*own + value(found.WarmUp))
	}

	return found
}

// longer returns the longer of two durations, either of which may be unknown.
func longer(a, b *time.Duration) *time.Duration {
	if a == nil || b != nil && *b > *a {
		return b
	}
	return a
}

// subtract returns what is left of a duration; nil if the whole is unknown. An unknown part is none.
func subtract(whole, part *time.Duration) *time.Duration {
	if whole == nil {
		return nil
	}
	return new(max(0, *whole-value(part)))
}

// value returns a duration, or 0 if it is unknown.
func value(d *time.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return *d
}

// parseSeconds parses a duration in seconds.
func parseSeconds(digits []byte) (time.Duration, bool) {
	seconds, err := strconv.ParseFloat(string(digits), 64)
	if err != nil || seconds > maxDuration.Seconds() {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

// parseClock parses the time of a progress bar, such as 01:23 or 1:02:03.
func parseClock(digits []byte) (time.Duration, bool) {
	var seconds int64
	for part := range strings.SplitSeq(string(digits), ":") {
		n, err := strconv.ParseUint(part, 10, 16)
		if err != nil {
			return 0, false
		}
		seconds = min(60*seconds+int64(n), 1<<31)
	}

	took := time.Duration(seconds) * time.Second

	return took, took <= maxDuration
}
