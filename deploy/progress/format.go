package progress

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/promptmill/promptmill/deploy/terminal"
)

// Block returns the sample as a live block: the run, its rates, and as many workers as fit.
func (v Sample) Block(name string, width, height int) []terminal.Line {
	block := []terminal.Line{v.formatHeadline(name, width)}
	if rates := v.formatRates(); block[0].Width()+2+rates.Width() <= width {
		block[0] = append(append(block[0], terminal.Span{Text: "  "}), rates...)
	} else {
		block = append(block, append(terminal.NewLine("  "), rates...))
	}

	workers := v.ByWorker
	room := height - len(block)
	if len(workers) > room { // an operator looks for the workers that do not work
		room = max(0, room-1)
		workers = slices.Clone(workers)
		slices.SortStableFunc(workers, func(a, b Worker) int {
			return min(len(b.WaitsFor), 1) - min(len(a.WaitsFor), 1)
		})
		workers = workers[:room]
	}

	var rows [][]terminal.Span
	for _, w := range workers {
		rows = append(rows, w.formatRow())
	}

	block = append(block, terminal.Table(rows)...)
	if more := len(v.ByWorker) - len(workers); more > 0 {
		block = append(block, terminal.NewLine(fmt.Sprintf("  and %d more workers", more)))
	}

	return block
}

// formatHeadline formats the progress of the run, with a bar if it fits.
func (v Sample) formatHeadline(name string, width int) terminal.Line {
	const cells = 10
	full := v.percentDone() * cells / 100
	bar := strings.Repeat("█", full) + strings.Repeat("░", cells-full) + "  "
	before, after := terminal.TruncateName(name, 20)+"  ", v.formatProgress()
	if terminal.TextWidth(before)+cells+2+terminal.TextWidth(after) > width {
		bar = ""
	}

	return terminal.NewLine(before + bar + after)
}

// formatProgress formats the progress of the run, and its remaining time or why it waits.
func (v Sample) formatProgress() string {
	left := "time left not yet known"
	switch {
	case v.State != "running":
		left = v.State
	case v.RemainingS != nil:
		left = "left " + formatInterval(*v.RemainingLowS, *v.RemainingHighS)
	}

	return fmt.Sprintf("%d%%  %s/%s  %s", v.percentDone(), groupThousands(v.Done), groupThousands(v.Total), left)
}

// percentDone returns 100 only when all requests are done.
func (v Sample) percentDone() int { return 100 * v.Done / max(1, v.Total) }

// formatRates formats the figures of the run, the most important first.
func (v Sample) formatRates() terminal.Line {
	var l terminal.Line
	if v.Failed > 0 {
		l = append(l, terminal.Span{Text: "failed " + groupThousands(v.Failed), Colour: terminal.Red},
			terminal.Span{Text: "  "})
	}

	if v.Retries > 0 {
		l = append(l, terminal.Span{Text: "retried " + groupThousands(int(v.Retries)) + "  "})
	}

	return append(l, terminal.Span{Text: fmt.Sprintf("%s req/s  %s tok/s in  %s out  %s in flight",
		formatRate(v.RequestsPerS), formatRate(v.InputTokPerS), formatRate(v.OutputTokPerS),
		groupThousands(int(v.InFlight)))})
}

// PlainText returns the sample as one line without colours. name is the name of the input.
func (v Sample) PlainText(name string) string {
	workers := ""
	if v.Workers > 1 {
		workers = fmt.Sprintf("  %d workers", v.Workers)
	}
	return fmt.Sprintf("%s  %s  %s%s", terminal.TruncateName(name, 20), v.formatProgress(),
		v.formatRates().Plain()[0].Text, workers)
}

// formatRow formats the worker as a row of the live block.
func (w Worker) formatRow() []terminal.Span {
	const name, flavour = 24, 12 // cells at most
	row := []terminal.Span{
		{Text: "  " + terminal.TruncateName(w.Name, name)},
		{Text: terminal.TruncateName(w.Flavour, flavour)},
	}
	if w.WaitsFor != "" {
		return append(row, terminal.Span{Text: w.WaitsFor, Colour: terminal.Yellow})
	}

	flight := strconv.FormatInt(w.InFlight, 10)
	if w.Concurrency > 0 {
		flight += "/" + strconv.Itoa(w.Concurrency)
	}

	cells := []string{flight, "", "", "", ""}
	if w.RequestsPerS != nil {
		cells[1] = formatRate(*w.RequestsPerS) + " req/s"
	}
	if w.OutputTokPerS != nil {
		cells[2] = formatRate(*w.OutputTokPerS) + " tok/s"
	}
	if w.GPUMemoryUsedBytes != nil && w.GPUMemoryBytes > 0 {
		cells[3] = fmt.Sprintf("%d/%d GiB", *w.GPUMemoryUsedBytes>>30, w.GPUMemoryBytes>>30)
	}
	if w.GPUPowerWatts != nil {
		cells[4] = fmt.Sprintf("%.0f W", *w.GPUPowerWatts)
	}

	for _, c := range cells {
		row = append(row, terminal.Span{Text: c})
	}

	return row
}

// formatRate formats a number per second with two significant digits.
func formatRate(x float64) string {
	if x < 10 {
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return groupThousands(int(x + 0.5))
}

// groupThousands formats a number with a comma at each thousand.
func groupThousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// formatInterval formats a time from low to high seconds, rounded to steps that fit its length.
// It is a single time if the ends differ by a twentieth or less.
func formatInterval(low, high float64) string {
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

	a, b := formatDuration(low, step), formatDuration(high, step)
	if a == b || high <= 1.05*low {
		return formatDuration((low+high)/2, step)
	}

	return a + "-" + b
}

// formatDuration formats a time in seconds in one or two units.
func formatDuration(seconds float64, step time.Duration) string {
	d := time.Duration(seconds * float64(time.Second)).Round(step)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour && step < time.Minute:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}

	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}
