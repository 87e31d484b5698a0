package terminal

import (
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/term"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/program"
	"github.com/promptmill/promptmill/proto"
)

// Fprintf prints a line for people. Texts that others chose (names, models, custom_ids, answers
// of servers) are printed by Fprintf, [Screen.Printf] and [PrintError] alone, so that they can
// neither move the cursor nor make a line look like one of ours. JSON has escapes of its own.
func Fprintf(w io.Writer, format string, args ...any) {
	io.WriteString(w, breakable(formatPrintable(format, args)))
}

// formatPrintable formats with printable arguments, and the commands of the format as they are typed
// here. Lines are not broken inside a [Command].
func formatPrintable(format string, args []any) string {
	return fmt.Sprintf(program.TypedFormat(format), makePrintableArgs(args)...)
}

// PrintError prints an error and its hint for a person, unless it has been reported.
func PrintError(w io.Writer, err error) {
	if exit.IsReported(err) {
		return
	}

	cfg := Config{Out: w, Colour: HasColour(w, os.Getenv)}
	if file, ok := w.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		cfg.Size = func() (int, int) { return terminalSize(file) }
	}

	New(cfg).printError(err)
}

// printError prints an error and its hint. A command line at the end of the hint stays in one piece.
func (s *Screen) printError(err error) {
	s.printLabelled("error:", Red, PrintableLines(err.Error()))
	if hint := exit.Hint(err); hint != "" {
		command := PrintableLines(program.TypedCommands(exit.Command(err)))
		text := strings.TrimSuffix(PrintableLines(program.TypedCommands(hint)), command)
		s.printLabelled("hint:", Dim, text+keepTogether(command))
	}
}

// printLabelled prints a printable text of one or more lines behind the name of the program and a
// label.
func (s *Screen) printLabelled(label, colour, text string) {
	first, rest, more := strings.Cut(text, "\n")
	lines := []Line{{{Text: "promptmill: "}, {Text: label, Colour: colour}, {Text: " " + first}}}
	if more {
		for line := range strings.SplitSeq(rest, "\n") {
			lines = append(lines, NewLine(line))
		}
	}
	s.writeLines(lines)
}

// makePrintableArgs returns the arguments of a format with all texts printable.
func makePrintableArgs(args []any) []any {
	clean := slices.Clone(args)
	for i, arg := range clean {
		switch arg := arg.(type) {
		case time.Duration, time.Time:
		case Command:
			clean[i] = keepTogether(Printable(string(arg)))
		case error:
			clean[i] = Printable(arg.Error())
		case fmt.Stringer:
			clean[i] = Printable(arg.String())
		case []byte:
			clean[i] = Printable(string(arg))
		default:
			if v := reflect.ValueOf(arg); v.Kind() == reflect.String {
				clean[i] = Printable(v.String())
			}
		}
	}

	return clean
}

// Printable returns a text on one line without characters that control the terminal: escape
// sequences, the C1 controls, changes of the direction of writing.
func Printable(s string) string { return strings.Map(makePrintableRune, s) }

// PrintableLines is [Printable] for a text of several lines.
func PrintableLines(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' {
			return r
		}
		return makePrintableRune(r)
	}, s)
}

func makePrintableRune(r rune) rune {
	switch {
	case unicode.IsPrint(r):
		return r
	case unicode.IsSpace(r):
		return ' '
	}
	return '?'
}

// TruncateName returns a printable name of at most cells.
func TruncateName(s string, cells int) string {
	if s = Printable(s); TextWidth(s) > cells {
		return cutText(s, cells-3) + "..."
	}
	return s
}

// JoinFew joins the first names and counts the rest.
func JoinFew(names []string, most int) string {
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// FormatAge formats a time since an event in one or two units. An event that our clock has in
// the future is 0s old.
func FormatAge(d time.Duration) string {
	d = max(0, d)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}

	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// FormatInterval formats a time of low to high seconds, rounded to steps that fit its length: 12-15 min.
// It is a single time if the ends differ by a twentieth or less.
func FormatInterval(low, high float64) string {
	var step time.Duration
	for _, s := range []struct{ below, step time.Duration }{
		{48 * time.Hour, time.Hour},
		{10 * time.Hour, 10 * time.Minute},
		{10 * time.Minute, time.Minute},
		{time.Minute, 10 * time.Second},
		{0, time.Second},
	} {
		if high >= s.below.Seconds() {
			step = s.step
			break
		}
	}

	a, b := formatRounded(low, step), formatRounded(high, step)
	if a == b || high <= 1.05*low {
		return formatRounded((low+high)/2, step)
	}

	// Two times of one unit name it once.
	for _, unit := range []string{" min", " s"} {
		if first, ok := strings.CutSuffix(a, unit); ok && strings.HasSuffix(b, unit) {
			return first + "-" + b
		}
	}

	return shortenUnits.Replace(a) + "-" + shortenUnits.Replace(b)
}

// FormatElapsed formats a time in seconds in two units: 4m05s.
func FormatElapsed(seconds float64) string {
	return shortenUnits.Replace(formatRounded(seconds, time.Second))
}

// shortenUnits makes a unit part of a longer time: 1h05m.
var shortenUnits = strings.NewReplacer(" min", "m", " s", "s")

// formatRounded formats a time in seconds in one or two units.
func formatRounded(seconds float64, step time.Duration) string {
	d := toDuration(seconds).Round(step)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour && step < time.Minute:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}

	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// toDuration returns a number of seconds as a duration, at most a century.
func toDuration(seconds float64) time.Duration {
	const century = 100 * 365 * 24 * time.Hour
	return time.Duration(min(seconds, century.Seconds()) * float64(time.Second))
}

// FormatDuration formats a duration without the parts that are zero at its end: 24h, not 24h0m0s.
func FormatDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}

	return text
}

// CountOf formats a number of things, whose name takes an s: 1 run, 2,000 runs.
func CountOf[N int | int64 | uint64](n N, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return FormatCount(n) + " " + thing
}

// FormatCount formats a number with a comma at each thousand, as [proto.FormatCount] does.
func FormatCount[N int | int64 | uint64](n N) string { return proto.FormatCount(n) }
