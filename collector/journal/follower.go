package journal

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// Follower reads the state of a journal that another process may be writing. It takes no lock, and reads each header
// once. The lines that were written last may not be synced yet. It is not safe for concurrent use.
type Follower struct {
	path string
	file *os.File // nil: not open
	// read has the state up to offset.
	read   recovery
	offset int64
	// failures are the latest frames with lines of failed requests.
	failures []frameRef
	// looked is the file as of the last look, and changed reports that it was another one before.
	looked  os.FileInfo
	changed bool
	// stalls counts the looks in a row that found a changed file and no frame in what it has more.
	stalls int
}

const (
	// mostFailureFrames is the most frames that are remembered for [Follower.FailedLines].
	mostFailureFrames = 64
	// mostStalls is the number of looks after which the file is read again from its start: a process that has died
	// has left a part of a frame, and another one has put others in its place.
	mostStalls = 5
)

// Follow returns a follower of the journal at a path, which need not be there yet.
func Follow(path string) *Follower { return &Follower{path: path} }

// Close closes the file.
func (f *Follower) Close() error {
	if f.file == nil {
		return nil
	}

	err := f.file.Close()
	f.file = nil

	return err
}

// State returns the state as of the last [Follower.Refresh]. It is valid until the next one, and must not be changed.
func (f *Follower) State() *State { return &f.read.state }

// Refresh reads what was written since the last call. changed reports that the state is another one. The error wraps
// os.ErrNotExist if there is no journal, and proto.ErrFormat if another version of promptmill wrote it.
func (f *Follower) Refresh() (changed bool, err error) {
	info, err := os.Stat(f.path)
	if err != nil {
		f.Close()
		return false, fmt.Errorf("follow journal: %w", err)
	}

	f.changed = f.looked == nil || info.Size() != f.looked.Size() || !info.ModTime().Equal(f.looked.ModTime())
	f.looked = info

	reopened := f.file == nil
	if !reopened {
		open, err := f.file.Stat()
		reopened = err != nil || !os.SameFile(info, open) || info.Size() < f.offset || f.stalls >= mostStalls
	}

	if reopened {
		if err := f.reopen(); err != nil {
			return false, err
		}
	}

	grown, err := f.readOn()

	return grown || reopened, err
}

// reopen opens the file that is at the path now, and begins at its start.
func (f *Follower) reopen() (err error) {
	f.Close()
	f.failures, f.stalls = nil, 0

	if f.file, err = os.Open(f.path); err != nil {
		return fmt.Errorf("follow journal: %w", err)
	}

	f.read = recovery{
		frames: &frameReader{path: f.path, file: f.file},
		state:  State{Done: roaring.New(), Stats: &FrameStats{}},
	}
	if err := f.measure(); err != nil {
		return err
	}

	f.offset, err = f.read.frames.firstFrame()

	return err
}

// measure reads the size of the file.
func (f *Follower) measure() error {
	info, err := f.file.Stat()
	if err != nil {
		return fmt.Errorf("follow journal: %w", err)
	}
	f.read.frames.size = info.Size()

	return nil
}

// readOn reads the frames that are whole from the offset on.
func (f *Follower) readOn() (grown bool, err error) {
	if err := f.measure(); err != nil {
		return false, err
	}

	for f.offset < f.read.frames.size {
		h, length, err := f.read.frames.readHeader(f.offset)
		if isCorruption(err) { // mostly a frame that is being written
			if !grown && f.changed { // else it is what a dead process has left
				f.stalls++
			}
			return grown, nil
		}
		if err != nil {
			return grown, err
		}

		ref := frameRef{
			header: h,
			offset: f.offset,
			packed: f.offset + length,
			end:    f.offset + length + h.Packed,
		}
		if err := f.add(ref); err != nil {
			return grown, err
		}
		f.offset, f.stalls, grown = ref.end, 0, true
	}

	return grown, nil
}

// add adds a frame to the state.
func (f *Follower) add(ref frameRef) error {
	f.read.pending = &ref
	if err := f.read.settlePending(false); err != nil {
		return err
	}
	f.read.good = nil

	if ref.Failed != "" {
		f.failures = append(f.failures[max(0, len(f.failures)-mostFailureFrames+1):], ref.withoutPayload())
	}

	return nil
}

// FailedLines returns the lines of failed requests, most at most, the latest first. It skips frames that cannot be
// read.
func (f *Follower) FailedLines(most int) (list [][]byte, err error) {
	lines, err := newLineDecoder()
	if err != nil {
		return nil, err
	}
	defer lines.Close()

	for _, ref := range slices.Backward(f.failures) {
		var of [][]byte
		if ref.header, _, err = f.read.frames.readHeader(ref.offset); err == nil {
			keep := func(_ uint32, failed bool, line []byte) error {
				if failed {
					of = append(of, bytes.Clone(line))
				}
				return nil
			}
			err = f.read.frames.yieldLines(ref, lines, 0, math.MaxUint32, keep)
		}
		if err != nil && !isCorruption(err) {
			return list, err
		}

		slices.Reverse(of)
		if list = append(list, of...); len(list) >= most {
			return list[:most], nil
		}
	}

	return list, nil
}
