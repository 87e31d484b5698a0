package terminal

import (
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"slices"
	"strconv"
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

// FormatInterval formats a time of low to high seconds, rounded to a unit that fits its length: 12-15 min.
// It is a single time if the ends differ by a twentieth or less.
func FormatInterval(low, high float64) string {
	format, step := chooseUnit(high)
	a, b := math.Round(low/step)*step, math.Round(high/step)*step
	if a == b || high <= 1.05*low {
		a = math.Round((low+high)/2/step) * step
		b = a
	}

	first, unit := format(a)
	last, _ := format(b)
	if first != last {
		first += "-" + last
	}

	return first + unit
}

// chooseUnit returns how a time of up to high seconds is formatted, with its unit apart, and the seconds
// that it is rounded to.
func chooseUnit(high float64) (format func(seconds float64) (number, unit string), step float64) {
	in := func(seconds float64, unit string) func(float64) (string, string) {
		return func(s float64) (string, string) { return strconv.FormatFloat(s/seconds, 'f', 0, 64), unit }
	}

	const minute, hour, day = 60, 60 * 60, 24 * 60 * 60
	switch {
	case high < minute:
		return in(1, " s"), 1
	case high < 3*minute:
		return in(1, " s"), 10
	case high < 2*hour:
		return in(minute, " min"), minute
	case high < 10*hour:
		return func(s float64) (string, string) { return FormatAge(toDuration(s)), "" }, 10 * minute
	case high < 4*day:
		return in(hour, " h"), hour
	}

	return in(day, " days"), day
}

// FormatElapsed formats a time in seconds in one or two units: 4m05s.
func FormatElapsed(seconds float64) string {
	d := toDuration(seconds).Round(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
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
