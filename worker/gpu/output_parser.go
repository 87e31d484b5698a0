package gpu

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"
)

// longestLine is more than a line of nvidia-smi ever has. The rest of a longer one is dropped.
const longestLine = 4 << 10

// outputParser parses the output of one nvidia-smi for a watch.
type outputParser struct {
	watch       *Watch
	partialLine []byte // a line whose end has not come yet
	readings    []Reading
	complete    bool   // there was a complete set
	message     string // the last line, if it was no reading
}

// Write takes the next bytes, cut anywhere. It never fails.
func (o *outputParser) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		line, rest, whole := bytes.Cut(p, []byte("\n"))
		o.partialLine = append(o.partialLine, line...)
		o.partialLine = o.partialLine[:min(len(o.partialLine), longestLine)]
		if whole {
			o.parseLine(strings.TrimSpace(string(o.partialLine)))
			o.partialLine = o.partialLine[:0]
		}

		p = rest
	}

	return n, nil
}

// flushLine takes the bytes after the last whole line: the line may be cut, so it is no reading.
func (o *outputParser) flushLine() {
	if text := strings.TrimSpace(string(o.partialLine)); text != "" {
		o.message = text
	}
}

// parseLine takes a line. A set of readings is complete when there is one of each card, or, if
// that number is unknown or wrong, when a card comes again.
func (o *outputParser) parseLine(text string) {
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

// publishSet passes a complete set to the watch.
func (o *outputParser) publishSet(now time.Time) {
	slices.SortFunc(o.readings, func(a, b Reading) int { return cmp.Compare(a.Index, b.Index) })
	o.watch.setReadings(o.readings, now)
	o.readings, o.complete = nil, true
}
