package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

const (
	causesShown = 5
	causesRead  = 10_000 // failed lines, to find what servers said
)

// printSummary says what a complete run has brought.
func printSummary(s *terminal.Screen, meta *metadata.Run, out output.Prefix, inputs []string) {
	res := meta.Results
	done := "done"
	if meta.Status != proto.StateCompleted {
		done = string(meta.Status)
	}

	s.Printf("%s: %d answered, %d failed, in %s", done, res.SuccessCount, res.FailureCount,
		(time.Duration(res.InferenceTimeSeconds*1000) * time.Millisecond).Round(10*time.Millisecond))

	if res.ThroughputRequestsPerSec != nil && res.OutputTokensPerSec != nil {
		s.Printf("      %.1f requests/s, %.0f tokens/s in, %.0f tokens/s out",
			*res.ThroughputRequestsPerSec, *res.InputTokensPerSec, *res.OutputTokensPerSec)
	}

	printCauses(s, meta, out.Errors())
	printFiles(s, meta, out, inputs)
}

// printFiles names the output files and the commands to look at them.
func printFiles(s *terminal.Screen, meta *metadata.Run, out output.Prefix, inputs []string) {
	s.Printf("  results   %s", files.Short(out.Results()))
	if meta.Test.ErrorFile != nil {
		s.Printf("  errors    %s", files.Short(out.Errors()))
	}

	s.Printf("  metadata  %s", files.Short(out.Meta()))
	for _, path := range []string{out.ReportMarkdown(), out.ReportHTML()} {
		if files.Exists(path) {
			s.Printf("  report    %s", files.Short(path))
		}
	}

	if len(inputs) > 0 && inputs[0] != "-" {
		words := []string{"promptmill", "verify"}
		for _, input := range inputs {
			if input[0] == '-' {
				input = "./" + input // else it would be taken for a flag
			}
			words = append(words, input)
		}

		s.Printf("prove it:   %s", report.ShellWords(append(words, files.Short(out.Results()))...))
	}
}

// printCauses says why requests of a run failed: the most frequent causes, each with what a
// server said.
func printCauses(s *terminal.Screen, meta *metadata.Run, errorsFile string) {
	counts := meta.Results.Failures
	if len(counts) == 0 {
		return
	}

	said := map[string]*sayings{}
	if file, err := os.Open(errorsFile); err == nil {
		said = readSayings(file)
		file.Close()
	}

	list := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for i, code := range list {
		if i == causesShown {
			s.Printf("  and other causes, of %d requests", sumOf(counts, list[i:]))
			break
		}
		s.Printf("  %d x %s%s", counts[code], calledCause(code), said[code].usual())
	}
}

// sumOf is the sum of some counts.
func sumOf(counts map[string]int64, names []string) (n int64) {
	for _, name := range names {
		n += counts[name]
	}
	return n
}

// calledCause is a cause of failure in words.
func calledCause(code string) string {
	if status, ok := strings.CutPrefix(code, "http_"); ok {
		return "HTTP " + status
	}
	return terminal.Printable(code)
}

// sayings are what was said of one cause: texts that differ in numbers alone count as one.
type sayings struct {
	first map[string]string // by the text without its numbers
	count map[string]int
	order []string // as they came
}

func (s *sayings) add(text string) {
	if text == "" {
		return
	}

	key := strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, text)
	if s.count[key]++; s.count[key] == 1 {
		s.first[key] = text
		s.order = append(s.order, key)
	}
}

// usual is what was said most often, for the end of a sentence.
func (s *sayings) usual() string {
	if s == nil || len(s.order) == 0 {
		return ""
	}

	most := s.order[0]
	for _, key := range s.order {
		if s.count[key] > s.count[most] {
			most = key
		}
	}

	text := ": " + s.first[most]
	switch n := len(s.order) - 1; {
	case n == 1:
		text += " (and another message)"
	case n > 1:
		text += fmt.Sprintf(" (and %d other messages)", n)
	}

	return text
}

// readSayings reads what failed lines say, by cause.
func readSayings(file io.Reader) map[string]*sayings {
	all := map[string]*sayings{}
	plain, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return all
	}
	defer plain.Close()

	var scan jsonscan.Scanner
	lines := bufio.NewReaderSize(plain, 1<<16)
	for range causesRead {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}

		parsed, err := proto.ParseLine(&scan, line)
		if err != nil {
			continue
		}

		if all[parsed.ErrorCode] == nil {
			all[parsed.ErrorCode] = &sayings{first: map[string]string{}, count: map[string]int{}}
		}

		all[parsed.ErrorCode].add(sayingOf(line))
	}

	return all
}

// sayingOf is why a failed line says that it failed: its error, or the server's answer.
func sayingOf(line []byte) string {
	var l struct {
		Response *struct{ Body json.RawMessage }
		Error    json.RawMessage
	}
	if json.Unmarshal(line, &l) != nil {
		return ""
	}

	if len(l.Error) > 0 && string(l.Error) != "null" {
		return proto.ErrorText(l.Error)
	}

	if l.Response != nil {
		return proto.ErrorText(l.Response.Body)
	}

	return ""
}
