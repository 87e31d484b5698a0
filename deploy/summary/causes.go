package summary

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
	"unicode"

	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

const (
	maxCauses = 5      // printed
	maxLines  = 10_000 // failed lines that are read for messages
)

// PrintCauses prints why requests of a run failed: the most frequent causes, each with the most
// frequent message of the servers.
func PrintCauses(s *terminal.Screen, meta *metadata.Run, errorsFile string) {
	if len(meta.Results.Failures) == 0 {
		return
	}

	messages := messagesByCause{}
	if file, err := os.Open(errorsFile); err == nil {
		messages = readMessages(file)
		file.Close()
	}

	printCauses(s, meta.Results.Failures, messages)
}

// PrintCausesSoFar prints why requests of an unfinished run failed: the most frequent causes of
// counts, each with the most frequent message among the failed lines.
func PrintCausesSoFar(s *terminal.Screen, counts map[string]int64, failedLines [][]byte) {
	messages := messagesByCause{}
	for _, line := range failedLines {
		messages.addLine(line)
	}

	printCauses(s, counts, messages)
}

// printCauses prints the most frequent causes.
func printCauses(s *terminal.Screen, counts map[string]int64, messages messagesByCause) {
	list := sortCauses(counts)
	for i, code := range list {
		if i == maxCauses {
			s.Printf("  and other causes, of %s requests", terminal.FormatCount(sumCounts(counts, list[i:])))
			break
		}
		s.Printf("  %s x %s%s", terminal.FormatCount(counts[code]), NameCause(code), messages[code].format())
	}
}

// sortCauses returns the causes of failures, the most frequent first.
func sortCauses(counts map[string]int64) []string {
	return slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
}

// FormatCauses returns the most frequent causes of failures in a line, with their counts.
func FormatCauses(counts map[string]int64) string {
	var parts []string
	for i, code := range sortCauses(counts) {
		if i == maxCauses {
			parts = append(parts, "and other causes")
			break
		}
		parts = append(parts, terminal.FormatCount(counts[code])+" x "+NameCause(code))
	}

	return strings.Join(parts, ", ")
}

// sumCounts returns the sum of the counts of some names.
func sumCounts(counts map[string]int64, names []string) (n int64) {
	for _, name := range names {
		n += counts[name]
	}
	return n
}

// NameCause returns the name of a cause of failure for people.
func NameCause(code string) string {
	if status, ok := strings.CutPrefix(code, "http_"); ok {
		return "HTTP " + status
	}
	return terminal.Printable(code)
}

// messageCounts counts the messages of a cause. Those that differ only in numbers count as one.
type messageCounts struct {
	first map[string]string // by the message without its numbers
	count map[string]int
	order []string // of the first occurrences
}

func (s *messageCounts) add(text string) {
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

// format returns the most frequent message as the end of a sentence.
func (s *messageCounts) format() string {
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

// messagesByCause are the messages of failed lines, by cause.
type messagesByCause map[string]*messageCounts

// addLine adds the message of a failed line.
func (m messagesByCause) addLine(line []byte) {
	parsed, err := proto.ParseLine(new(jsonscan.Scanner), line)
	if err != nil {
		return
	}

	if m[parsed.ErrorCode] == nil {
		m[parsed.ErrorCode] = &messageCounts{first: map[string]string{}, count: map[string]int{}}
	}

	m[parsed.ErrorCode].add(findMessage(line))
}

// readMessages reads the messages of failed lines.
func readMessages(file io.Reader) messagesByCause {
	all := messagesByCause{}
	plain, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return all
	}
	defer plain.Close()

	lines := bufio.NewReaderSize(plain, 1<<16)
	for range maxLines {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}

		all.addLine(line)
	}

	return all
}

// findMessage returns the message of a failed line: of its error, or of the server's answer.
func findMessage(line []byte) string {
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
