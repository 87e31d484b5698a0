package trial

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
	"unicode"

	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/report"
)

const (
	// deskWidth and phoneWidth are the widths of a drawing in pixels at which its text is as large as that of the page.
	deskWidth  = 736
	phoneWidth = 358
	plotHeight = 340
	// mostBars is the number of speeds that are drawn.
	mostBars = 30
)

// buildPlot draws the speed of the variants against their quality, or, where that is not known of two of them, the
// speeds alone.
func (r *Result) buildPlot() report.Section {
	marks := r.listMarks()
	if len(marks) >= 2 {
		s := report.Section{ID: "plot", Title: "Speed against quality"}
		s.Picture = r.drawTwice(func(width float64, id string) string { return r.drawPlot(marks, width, id) })
		s.AddNote("The numbers are the ranks in the table. Lines are 90%% intervals. Up and to the right is better.")

		return s
	}

	bars := r.listBars()
	if len(bars) < 2 {
		return report.Section{}
	}

	s := report.Section{ID: "plot", Title: "Speed"}
	s.Picture = r.drawTwice(func(width float64, id string) string { return r.drawBars(bars, width, id) })
	note := "Requests/s. Lines are 90% intervals; a bar without one has none."
	if left := r.countSpeeds() - len(bars); left > 0 {
		note += fmt.Sprintf(" Not drawn: %s further down.", figures.Plural(int64(left), "variant"))
	}
	s.AddNote("%s", note)

	return s
}

// drawTwice draws for a desk and for a phone, of which the page shows one: text that shrank with the drawing could not
// be read.
func (r *Result) drawTwice(draw func(width float64, id string) string) template.HTML {
	desk, phone := draw(deskWidth, "desk"), draw(phoneWidth, "phone")
	return template.HTML(desk + "\n" + phone) //nolint:gosec // escapeText has escaped what comes from outside
}

// mark is a variant in the plot.
type mark struct {
	row                           *Row
	rank                          int
	x, xLow, xHigh, y, yLow, yTop float64
}

// listMarks returns the variants of which speed and quality are known.
func (r *Result) listMarks() (list []mark) {
	for i := range r.Variants {
		row := &r.Variants[i]
		q, ok := row.qualityOf(r.Measure)
		if !ok || row.Speed == nil {
			continue
		}

		low, high := row.Speed.bounds()
		list = append(list, mark{
			row:   row,
			rank:  i + 1,
			x:     row.Speed.rate(),
			xLow:  low,
			xHigh: high,
			y:     q.Mean,
			yLow:  q.Low,
			yTop:  q.High,
		})
	}

	return list
}

// bounds is the interval of a speed, or twice the rate if none is known.
func (s Speed) bounds() (low, high float64) {
	if s.Low > 0 && s.High >= s.Low {
		return s.Low, s.High
	}
	return s.rate(), s.rate()
}

// drawPlot draws marks into a drawing of a width.
func (r *Result) drawPlot(marks []mark, width float64, id string) string {
	left, right, top, bottom := 56.0, width-16, 24.0, plotHeight-44.0
	lowX, highX, lowY, highY := math.Inf(1), 0.0, math.Inf(1), math.Inf(-1)
	for _, m := range marks {
		lowX, highX = min(lowX, m.xLow), max(highX, m.xHigh)
		lowY, highY = min(lowY, m.yLow), max(highY, m.yTop)
	}

	if lowX < highX/2 { // else the marks would be in one corner
		lowX = 0
	}

	x := newScale(lowX, highX, left, right)
	y := newScale(lowY, highY, bottom, top)

	var b strings.Builder
	begin(&b, id, width, plotHeight, "Speed against quality",
		r.describePlot(marks))
	for _, v := range x.ticks(width / 90) {
		fmt.Fprintf(&b, `<path class="grid" d="M%.1f %.1fV%.1f"/>`, x.at(v), top, bottom)
		fmt.Fprintf(&b, `<text class="soft" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, x.at(v), bottom+18, number(v))
	}
	for _, v := range y.ticks(5) {
		fmt.Fprintf(&b, `<path class="grid" d="M%.1f %.1fH%.1f"/>`, left, y.at(v), right)
		fmt.Fprintf(&b, `<text class="soft" x="%.1f" y="%.1f" text-anchor="end">%s</text>`, left-8, y.at(v)+4, r.qualityNumber(v))
	}

	fmt.Fprintf(&b, `<text class="soft" x="%.1f" y="%.1f" text-anchor="end">requests/s</text>`, right, bottom+38)
	fmt.Fprintf(&b, `<text class="soft" x="0" y="11">%s</text>`, strings.ToLower(qualityColumn(r.Measure)))

	places := placeLabels(marks, x, y, width)
	for i, m := range marks {
		px, py := x.at(m.x), y.at(m.y)
		fmt.Fprintf(&b, `<g class="%s">`, r.classOf(m.row))
		fmt.Fprintf(&b, `<path d="M%.1f %.1fH%.1fM%.1f %.1fV%.1f"/>`, x.at(m.xLow), py, x.at(m.xHigh), px,
			y.at(m.yLow), y.at(m.yTop))
		fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="5"/>`, px, py)

		p := places[i]
		cx, cy := p.x+p.width/2, p.y+p.height/2
		if math.Hypot(cx-px, cy-py) > 20 {
			fmt.Fprintf(&b, `<path class="lead" d="M%.1f %.1fL%.1f %.1f"/>`, px, py, cx, cy)
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle">%d</text></g>`, cx, cy+4.5, m.rank)
	}

	b.WriteString(`</svg>`)

	return b.String()
}

// describePlot is the plot in words: what the table says for each of the first marks.
func (r *Result) describePlot(marks []mark) string {
	const named = 8

	var parts []string
	for i, m := range marks {
		if i == named {
			parts = append(parts, fmt.Sprintf("and %d more in the table", len(marks)-named))
			break
		}
		parts = append(parts, fmt.Sprintf("%s %s requests/s, %s", m.row.shortName(), figures.Amount(m.x), r.qualityNumber(m.y)))
	}

	return strings.Join(parts, "; ")
}

func (r *Result) qualityNumber(v float64) string {
	if r.Measure == Scored {
		return figures.TrimZeros(figures.Fixed(v, 3))
	}
	return figures.TrimZeros(figures.Fixed(100*v, 1)) + "%"
}

// classOf is the class of a variant in a drawing.
func (r *Result) classOf(row *Row) string {
	switch {
	case row.Name == r.Chosen:
		return "variant chosen"
	case row.Beside:
		return "variant beside"
	}
	return "variant"
}

// listBars returns the rows whose speeds are drawn, in the order of ranks.
func (r *Result) listBars() (list []int) {
	for i, row := range r.Variants {
		if row.Speed != nil && len(list) < mostBars {
			list = append(list, i)
		}
	}
	return list
}

func (r *Result) countSpeeds() (n int) {
	for _, row := range r.Variants {
		if row.Speed != nil {
			n++
		}
	}
	return n
}

// drawBars draws the speeds of rows as bars with their intervals.
func (r *Result) drawBars(rows []int, width float64, id string) string {
	const step, thickness = 42.0, 12.0

	most := 0.0
	for _, i := range rows {
		_, high := r.Variants[i].Speed.bounds()
		most = max(most, high)
	}

	x := newScale(0, most, 0.5, width-8)

	var words []string
	for _, i := range rows[:min(len(rows), 8)] {
		words = append(words, r.Variants[i].shortName()+" "+figures.Amount(r.Variants[i].Speed.rate()))
	}

	var b strings.Builder
	begin(&b, id, width, step*float64(len(rows)), "Speed of the variants in requests/s", strings.Join(words, "; "))
	for n, i := range rows {
		row := &r.Variants[i]
		y := step * float64(n)
		low, high := row.Speed.bounds()
		rate := figures.Amount(row.Speed.rate())
		middle := y + 26

		fmt.Fprintf(&b, `<g class="%s">`, r.classOf(row))
		fmt.Fprintf(&b, `<text x="0" y="%.1f">%s</text>`, y+13, escapeText(fit(r.label(i), width-80)))
		fmt.Fprintf(&b, `<text class="soft" x="%.1f" y="%.1f" text-anchor="end">%s</text>`, width, y+13, rate)
		fmt.Fprintf(&b, `<rect x="0.5" y="%.1f" width="%.1f" height="%.1f"/>`, middle-thickness/2,
			max(1, x.at(row.Speed.rate())-0.5), thickness)
		if high > low {
			fmt.Fprintf(&b, `<path d="M%.1f %.1fH%.1fM%.1f %.1fv8M%.1f %.1fv8"/>`, x.at(low), middle, x.at(high),
				x.at(low), middle-4, x.at(high), middle-4)
		}
		b.WriteString(`</g>`)
	}

	b.WriteString(`</svg>`)

	return b.String()
}

// begin begins a drawing that screen readers read as its title and its description.
func begin(b *strings.Builder, id string, width, height float64, title, description string) {
	fmt.Fprintf(b, `<svg class="%[1]s" viewBox="0 0 %.0[2]f %.0[3]f" role="img" aria-labelledby="%[1]s-title %[1]s-words">`,
		id, width, height)
	fmt.Fprintf(b, `<title id="%[1]s-title">%[2]s</title><desc id="%[1]s-words">%[3]s</desc>`, id, title,
		escapeText(description))
}

// escapeText is foreign text in a drawing: one line without control characters and markup.
func escapeText(text string) string {
	return template.HTMLEscapeString(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD")))
}

// fit is the beginning of a text that fits into a width, with the sign of what is left out. Letters are taken to be 7.5
// pixels wide, and those of wide scripts 14.
func fit(text string, width float64) string {
	used := 0.0
	for i, r := range text {
		wide := 7.5
		if r >= 0x1100 {
			wide = 14
		}
		if r == 'W' || r == 'M' || r == 'm' || r == 'w' || r == '@' {
			wide = 12
		}

		if used += wide; used > width-14 {
			return text[:i] + "…"
		}
	}

	return text
}

// number writes a figure at an axis.
func number(v float64) string { return figures.TrimZeros(figures.Amount(v)) }

// scale maps values to places.
type scale struct{ low, high, from, to float64 }

// newScale maps low to from and a little more than high to to.
func newScale(low, high, from, to float64) scale {
	if !(high > low) {
		low, high = low-0.01*max(1, math.Abs(low)), high+0.01*max(1, math.Abs(high))
	}
	if low > 0 {
		low -= (high - low) * 0.08
	}

	return scale{low, high + (high-low)*0.08, from, to}
}

func (s scale) at(v float64) float64 { return s.from + (v-s.low)/(s.high-s.low)*(s.to-s.from) }

// ticks are about n round values in the scale.
func (s scale) ticks(n float64) (list []float64) {
	raw := (s.high - s.low) / max(2, n)
	unit := math.Pow(10, math.Floor(math.Log10(raw)))
	step := 10 * unit
	for _, f := range []float64{5, 2, 1} {
		if f*unit >= raw {
			step = f * unit
		}
	}

	for i := math.Ceil(s.low / step); i*step <= s.high && len(list) < 20; i++ {
		list = append(list, i*step)
	}

	return list
}

// box is a part of a drawing.
type box struct{ x, y, width, height float64 }

func (a box) overlaps(b box) bool {
	return a.x < b.x+b.width && b.x < a.x+a.width && a.y < b.y+b.height && b.y < a.y+a.height
}

// placeLabels finds a place for the label of each mark where neither a mark nor another label is: the nearest free one,
// around the mark in growing circles. Intervals are avoided where that is possible.
func placeLabels(marks []mark, x, y scale, width float64) []box {
	const near = 40 // beyond, an interval that is crossed is the lesser evil

	var dots, lines []box
	for _, m := range marks {
		dots = append(dots, box{x.at(m.x) - 5, y.at(m.y) - 5, 10, 10})
		lines = append(lines, box{x.at(m.xLow), y.at(m.y) - 1, x.at(m.xHigh) - x.at(m.xLow), 2},
			box{x.at(m.x) - 1, y.at(m.yTop), 2, y.at(m.yLow) - y.at(m.yTop)})
	}

	places := make([]box, 0, len(dots))
	for _, d := range dots {
		place, ok := findPlace(d, width, near, dots, lines, places)
		if !ok {
			place, _ = findPlace(d, width, width, dots, places)
		}
		places = append(places, place)
	}

	return places
}

// findPlace returns the free place nearest to a dot within reach; ok: there is one. Else it is above the dot.
func findPlace(dot box, width, reach float64, taken ...[]box) (place box, ok bool) {
	const wide, high = 20.0, 15.0

	isFree := func(b box) bool {
		if b.x < 0 || b.y < 0 || b.x+b.width > width || b.y+b.height > plotHeight-30 {
			return false
		}
		for _, list := range taken {
			if slices.ContainsFunc(list, b.overlaps) {
				return false
			}
		}

		return true
	}

	cx, cy := dot.x+dot.width/2, dot.y+dot.height/2
	for radius := 16.0; radius < reach; radius += 6 {
		for turn := range 16 {
			angle := -math.Pi/4 + float64(turn)*math.Pi/8
			place = box{cx + radius*math.Cos(angle) - wide/2, cy + radius*math.Sin(angle) - high/2, wide, high}
			if isFree(place) {
				return place, true
			}
		}
	}

	return box{cx - wide/2, cy - high - 6, wide, high}, false
}
