package report

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// buildAbout describes the input and the settings of the run.
func buildAbout(b *builder) Section {
	s := Section{ID: "about", Title: "Set-up", Form: FormPairs, Columns: []Column{{}, {}}}
	run := b.run
	row := func(name, text string) {
		if text != "" {
			s.AddRow(name, TextCell(text))
		}
	}

	row("Run", run.TestID)
	row("Label", run.Label)
	row("Model", run.Model)
	row("Model server", run.Platform)
	row("Input", strings.Join(listInputs(b), ", "))
	row("SHA-256 of the input", run.Test.InputSHA256)

	if n := run.Test.InputBytes; n != nil {
		row("Size of the input", figures.Size(float64(*n)))
	}

	if n := run.Config.MaxModelLen; n != nil {
		row("Context length", figures.Plural(int64(*n), "token"))
	}

	if u := run.Config.GPUMemoryUtilization; u != nil {
		row("GPU memory utilisation", figures.Amount(*u))
	}

	for _, name := range slices.Sorted(maps.Keys(run.Config.Sampling)) {
		row(name, formatParameter(run.Config.Sampling[name], run.Test.NumRequests))
	}

	if r := run.Results; r.OutputBytes > 0 {
		text := figures.Size(float64(r.OutputBytes))
		if r.OutputBytesUncompressed > 0 {
			text += fmt.Sprintf(", %s unpacked (%s : 1)", figures.Size(float64(r.OutputBytesUncompressed)),
				figures.Amount(float64(r.OutputBytesUncompressed)/float64(r.OutputBytes)))
		}
		row("Size of the output", text)
	}

	if v := run.Versions; v.Promptmill != "" {
		row("promptmill", strings.TrimSpace(v.Promptmill+" "+v.Go))
	}

	return s
}

// formatParameter lists the values of a sampling parameter.
func formatParameter(p proto.Parameter, all int) string {
	var values []string
	for _, v := range p.Values {
		values = append(values, formatJSON(v))
	}

	text := strings.Join(values, ", ")
	if p.More {
		text += ", ..."
	}
	if p.Requests < all {
		text += fmt.Sprintf(" (in %s)", figures.Plural(int64(p.Requests), "request"))
	}

	return text
}

// formatJSON is a value in one line, the beginning if it is long.
func formatJSON(v json.RawMessage) string {
	text := []rune(strings.Join(strings.Fields(string(v)), " "))
	if len(text) > 60 {
		return string(text[:57]) + "..."
	}
	return string(text)
}

func listInputs(b *builder) []string {
	if len(b.run.Test.InputFiles) > 0 {
		return b.run.Test.InputFiles
	}
	if b.run.Test.InputFile != "" {
		return []string{b.run.Test.InputFile}
	}
	return nil
}

// buildFiles lists the files of the run.
func buildFiles(b *builder) Section {
	s := Section{ID: "files", Title: "Files", Form: FormPairs, Columns: []Column{{}, {}}}
	t := b.run.Test
	if t.OutputFile != "" {
		s.AddRow("Results", TextCell(t.OutputFile))
	}

	if t.ErrorFile != nil {
		s.AddRow("Errors", TextCell(*t.ErrorFile))
	}

	if b.Path != "" {
		s.AddRow("Metadata", TextCell(b.Path))
	}

	return s
}

// nextCommands are the commands to type next, the most urgent first.
func (b *builder) nextCommands() []Command {
	list := []Command{}
	add := func(why string, args ...string) {
		list = append(list, Command{why, "promptmill " + ShellWords(args...)})
	}
	if t := b.run.Test; isOurs(b.run) && t.OutputFile != "" && len(listInputs(b)) > 0 {
		again := describeRetry(b.run.Results)
		switch attended := b.run.Manifest.Policy.Attended && !b.run.Manifest.Policy.Batch; {
		case again != "" && attended && b.run.Config.Plain:
			// The lines do not say which requests failed.
		case again != "" && attended:
			add(again, slices.Concat([]string{"run"}, listInputs(b), []string{"-o", t.OutputFile, "--retry"})...)
		case again != "":
			add(again, "retry", b.run.TestID)
		default:
			add("Prove that each request has exactly one line",
				slices.Concat([]string{"verify"}, listInputs(b), []string{t.OutputFile})...)
		}
	}

	if b.Path != "" && b.BaselinePath != "" {
		add("See both runs side by side", "compare", b.Path, b.BaselinePath)
	}

	if len(list) == 0 && b.Path != "" && b.Baseline == nil {
		add("Compare with another run", "report", b.Path, "--baseline", "META")
	}

	return list
}

// describeRetry says what a retry of a run does; empty: nothing. Lines that are invalid stay so.
func describeRetry(r metadata.Results) string {
	unsent := int64(r.NotSentCount) - r.Failures[proto.CodeInvalidRequest]
	switch failed := r.CountFailed() > 0; {
	case failed && unsent > 0:
		return "Run the failed requests again, and those that were not sent"
	case failed:
		return "Run the failed requests again"
	case unsent > 0:
		return "Run the requests that were not sent"
	}

	return ""
}

// ShellWords is a command line for a shell. Control characters, which could do something
// to the terminal that shows it, are written as bash and zsh read them.
func ShellWords(args ...string) string {
	var quoted []string
	for _, a := range args {
		if strings.ContainsFunc(a, isUnprintable) {
			quoted = append(quoted, escapeWord(a))
			continue
		}

		if a == "" || strings.ContainsFunc(a, func(r rune) bool {
			return !(r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' ||
				strings.ContainsRune("-_./:=,+@%", r))
		}) {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}

		quoted = append(quoted, a)
	}

	return strings.Join(quoted, " ")
}

func isUnprintable(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError }

// escapeWord is a word in those quotes of bash and zsh that know escapes.
func escapeWord(s string) string {
	var b strings.Builder
	b.WriteString("$'")

	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '\'' || r == '\\':
			b.WriteString("\\" + s[:n])
		case isUnprintable(r):
			for i := range n {
				fmt.Fprintf(&b, "\\%03o", s[i])
			}
		default:
			b.WriteString(s[:n])
		}

		s = s[n:]
	}

	return b.String() + "'"
}
