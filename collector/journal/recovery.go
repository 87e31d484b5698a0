package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
)

// errNoManifest reports that no whole frame has the run's manifest.
var errNoManifest = errors.New("no whole frame in it describes the run")

// Repair checks the lines of every frame and cuts out damaged frames. The requests of
// those frames count as not done. It is for a journal of which Lines or Rewrite has
// returned a [CorruptionError].
func (j *Journal) Repair() error {
	if err := j.recoverFrames(true); err != nil {
		return fmt.Errorf("repair journal %s: %w", j.path, err)
	}
	return nil
}

// recoverFrames reads the headers of the journal's frames, and cuts off a torn tail. It checks
// the lines of the last frame or, with all, of every frame: earlier frames were synced
// before the next one was begun.
func (j *Journal) recoverFrames(all bool) error {
	frames, err := j.newReader()
	if err != nil {
		return err
	}

	lines, err := newLineDecoder()
	if err != nil {
		return err
	}
	defer lines.Close()

	r := recovery{
		frames:   frames,
		lines:    lines,
		allLines: all,
		state:    State{Done: roaring.New(), Stats: &FrameStats{}},
	}

	_, damage, err := frames.readFrames(func(f frameRef) error {
		err := r.settlePending(false)
		r.pending = &f
		return err
	})
	if err == nil {
		err = r.settlePending(true)
	}
	if err != nil {
		return err
	}

	if !r.described {
		if len(r.good) == 0 && frames.isPartialFirstFrame() {
			// The process that created the journal died before its first frame was whole.
			return errors.Join(os.Remove(j.path), os.ErrNotExist)
		}
		return frames.corruption(0, errNoManifest)
	}

	if damage >= 0 || r.damaged {
		err = j.compactFile(r.good)
		// A frame that was cut out may have held results that the stream still has.
		r.state.Position = Position{}
	} else {
		j.size = r.good[len(r.good)-1].end
		if err = j.file.Truncate(j.size); err == nil && j.size < frames.size {
			err = j.file.Sync()
		}
	}

	r.state.CutBytes = frames.size - j.size
	j.state, j.resumed = r.state, true

	return err
}

// newReader returns a reader of the journal as it is now.
func (j *Journal) newReader() (*frameReader, error) {
	info, err := j.file.Stat()
	if err != nil {
		return nil, err
	}
	return &frameReader{path: j.path, file: j.file, size: info.Size()}, nil
}

// recovery gathers a journal's state. It is one frame behind the reading, so that it
// knows which frame is the last.
type recovery struct {
	frames   *frameReader
	lines    *lineDecoder
	allLines bool // check the lines of every frame

	pending   *frameRef
	good      []frameRef
	state     State
	described bool // a frame had the run's manifest
	damaged   bool // a frame before the last one has damaged lines
}

// settlePending checks the pending frame and adds it to the state.
func (r *recovery) settlePending(last bool) error {
	if r.pending == nil {
		return nil
	}

	f := *r.pending
	r.pending = nil

	if r.allLines || last {
		_, err := r.lines.decode(r.frames, f)
		if isCorruption(err) {
			r.damaged = r.damaged || !last
			return nil
		}
		if err != nil {
			return err
		}
	}

	if m := f.Manifest; m != nil {
		if err := proto.CheckSchema(m.Schema); err != nil {
			return err
		}
		r.state.Manifest, r.described = *m, true
		r.state.Sessions++
	}

	if r.described && f.Run != r.state.Manifest.Run {
		return fmt.Errorf("%w: it holds frames of run %s and of run %s", proto.ErrFormat, r.state.Manifest.Run, f.Run)
	}

	indexes, err := r.frames.parseIndexes(f)
	if err != nil {
		return err
	}

	r.state.add(f.header, indexes)
	r.good = append(r.good, f.withoutPayload())

	return nil
}

// isPartialFirstFrame reports whether the file is empty, or the beginning of a journal
// without a whole frame.
func (r *frameReader) isPartialFirstFrame() bool {
	const start = len(fileStart)
	var got [start + 12]byte

	n, err := r.file.ReadAt(got[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false
	}

	magic := binary.LittleEndian.AppendUint32([]byte(fileStart), frameMagic)

	return bytes.HasPrefix(magic, got[:min(n, start+4)]) && strings.HasPrefix(frameTag, string(got[min(n, start+8):n]))
}

// compactFile replaces the file by one of whole frames only.
func (j *Journal) compactFile(good []frameRef) error {
	return j.replaceFile(func(next *Journal) error {
		for _, f := range good {
			if err := next.copyFrame(j.file, f); err != nil {
				return err
			}
		}

		return nil
	})
}

// copyFrame appends a frame of another journal as it is.
func (j *Journal) copyFrame(from *os.File, f frameRef) error {
	if j.size == 0 && f.offset > 0 {
		n, err := j.file.WriteString(fileStart)
		if err != nil {
			return err
		}
		j.size = int64(n)
	}

	n, err := io.Copy(io.NewOffsetWriter(j.file, j.size), io.NewSectionReader(from, f.offset, f.end-f.offset))
	j.size += n

	return err
}

// replaceFile puts another file in the place of the journal's.
func (j *Journal) replaceFile(write func(next *Journal) error) error {
	info, err := j.file.Stat()
	if err != nil {
		return err
	}

	file, err := atomicfile.CreateLocked(j.path+atomicfile.TempSuffix, output.Mode)
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // does nothing after the rename

	next := &Journal{path: file.Name(), file: file, enc: j.enc}

	err = file.Chmod(info.Mode().Perm())
	if err == nil {
		err = write(next)
	}
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = os.Rename(file.Name(), j.path)
	}
	if err != nil {
		file.Close()
		return err
	}

	// The path has the new file from here on, whether or not the rename is durable.
	atomicfile.Unlock(j.file)
	j.file, j.size = file, next.size

	return atomicfile.SyncDir(j.path)
}
