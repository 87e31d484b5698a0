package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// block is the sample as the live block: the run, its rates, and as many workers as
// have room.
func (v sample) block(name string, width, height int) []line {
	block := []line{v.headline(name, width)}
	if rates := v.rates(); block[0].width()+2+rates.width() <= width {
		block[0] = append(append(block[0], span{text: "  "}), rates...)
	} else {
		block = append(block, append(text("  "), rates...))
	}

	workers := v.ByWorker
	room := height - len(block)
	if len(workers) > room { // those that do not work are what somebody looks for
		room = max(0, room-1)
		workers = slices.Clone(workers)
		slices.SortStableFunc(workers, func(a, b atWorker) int {
			return min(len(b.WaitsFor), 1) - min(len(a.WaitsFor), 1)
		})
		workers = workers[:room]
	}

	var rows [][]span
	for _, w := range workers {
		rows = append(rows, w.row())
	}

	block = append(block, table(rows)...)
	if more := len(v.ByWorker) - len(workers); more > 0 {
		block = append(block, text(fmt.Sprintf("  and %d more workers", more)))
	}

	return block
}

// headline is how far the run is, with a bar where there is room.
func (v sample) headline(name string, width int) line {
	const cells = 10
	full := v.percent() * cells / 100
	bar := strings.Repeat("█", full) + strings.Repeat("░", cells-full) + "  "
	before, after := shortName(name, 20)+"  ", v.progress()
	if textWidth(before)+cells+2+textWidth(after) > width {
		bar = ""
	}

	return text(before + bar + after)
}

// progress is how far the run is, and how long it takes still or what it waits for.
func (v sample) progress() string {
	left := "time left not yet known"
	switch {
	case v.State != "running":
		left = v.State
	case v.RemainingS != nil:
		left = "left " + interval(*v.RemainingLowS, *v.RemainingHighS)
	}

	return fmt.Sprintf("%d%%  %s/%s  %s", v.percent(), grouped(v.Done), grouped(v.Total), left)
}

// percent is how far the run is; it is 100 only when all is done.
func (v sample) percent() int { return 100 * v.Done / max(1, v.Total) }

// rates are the figures of the run, what matters most first.
func (v sample) rates() line {
	var l line
	if v.Failed > 0 {
		l = append(l, span{"failed " + grouped(v.Failed), red}, span{text: "  "})
	}
	if v.Retries > 0 {
		l = append(l, span{text: "retried " + grouped(int(v.Retries)) + "  "})
	}

	return append(l, span{text: fmt.Sprintf("%s req/s  %s tok/s in  %s out  %s in flight",
		rate(v.RequestsPerS), rate(v.InputTokPerS), rate(v.OutputTokPerS), grouped(int(v.InFlight)))})
}

// plain is the sample as one line without colours.
func (v sample) plain(name string) string {
	workers := ""
	if v.Workers > 1 {
		workers = fmt.Sprintf("  %d workers", v.Workers)
	}
	return fmt.Sprintf("%s  %s  %s%s", shortName(name, 20), v.progress(), v.rates().plain()[0].text, workers)
}

// row is the worker as a row of the live block.
func (w atWorker) row() []span {
	const name, flavour = 24, 12 // cells at most
	row := []span{{text: "  " + shortName(w.Name, name)}, {text: shortName(w.Flavour, flavour)}}
	if w.WaitsFor != "" {
		return append(row, span{w.WaitsFor, yellow})
	}

	flight := strconv.FormatInt(w.InFlight, 10)
	if w.Concurrency > 0 {
		flight += "/" + strconv.Itoa(w.Concurrency)
	}

	cells := []string{flight, "", "", "", ""}
	if w.RequestsPerS != nil {
		cells[1] = rate(*w.RequestsPerS) + " req/s"
	}
	if w.OutputTokPerS != nil {
		cells[2] = rate(*w.OutputTokPerS) + " tok/s"
	}
	if w.GPUMemoryUsedBytes != nil && w.GPUMemoryBytes > 0 {
		cells[3] = fmt.Sprintf("%d/%d GiB", *w.GPUMemoryUsedBytes>>30, w.GPUMemoryBytes>>30)
	}
	if w.GPUPowerWatts != nil {
		cells[4] = fmt.Sprintf("%.0f W", *w.GPUPowerWatts)
	}

	for _, c := range cells {
		row = append(row, span{text: c})
	}

	return row
}

// rate is a number per second with two digits that say something.
func rate(x float64) string {
	if x < 10 {
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return grouped(int(x + 0.5))
}

// grouped is a number with a comma at each thousand.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// interval is a time from low to high seconds, in steps that fit its length. It is one
// time where the ends differ by a twentieth at most.
func interval(low, high float64) string {
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

	a, b := rounded(low, step), rounded(high, step)
	if a == b || high <= 1.05*low {
		return rounded((low+high)/2, step)
	}

	return a + "-" + b
}

// rounded is a time in seconds in two units at most.
func rounded(seconds float64, step time.Duration) string {
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
