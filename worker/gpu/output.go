package gpu

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"
)

// longestLine is more than a line of nvidia-smi ever has. The rest of a longer one is
// taken as a line of its own, which no card has either.
const longestLine = 4 << 10

// output takes apart what one nvidia-smi writes.
type output struct {
	watch    *Watch
	part     []byte // a line whose end has not come yet
	readings []Reading
	complete bool   // there was a complete set
	message  string // the last line that was not a card's
}

// Write takes the next bytes, cut anywhere. It never fails.
func (o *output) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		line, rest, whole := bytes.Cut(p, []byte("\n"))
		o.part = append(o.part, line...)
		if whole || len(o.part) > longestLine {
			o.flush()
		}
		p = rest
	}
	return n, nil
}

// flush takes what is there as a line.
func (o *output) flush() {
	line := strings.TrimSpace(string(o.part))
	o.part = o.part[:0]
	if line != "" {
		o.line(line)
	}
}

// line takes a line. A set of readings is complete when there is one of each card, or,
// where that number is not told or not kept, when a card comes again.
func (o *output) line(text string) {
	r, count, ok := parse(text)
	if !ok {
		o.message = text
		return
	}
	now := time.Now()
	o.watch.count(r, now)
	if slices.ContainsFunc(o.readings, func(have Reading) bool { return have.Index == r.Index }) {
		o.publish(now)
	}
	o.readings = append(o.readings, r)
	if len(o.readings) == count {
		o.publish(now)
	}
}

func (o *output) publish(now time.Time) {
	slices.SortFunc(o.readings, func(a, b Reading) int { return cmp.Compare(a.Index, b.Index) })
	o.watch.set(o.readings, now)
	o.readings, o.complete = nil, true
}
