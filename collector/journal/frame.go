package journal

import (
	"cmp"
	"slices"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// frameTarget is the size of a full frame's lines, in bytes. One longer line makes a longer
// frame.
const frameTarget = 4 << 20

// finishTruncated is the finish reason of an answer that was cut off at its token limit.
const finishTruncated = "length"

// Frame is a part of a journal that is being filled. The zero value is empty.
type Frame struct {
	// Counts, Stats and Series are kept by Add and AddDuplicate, except for the values that these do not
	// see: the drops in Counts, and the whole of Series and Latencies.
	Counts proto.Counts
	Stats  FrameStats
	Series metadata.Series
	// Latencies are the end-to-end latencies by time.
	Latencies Latencies
	// WorkerSessions are the sessions that are new or have changed.
	WorkerSessions []WorkerSession
	// Position is the last message of the results stream that was read, or zero.
	Position Position
	// Stops are the limits that stopped the run.
	Stops []proto.ReachedLimit
	// At is the time at which the frame was closed. Defaults to the time of Append.
	At time.Time
	// Worked, Idle and Lost are parts of the time since the frame before: the run was worked
	// on, it was not, and it was not collected. One is negative where results show that a time of
	// earlier frames was spent in another way.
	Worked, Idle, Lost time.Duration
	// AccountedTo is the time until which the parts of all frames account for the time, if the
	// results of a time without a collector are still being read. Defaults to At.
	AccountedTo time.Time

	entries []entry
	bytes   int // of the lines
	sizes   Sizes
	failed  []uint32
	digest  proto.Digest
	worker  string // of the line before: most come from the same one

	manifest             *proto.Manifest
	interruption         *metadata.Interruption
	earlierSessions      int
	earlierInterruptions []metadata.Interruption
}

// entry is a line and the request that it answers.
type entry struct {
	index uint32
	line  []byte
}

// Add adds the output line of a request. The frame keeps the line.
func (f *Frame) Add(index uint32, line []byte, info proto.Line) {
	f.entries = append(f.entries, entry{index, line})
	f.bytes += len(line)
	f.digest.Add(index, info.CustomID, info.RequestHash)
	f.Counts.Done++
	f.Counts.Attempts += info.Attempts
	f.Counts.PromptTokens += info.PromptTokens
	f.Counts.CompletionTokens += info.CompletionTokens
	if info.Finish == finishTruncated {
		f.Counts.Truncated++
	}

	if f.worker != string(info.Worker) {
		f.worker = string(info.Worker)
	}

	f.Stats.AddLine(info, line, f.worker)

	full, plain := int64(len(line)), int64(proto.PlainSize(line))
	if info.OK {
		f.sizes.add(Sizes{OK: full, OKPlain: plain})
		return
	}

	f.Counts.Failed++
	if isSkipped(info) {
		f.Counts.Skipped++
	}

	f.failed = append(f.failed, index)
	f.sizes.add(Sizes{Failed: full, FailedPlain: plain})
}

// AddDuplicate counts a line that is dropped, since its request has one.
func (f *Frame) AddDuplicate(info proto.Line) {
	f.Counts.Duplicates++
	f.Stats.addDuplicate(info)
}

// IsFull reports whether the frame should be appended for its size.
func (f *Frame) IsFull() bool { return f.bytes >= frameTarget }

// sortLines returns the frame's lines in the order of their requests.
func (f *Frame) sortLines() (indexes []uint32, lines []byte) {
	slices.SortFunc(f.entries, func(a, b entry) int { return cmp.Compare(a.index, b.index) })

	indexes = make([]uint32, len(f.entries))
	lines = make([]byte, 0, f.bytes)
	for i, e := range f.entries {
		indexes[i] = e.index
		lines = append(lines, e.line...)
	}

	return indexes, lines
}

// header returns the frame's header, with the requests of its lines in their order.
func (f *Frame) header(indexes []uint32) header {
	slices.Sort(f.failed)

	h := header{
		Manifest:        f.manifest,
		Indexes:         proto.FormatIndexes(indexes),
		Failed:          proto.FormatIndexes(f.failed),
		Sizes:           f.sizes,
		Counts:          f.Counts,
		Digest:          f.digest,
		WorkerSessions:  f.WorkerSessions,
		Position:        f.Position,
		At:              f.At,
		Worked:          f.Worked.Milliseconds(),
		Idle:            f.Idle.Milliseconds(),
		Lost:            f.Lost.Milliseconds(),
		AccountedTo:     f.AccountedTo,
		Stops:           f.Stops,
		Interruption:    f.interruption,
		EarlierSessions: f.earlierSessions,

		EarlierInterruptions: f.earlierInterruptions,
	}
	if len(f.entries) > 0 || f.Stats.Costs != nil {
		h.Stats = &f.Stats
	}
	if f.Series.Len() > 0 {
		h.Series = &f.Series
	}
	if f.Latencies.seconds > 0 {
		h.Latencies = &f.Latencies
	}

	return h
}
