package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The check compares the files of a run with its input. It shares no code with the
// collector, and knows of the model servers only how an answer follows from a prompt.

// findings are broken promises, in words.
type findings []string

const mostFindings = 20

func (f *findings) add(format string, args ...any) {
	switch n := len(*f); {
	case n < mostFindings:
		*f = append(*f, fmt.Sprintf(format, args...))
	case n == mostFindings:
		*f = append(*f, "and more")
	}
}

// poisonAfter is the number of model servers that must have died with a request, to
// be given up.
const poisonAfter = 3

// isTooLong reports whether a body is the refusal of an answer of tooMuch tokens, in the words of
// vLLM or of the others.
func isTooLong(body []byte) bool {
	text := string(body)
	return strings.Contains(text, fmt.Sprintf("max_tokens=%d cannot be greater than max_model_len=", tooMuch)) ||
		strings.Contains(text, "maximum context length")
}

// checkLine looks whether a line is the right one for its request, and returns the
// request's number, or -1.
func checkLine(where string, input []expected, l line, found *findings) int {
	seq := l.Extras.Seq
	if seq < 0 || seq >= len(input) || input[seq].customID != l.CustomID {
		found.add("%s: a line of request %d, %q, which is not in the input", where, seq, l.CustomID)
		return -1
	}

	want := input[seq]
	switch {
	case want.refused:
		if l.Error != nil || l.Response == nil || l.Response.Status != 400 || !isTooLong(l.Response.Body) {
			found.add("%s: %s was not refused by the model server as it must be: %s", where, l.CustomID, l.describe())
		}
		return seq
	case l.Error != nil && l.Error.Code == "poison" && want.deaths >= poisonAfter:
		return seq // the killed servers make it look like a poison request
	case !l.isAnswered():
		found.add("%s: %s failed: %s", where, l.CustomID, l.describe())
		return seq
	}

	var answer struct {
		ID      string `json:"id"`
		Choices []struct {
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
		Usage struct {
			In  int64 `json:"prompt_tokens"`
			Out int64 `json:"completion_tokens"`
		} `json:"usage"`
	}

	err := json.Unmarshal(l.Response.Body, &answer)
	if err != nil || len(answer.Choices) != 1 || answer.ID != "chatcmpl-"+want.answer || answer.Usage.In != want.in ||
		answer.Usage.Out != want.out {
		found.add("%s: %s has the wrong answer: want %s, got %s", where, l.CustomID, want.answer, l.describe())
		return seq
	}

	words := strings.Fields(answer.Choices[0].Message.Content)
	if int64(len(words)) != want.out || words[0] != want.answer {
		found.add("%s: %s has an answer of another text: %s", where, l.CustomID, l.describe())
	}

	return seq
}

// describe is a line's in short.
func (l line) describe() string {
	text := ""
	if l.Response != nil {
		text = fmt.Sprintf("status %d, %s", l.Response.Status, l.Response.Body)
	}
	if l.Error != nil {
		text += fmt.Sprintf(" error %s, %s", l.Error.Code, l.Error.Message)
	}

	return text[:min(len(text), 300)]
}

// checkNoDuplicates wants each request to have one line at most, and the right one. It returns
// which have one.
func checkNoDuplicates(where string, input []expected, lines []line, found *findings) map[int]bool {
	seen := map[int]bool{}
	for _, l := range lines {
		seq := checkLine(where, input, l, found)
		if seen[seq] && seq >= 0 {
			found.add("%s: %s has two lines", where, l.CustomID)
		}
		seen[seq] = true
	}

	return seen
}

// checkNoneMissing wants each request to have a line.
func checkNoneMissing(where string, input []expected, seen map[int]bool, found *findings) {
	for seq, want := range input {
		if !seen[seq] {
			found.add("%s: %s has no line", where, want.customID)
		}
	}
}

// output holds the files of a complete run.
type output struct {
	results, errors []line
	bytes           int64 // of the files
	inputSHA256     string
	meta            meta
	elapsed         time.Duration // since before the run began, by a clock that is right
}

// meta holds the parts of the metadata that are checked against the rest.
type meta struct {
	Status string `json:"status"`
	TestID string `json:"test_id"`
	Test   struct {
		Requests int    `json:"num_requests"`
		SHA256   string `json:"input_sha256"`
	} `json:"test"`
	Results struct {
		Successes    int              `json:"success_count"`
		Failures     int              `json:"failure_count"`
		In           int64            `json:"prompt_tokens"`
		Out          int64            `json:"completion_tokens"`
		Total        int64            `json:"total_tokens"`
		Attempts     int64            `json:"attempts"`
		Histogram    map[string]int64 `json:"attempts_histogram"`
		Uncompressed int64            `json:"output_bytes_uncompressed"`
		Bytes        int64            `json:"output_bytes"`

		Inference     float64  `json:"inference_time_seconds"`
		Whole         float64  `json:"total_time_seconds"`
		Idle          float64  `json:"idle_time_seconds"`
		Lost          float64  `json:"lost_time_seconds"`
		Interruptions int      `json:"interruptions"`
		Tokens        *float64 `json:"throughput_tokens_per_sec"`
		Requests      *float64 `json:"throughput_requests_per_sec"`
		Latency       *struct {
			Mean float64 `json:"mean"`
			P50  float64 `json:"p50"`
			Max  float64 `json:"max"`
		} `json:"latency_seconds"`
	} `json:"results"`
}

// checkOutput holds the files of a complete run against its input and each other.
func checkOutput(run string, input []expected, o output, found *findings) {
	checkNoneMissing(run, input, checkNoDuplicates(run, input, slices.Concat(o.results, o.errors), found), found)
	m, r := o.meta, o.meta.Results
	same := func(what string, told, want any) {
		if fmt.Sprint(told) != fmt.Sprint(want) {
			found.add("%s: the metadata say %s %v, and it is %v", run, what, told, want)
		}
	}

	var attempts, size, in, out int64
	histogram := map[string]int64{}
	for _, l := range slices.Concat(o.results, o.errors) {
		attempts += int64(l.Extras.Attempts)
		if l.Extras.Attempts > 0 { // else it was not run
			histogram[strconv.Itoa(l.Extras.Attempts)]++
		}
		size += l.bytes
	}

	for _, l := range o.results {
		if !l.isAnswered() {
			found.add("%s: the line of %s is among the answers: %s", run, l.CustomID, l.describe())
		} else if seq := l.Extras.Seq; seq >= 0 && seq < len(input) {
			in, out = in+input[seq].in, out+input[seq].out
		}
	}

	same("status", m.Status, "completed")
	same("test_id", m.TestID, run)
	same("num_requests", m.Test.Requests, len(input))
	same("input_sha256", m.Test.SHA256, o.inputSHA256)
	same("success_count", r.Successes, len(o.results))
	same("failure_count", r.Failures, len(o.errors))
	same("prompt_tokens", r.In, in)
	same("completion_tokens", r.Out, out)
	same("total_tokens", r.Total, in+out)
	same("attempts", r.Attempts, attempts)
	same("output_bytes_uncompressed", r.Uncompressed, size)
	same("output_bytes", r.Bytes, o.bytes)

	if !maps.Equal(r.Histogram, histogram) {
		same("attempts_histogram", r.Histogram, histogram)
	}

	checkTimes(run, o, found)
}

// checkTimes wants times that can be, however clocks were stepped: those of one process
// are by the clock that is not.
func checkTimes(run string, o output, found *findings) {
	r := o.meta.Results
	var total, most int64 // milliseconds

	for _, l := range slices.Concat(o.results, o.errors) {
		if x := l.Extras; x.Queued < 0 || x.Latency < 0 || max(x.Queued, x.Latency) > o.elapsed.Milliseconds() {
			found.add("%s: %s was queued for %d ms and took %d ms, in %s",
				run, l.CustomID, x.Queued, x.Latency, o.elapsed)
		}
	}

	for _, l := range o.results {
		took := max(l.Extras.Latency, l.Extras.Total)
		total, most = total+took, max(most, took)
	}

	parts := r.Inference + r.Idle + r.Lost
	if min(r.Inference, r.Idle, r.Lost) < 0 || r.Whole < parts-0.001 {
		found.add("%s: it took %g s, of which %g s worked, %g s idle and %g s lost",
			run, r.Whole, r.Inference, r.Idle, r.Lost)
	}

	if r.Interruptions == 0 && parts > o.elapsed.Seconds() {
		found.add("%s: %g s of it are accounted for, in %s", run, parts, o.elapsed)
	}

	if r.Latency == nil || r.Tokens == nil || r.Requests == nil {
		found.add("%s: the metadata have no latency or throughput", run)
		return
	}

	mean := float64(total) / 1000 / float64(len(o.results))
	if d := *r.Latency; math.Abs(d.Mean-mean) > 0.001 || d.Max != float64(most)/1000 || d.P50 < 0 || d.P50 > d.Max {
		found.add("%s: the metadata say latency %+v, and it is %g s in the mean and %d ms at most", run, d, mean, most)
	}

	if *r.Tokens <= 0 || *r.Requests <= 0 {
		found.add("%s: the metadata say %g tokens/s and %g requests/s", run, *r.Tokens, *r.Requests)
	}
}

// checkReader wants a reader that was killed now and then to have got each line of a
// run. No incarnation prints a line twice. An incarnation may begin with lines that those before
// gave last, in the same order, since they were killed before they could remember it.
// forgot lists the incarnations that began without a cursor, after the bus lost its store.
func checkReader(input []expected, lives [][]line, forgot []int, found *findings) (again int, seen map[int]bool) {
	seen = map[int]bool{}
	var given []int // requests, in the order of the stream
	for i, lines := range lives {
		where := fmt.Sprintf("reader's incarnation %d", i+1)
		if slices.Contains(forgot, i) {
			given = nil
		}

		maps.Copy(seen, checkNoDuplicates(where, input, lines, found))
		if len(lines) == 0 {
			continue
		}

		from := slices.Index(given, lines[0].Extras.Seq)
		if from < 0 {
			from = len(given)
		}

		known := map[int]bool{}
		for _, seq := range given[:from] {
			known[seq] = true
		}

		for j, l := range lines {
			if at := from + j; at < len(given) {
				if again++; given[at] != l.Extras.Seq {
					found.add("%s: it gave %s where an earlier life gave %s",
						where, l.CustomID, input[given[at]].customID)
					break
				}
			} else if known[l.Extras.Seq] {
				found.add("%s: it gave %s again, which was remembered", where, l.CustomID)
			} else {
				given = append(given, l.Extras.Seq)
			}
		}
	}

	return again, seen
}
