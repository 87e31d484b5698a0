package report

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/promptmill/promptmill/proto"
)

// about is how the run was made.
func about(b *builder) Section {
	s := Section{ID: "about", Title: "Set-up", Columns: []Column{{}, {}}}
	run := b.run
	row := func(name, text string) {
		if text != "" {
			s.add(name, words(text))
		}
	}

	row("Run", run.TestID)
	row("Model", run.Model)
	row("Model server", run.Platform)
	row("Input", strings.Join(inputs(b), ", "))
	row("SHA-256 of the input", run.Test.InputSHA256)

	if n := run.Test.InputBytes; n != nil {
		row("Size of the input", size(float64(*n)))
	}

	if n := run.Config.MaxModelLen; n != nil {
		row("Context length", plural(int64(*n), "token"))
	}

	if u := run.Config.GPUMemoryUtilization; u != nil {
		row("GPU memory utilisation", amount(*u))
	}

	for _, name := range slices.Sorted(maps.Keys(run.Config.Sampling)) {
		row(name, parameter(run.Config.Sampling[name], run.Test.NumRequests))
	}

	if r := run.Results; r.OutputBytes > 0 {
		text := size(float64(r.OutputBytes))
		if r.OutputBytesUncompressed > 0 {
			text += fmt.Sprintf(", %s unpacked (%s : 1)", size(float64(r.OutputBytesUncompressed)),
				amount(float64(r.OutputBytesUncompressed)/float64(r.OutputBytes)))
		}
		row("Size of the output", text)
	}

	if v := run.Versions; v.Promptmill != "" {
		row("promptmill", strings.TrimSpace(v.Promptmill+" "+v.Go))
	}

	return s
}

// parameter is what the requests say of a sampling parameter.
func parameter(p proto.Parameter, all int) string {
	var values []string
	for _, v := range p.Values {
		values = append(values, inJSON(v))
	}

	text := strings.Join(values, ", ")
	if p.More {
		text += ", ..."
	}
	if p.Requests < all {
		text += fmt.Sprintf(" (in %s)", plural(int64(p.Requests), "request"))
	}

	return text
}

// inJSON is a value in one line, the beginning if it is long.
func inJSON(v json.RawMessage) string {
	text := []rune(strings.Join(strings.Fields(string(v)), " "))
	if len(text) > 60 {
		return string(text[:57]) + "..."
	}
	return string(text)
}

func inputs(b *builder) []string {
	if len(b.run.Test.InputFiles) > 0 {
		return b.run.Test.InputFiles
	}
	if b.run.Test.InputFile != "" {
		return []string{b.run.Test.InputFile}
	}
	return nil
}

// files are what the run has left.
func files(b *builder) Section {
	s := Section{ID: "files", Title: "Files", Columns: []Column{{}, {}}}
	t := b.run.Test
	if t.OutputFile != "" {
		s.add("Results", words(t.OutputFile))
	}

	if t.ErrorFile != nil {
		s.add("Errors", words(*t.ErrorFile))
	}

	if b.Path != "" {
		s.add("Metadata", words(b.Path))
	}

	return s
}

// next are the commands to type next, the most urgent first.
func (b *builder) next() []Command {
	list := []Command{}
	add := func(why string, args ...string) {
		list = append(list, Command{why, "promptmill " + ShellWords(args...)})
	}
	if t := b.run.Test; ours(b.run) && t.OutputFile != "" && len(inputs(b)) > 0 {
		switch {
		case b.run.Results.FailureCount > 0 && b.run.Manifest.Policy.Attended:
			add("To run the failed requests again",
				slices.Concat([]string{"run"}, inputs(b), []string{"-o", t.OutputFile, "--retry"})...)
		case b.run.Results.FailureCount > 0:
			add("To run the failed requests again", "retry", b.run.TestID)
		default:
			add("To prove that each request has its one line",
				slices.Concat([]string{"verify"}, inputs(b), []string{t.OutputFile})...)
		}
	}

	if b.Path != "" && b.BaselinePath != "" {
		add("To see both runs side by side", "compare", b.Path, b.BaselinePath)
	}

	if len(list) == 0 && b.Path != "" && b.Baseline == nil {
		add("To compare with another run", "report", b.Path, "--baseline", "META")
	}

	return list
}

// ShellWords is a command line for a shell. Control characters, which could do something
// to the terminal that shows it, are written as bash and zsh read them.
func ShellWords(args ...string) string {
	var quoted []string
	for _, a := range args {
		if strings.ContainsFunc(a, unprintable) {
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

func unprintable(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError }

// escapeWord is a word in those quotes of bash and zsh that know escapes.
func escapeWord(s string) string {
	var b strings.Builder
	b.WriteString("$'")

	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '\'' || r == '\\':
			b.WriteString("\\" + s[:n])
		case unprintable(r):
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
