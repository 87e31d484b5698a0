package report

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
)

// Plot is a figure over the time of the run, ready to be drawn in a square of 1000 by
// 1000, whose zero is at the top on the left.
type Plot struct {
	Title string
	Line  string // path of the means
	Band  string // path around the least and the most, empty if they are the means
	Grid  string // path of the lines at the ticks
	Gaps  []Gap  // times without work
	Ticks []Tick // from the bottom up
	Times []Tick // from the left
}

// Gap is a part of the width.
type Gap struct{ From, Width int }

// Tick is a label at a part of the height or width, in percent.
type Tick struct {
	Text string
	At   float64
}

const (
	square = 1000
	// columnsOfPlot are as many as one can see on a page.
	columnsOfPlot = 300
)

// buildPlots are the plots of the series.
func buildPlots(b *builder) Section {
	s := Section{ID: "plots", Title: "Over time"}
	series := b.run.Series
	if series.Len() < 3 {
		return s
	}

	n, every := series.Len(), float64(max(1, series.IntervalSeconds))
	gaps := findGaps(series)
	add := func(title string, format func(float64) string, of func(metadata.Point) *float64) {
		values, most := make([]float64, n), 0.0
		for i := range n {
			values[i] = math.NaN()
			if v := of(series.At(i)); v != nil && !gaps[i] {
				values[i] = *v
				most = max(most, *v)
			}
		}

		if most > 0 {
			s.Plots = append(s.Plots, drawPlot(title, values, gaps, most, float64(n)*every, format))
		}
	}

	perSecond := func(count func(metadata.Point) int64) func(metadata.Point) *float64 {
		return func(p metadata.Point) *float64 { return new(float64(count(p)) / every) }
	}

	add("Output token throughput (tok/s)",
		formatInteger, perSecond(func(p metadata.Point) int64 { return p.CompletionTokens }))

	if len(s.Plots) == 0 {
		add("Request throughput (req/s)", formatPlain, perSecond(func(p metadata.Point) int64 { return p.Requests }))
	}

	add("Failed requests (req/s)", formatPlain, perSecond(func(p metadata.Point) int64 { return p.Failed }))
	add("Requests in flight", formatInteger, func(p metadata.Point) *float64 { return toFloat(p.InFlight) })
	add("Memory in use (GiB)", formatPlain, func(p metadata.Point) *float64 {
		if p.MemoryUsedBytes == nil {
			return nil
		}
		return new(float64(*p.MemoryUsedBytes) / (1 << 30))
	})

	for _, gap := range gaps {
		if gap && len(s.Plots) > 0 {
			s.addNote("Shaded: no worker was at work, or no collector ran.")
			break
		}
	}

	return s
}

// findGaps reports for each interval whether it is in a time without results in which no
// request was seen at a model server. That needs readings, at least at other
// times.
func findGaps(s *metadata.Series) []bool {
	gaps := make([]bool, s.Len())
	looked := false
	for i := range gaps {
		p := s.At(i)
		some := p.InFlight != nil && *p.InFlight > 0
		looked = looked || some
		gaps[i] = p.Requests == 0 && !some
	}

	for i := 0; i < len(gaps); {
		end := i
		for end < len(gaps) && gaps[end] == gaps[i] {
			end++
		}

		if gaps[i] && (!looked || time.Duration((end-i)*s.IntervalSeconds)*time.Second < metadata.Quiet) {
			clear(gaps[i:end])
		}

		i = end
	}

	return gaps
}

// drawPlot draws values that are NaN where they are unknown. Many are drawn as their means,
// and as a band from the least to the most of those that fall on one place.
func drawPlot(title string, values []float64, gaps []bool, most, seconds float64, format func(float64) string) Plot {
	p := Plot{Title: title}
	top := p.addScale(most, format)
	p.addTimes(seconds)

	n := len(values)
	for i := 0; i < n; i++ {
		from := i
		for i < n && gaps[i] {
			i++
		}

		if i > from {
			p.Gaps = append(p.Gaps, Gap{from * square / n, max(2, (i-from)*square/n)})
		}
	}

	var line, upper strings.Builder
	var lower []string
	flush := func() { // closes the band
		if len(lower) > 1 {
			for i := len(lower) - 1; i >= 0; i-- {
				upper.WriteString("L" + lower[i])
			}
			p.Band += upper.String() + "Z"
		}

		upper.Reset()
		lower = nil
	}

	places := min(n, columnsOfPlot)
	move := "M"
	for place := range places {
		from, to := place*n/places, (place+1)*n/places
		mean, least, highest, known, gap := 0.0, math.Inf(1), 0.0, 0, true
		for i := from; i < to; i++ {
			gap = gap && gaps[i]
			if v := values[i]; !math.IsNaN(v) {
				mean, least, highest, known = mean+v, min(least, v), max(highest, v), known+1
			}
		}

		if gap {
			flush()
			move = "M"
		}

		if known == 0 {
			continue
		}

		x := (from + to) * square / (2 * n)
		at := func(v float64) string { return fmt.Sprintf("%d %.0f", x, square*(1-v/top)) }
		line.WriteString(move + at(mean/float64(known)))

		if n > places {
			upper.WriteString(move + at(highest))
			lower = append(lower, at(least))
		}

		move = "L"
	}

	flush()
	p.Line = line.String()

	return p
}

// addScale sets the ticks and returns the value at the top.
func (p *Plot) addScale(most float64, format func(float64) string) float64 {
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for _, f := range []float64{0.2, 0.5, 1, 2, 5} {
		if most/(f*step) <= 4 {
			step *= f
			break
		}
	}

	top := step * math.Ceil(most/step)
	for v := 0.0; v <= top*1.001; v += step {
		p.Ticks = append(p.Ticks, Tick{format(v), 100 * v / top})
		p.Grid += fmt.Sprintf("M0 %.0fH%d", square*(1-v/top), square)
	}

	return top
}

// addTimes sets the ticks of the time.
func (p *Plot) addTimes(seconds float64) {
	steps := []float64{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400}
	step := steps[0]
	for i := 1; i < len(steps) && seconds/step > 5; i++ {
		step = steps[i]
	}

	for seconds/step > 5 {
		step *= 2
	}

	for v := 0.0; v <= seconds; v += step {
		if at := 100 * v / seconds; at <= 95 { // or the label would not fit
			p.Times = append(p.Times, Tick{formatClock(v), at})
		}
	}

	p.Times[0].Text = "0"
}

// formatClock is a time of whole seconds, as short as can be: 10s, 1m30s, 2h.
func formatClock(seconds float64) string {
	text := time.Duration(seconds * float64(time.Second)).String()
	if short, ok := strings.CutSuffix(text, "m0s"); ok {
		text = short + "m"
	}

	if short, ok := strings.CutSuffix(text, "h0m"); ok {
		text = short + "h"
	}

	return text
}
