package collector

import (
	"cmp"
	"slices"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// frame is a part of the journal that is being gathered.
type frame struct {
	entries  []entry
	bytes    int
	sizes    Sizes
	failed   []uint32
	counts   proto.Counts
	digest   proto.Digest
	tally    Tally
	worker   string // of the line before: most come from the same
	series   metadata.Series
	times    times
	found    time.Duration // in which nobody collected, but somebody was at work
	position Position
	opened   time.Time // when its first message came
	spent    []string  // objects that its requests came in
	large    []largeAnswer
}

// largeAnswer are lines that did not fit into their message.
type largeAnswer struct {
	name  string
	bytes int64
}

type entry struct {
	seq  uint32
	line []byte
}

// add takes an output line.
func (f *frame) add(seq uint32, line []byte, info proto.Line) {
	f.entries = append(f.entries, entry{seq, line})
	f.bytes += len(line)
	f.digest.Add(seq, info.CustomID, info.RequestHash)
	f.counts.Done++
	f.counts.Attempts += info.Attempts
	f.counts.PromptTokens += info.PromptTokens
	f.counts.CompletionTokens += info.CompletionTokens

	if f.worker != string(info.Worker) {
		f.worker = string(info.Worker)
	}

	f.tally.add(info, f.worker)

	full, plain := int64(len(line)), int64(proto.PlainSize(line))
	if info.OK {
		f.sizes.add(Sizes{OK: full, OKPlain: plain})
	} else {
		f.counts.Failed++
		if notRun(info) {
			f.counts.Skipped++
		}
		f.failed = append(f.failed, seq)
		f.sizes.add(Sizes{Failed: full, FailedPlain: plain})
	}
}

// full reports whether the frame should be closed for its size.
func (f *frame) full() bool { return f.bytes >= frameTarget }

// header is what the frame's header says of its lines.
func (f *frame) header(seqs []uint32) header {
	slices.Sort(f.failed)

	return header{
		Seqs:     proto.FormatIndexes(seqs),
		Failed:   proto.FormatIndexes(f.failed),
		Sizes:    f.sizes,
		Counts:   f.counts,
		Digest:   f.digest,
		Tally:    &f.tally,
		Series:   &f.series,
		Position: f.position,
		Worked:   (f.times.worked + f.found).Milliseconds(),
		Idle:     f.times.idle.Milliseconds(),
		Lost:     -f.found.Milliseconds(),
	}
}

// lines returns the frame's lines in the order of their numbers.
func (f *frame) lines() (seqs []uint32, lines []byte) {
	slices.SortFunc(f.entries, func(a, b entry) int { return cmp.Compare(a.seq, b.seq) })
	seqs = make([]uint32, len(f.entries))
	lines = make([]byte, 0, f.bytes)
	for i, e := range f.entries {
		seqs[i] = e.seq
		lines = append(lines, e.line...)
	}

	return seqs, lines
}
