// Package journal keeps the output lines of an incomplete run in one file, which survives a
// crash at any moment.
//
// A journal is a sequence of frames. Each has a header and a compressed block of output
// lines, and is synced before the next one is begun:
//
//	Frame.Add ... Journal.Append      Open: read the headers, cut off a torn tail
//	                  |                             |
//	                  v                             v
//	+-------+-----------------+-----------------+-- - -
//	| start | header | lines  | header | lines  |
//	+-------+-----------------+-----------------+-- - -
//	                  |                             |
//	                  v                             v
//	          State: the done requests    Rewrite: the output files
//
// The header names the requests that the lines answer, with their counts and statistics, so
// opening a journal reads no lines ([State]). It is a zstd skippable frame, and the lines
// are an ordinary zstd frame: any zstd program reads a journal's lines at any time.
//
// The journal is the run's truth: a request with a line in a frame is done, whatever the
// bus reports.
// It belongs to one process at a time, which holds the lock of its file. The journal knows
// the place in the results stream up to which it was filled ([Position]), and otherwise
// nothing of the bus.
//
// Others may read it meanwhile, without the lock and as far as its lines are synced: a
// [Snapshot] has the frames of one moment. It keeps the file open, so the disk has the space of
// a removed journal again when the last snapshot is closed.
//
// Damage is reported as a [CorruptionError]. [Open] checks the headers and the last frame's
// lines. If [Journal.Lines] or [Journal.Rewrite] finds damage in older lines,
// [Journal.Repair] cuts those frames out, and their requests count as not done.
package journal
