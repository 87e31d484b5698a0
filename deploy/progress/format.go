package progress

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// Block returns the sample as a live block: the run, its rates, and as many workers as fit.
func (v Sample) Block(name string, width, height int) []terminal.Line {
	block := []terminal.Line{
		v.formatHeadline(name, width),
		append(terminal.NewLine("  "), v.formatRates()...),
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

const (
	plainName    = 20 // cells of an input's name in a plain line
	shortestName = 12 // cells of it in a block
	longestName  = 40
	shortestBar  = 10 // cells
)

// formatHeadline formats the progress of the run, with a bar in the columns that are left. Where
// there are few, the elapsed time is left out.
func (v Sample) formatHeadline(name string, width int) terminal.Line {
	most := min(max(width/6, shortestName), longestName)
	before := terminal.NewLine(terminal.TruncateName(name, most) + "  ")
	after := v.formatProgress(true)

	bar := width - before.Width() - 2 - after.Width()
	switch {
	case bar >= shortestBar:
		return slices.Concat(before, v.formatBar(bar), terminal.NewLine("  "), after)
	case bar < -2:
		after = v.formatProgress(false)
	}

	return slices.Concat(before, after)
}

// formatBar formats the part of the requests that are done.
func (v Sample) formatBar(cells int) terminal.Line {
	full := min(cells, cells*v.Done/max(1, v.Total))
	return terminal.Line{
		{Text: strings.Repeat("█", full), Colour: terminal.Green},
		{Text: strings.Repeat("░", cells-full), Colour: terminal.Dim},
	}
}

// formatProgress formats the progress of the run, its elapsed time if wanted, and its remaining time
// or why it waits.
func (v Sample) formatProgress(elapsed bool) terminal.Line {
	line := terminal.NewLine(fmt.Sprintf("%d%%  %s/%s  ", v.percentDone(), terminal.FormatCount(v.Done),
		terminal.FormatCount(v.Total)))

	if elapsed {
		line = append(line, terminal.Span{Text: "elapsed ", Colour: terminal.Dim},
			terminal.Span{Text: terminal.FormatElapsed(v.ElapsedS) + "  "})
	}

	switch {
	case !v.isRunning():
		return append(line, terminal.Span{Text: v.State, Colour: terminal.Yellow})
	case v.RemainingS == nil:
		return append(line, terminal.Span{Text: "left: not yet known", Colour: terminal.Dim})
	}

	return append(line, terminal.Span{Text: "left ", Colour: terminal.Dim},
		terminal.Span{Text: terminal.FormatInterval(*v.RemainingLowS, *v.RemainingHighS)})
}

// percentDone returns 100 only when all requests are done.
func (v Sample) percentDone() int { return 100 * v.Done / max(1, v.Total) }

// formatRates formats the figures of the run, the most important first. While the run waits, it has
// no rates.
func (v Sample) formatRates() (line terminal.Line) {
	add := func(figure, unit string) {
		line = append(line, terminal.Span{Text: figure}, terminal.Span{Text: unit, Colour: terminal.Dim})
	}

	if v.Failed > 0 {
		line = append(line, terminal.Span{Text: "failed " + terminal.FormatCount(v.Failed), Colour: terminal.Red},
			terminal.Span{Text: "  "})
	}

	if v.Retries > 0 {
		line = append(line, terminal.Span{Text: "retried ", Colour: terminal.Dim},
			terminal.Span{Text: terminal.FormatCount(v.Retries) + "  "})
	}

	if v.RequestsPerS != nil {
		add(formatRate(*v.RequestsPerS), " req/s  ")
		add(formatRate(*v.InputTokPerS), " tok/s in  ")
		add(formatRate(*v.OutputTokPerS), " out  ")
	}

	add(terminal.FormatCount(v.InFlight), " in flight")

	return line
}

// PlainText returns the sample as one line without colours. name is the name of the input.
func (v Sample) PlainText(name string) string {
	workers := ""
	if v.Workers > 1 {
		workers = fmt.Sprintf("  %d workers", v.Workers)
	}
	return fmt.Sprintf("%s  %s  %s%s", terminal.TruncateName(name, plainName), v.formatProgress(true).Plain(),
		v.formatRates().Plain(), workers)
}

// formatRow formats the worker as a row of the live block.
func (w Worker) formatRow() []terminal.Span {
	const name, flavour = 24, 20 // cells at most
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
	return terminal.FormatCount(int(x + 0.5))
}

// FormatResume returns the hint for a run on a bus that a limit has stopped: what continues it.
func FormatResume(run string, reached proto.ReachedLimit) string {
	if reached.MaxTokens > 0 {
		return fmt.Sprintf("promptmill resume %s --max-tokens N continues it, with N above %d", run, reached.Tokens)
	}
	return "fix the cause, then promptmill resume " + run + " continues it"
}
