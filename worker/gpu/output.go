package gpu

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"
)

// longestLine is more than a line of nvidia-smi ever has. The rest of a longer one is
// left out.
const longestLine = 4 << 10

// output takes apart what one nvidia-smi writes.
type output struct {
	watch    *Watch
	part     []byte // a line whose end has not come yet
	readings []Reading
	complete bool   // there was a complete set
	message  string // the last line, if it was not a card's
}

// Write takes the next bytes, cut anywhere. It never fails.
func (o *output) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		line, rest, whole := bytes.Cut(p, []byte("\n"))
		o.part = append(o.part, line...)
		o.part = o.part[:min(len(o.part), longestLine)]
		if whole {
			o.parseLine(strings.TrimSpace(string(o.part)))
			o.part = o.part[:0]
		}

		p = rest
	}

	return n, nil
}

// flushLine takes what came after the last whole line: it may be cut, so it is no reading.
func (o *output) flushLine() {
	if text := strings.TrimSpace(string(o.part)); text != "" {
		o.message = text
	}
}

// parseLine takes a line. A set of readings is complete when there is one of each card, or,
// where that number is not told or not kept, when a card comes again.
func (o *output) parseLine(text string) {
	r, count, ok := parseReading(text)
	if !ok {
		o.message = cmp.Or(text, o.message)
		return
	}

	o.message = ""
	now := time.Now()
	o.watch.addEnergy(r, now)

	if slices.ContainsFunc(o.readings, func(have Reading) bool { return have.Index == r.Index }) {
		o.publishSet(now)
	}

	o.readings = append(o.readings, r)
	if len(o.readings) == count {
		o.publishSet(now)
	}
}

func (o *output) publishSet(now time.Time) {
	slices.SortFunc(o.readings, func(a, b Reading) int { return cmp.Compare(a.Index, b.Index) })
	o.watch.setReadings(o.readings, now)
	o.readings, o.complete = nil, true
}
