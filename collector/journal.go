package collector

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// ErrLocked is returned when another process has the journal open.
var ErrLocked = errors.New("another promptmill is writing this output")

// ErrUndescribed is returned for a journal of which each frame that says what run it is
// of is damaged. It wraps proto.ErrFormat.
var ErrUndescribed = fmt.Errorf("%w: no whole frame in it describes the run", proto.ErrFormat)

// Journal is the growing output of a run that is not complete. It is the run's
// truth: what a frame in it holds is done, whatever the bus says.
type Journal struct {
	path string
	file *os.File // holds the lock
	enc  *zstd.Encoder
	size int64
	buf  []byte
	old  bool // there was a session before this one

	claim *claim // of the output; nil until [Journal.Claim]

	state State
}

// State is what a journal holds.
type State struct {
	Manifest proto.Manifest  // as it was when the run began
	Done     *roaring.Bitmap // requests that have their line
	Counts   proto.Counts
	Digest   proto.Digest             // of the requests that the lines answer
	Tally    *Tally                   // nil: unknown, since some lines were not counted so
	Workers  map[string]WorkerSession // that may have worked on the run, by their keys
	Sizes    Sizes
	Position Position
	Series   metadata.Series
	Worked   time.Duration // in which somebody was at work for the run, in all
	Idle     time.Duration // in which it was collected, and nobody was at work
	Lost     time.Duration // in which nobody collected, and no result came
	At       time.Time     // of the last frame
	Sessions int           // how often the journal was opened to go on, the first time included
	Cut      int64         // bytes of damaged frames that were dropped on opening
}

// CreateJournal makes the journal of a new run. It returns an error that wraps
// os.ErrExist if there is one, and [ErrLocked] if it is in use.
func CreateJournal(path string, m proto.Manifest) (*Journal, error) {
	path, err := follow(path)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}

	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, outputMode)
		if errors.Is(err, os.ErrExist) {
			switch j, openErr := OpenJournal(path); {
			case openErr == nil:
				j.Close()
			case errors.Is(openErr, os.ErrNotExist): // it was the beginning of one, and is gone now
				continue
			default:
				return nil, openErr
			}
		}
		if err != nil {
			return nil, fmt.Errorf("create journal: %w", err)
		}

		if err := lock(path, file); errors.Is(err, errMoved) {
			continue // another process took it for the beginning of one
		} else if err != nil {
			return nil, err
		}

		return initJournal(path, file, m)
	}
}

// initJournal writes the first frame into a locked file.
func initJournal(path string, file *os.File, m proto.Manifest) (*Journal, error) {
	j, err := newJournal(path, file)
	if err != nil {
		return nil, err
	}

	j.state = State{
		Manifest: m,
		Done:     roaring.New(),
		Tally:    &Tally{},
		Sessions: 1,
	}

	if err := j.append(header{Run: m.Run, Manifest: &m, At: time.Now().UTC()}, nil, nil); err != nil {
		j.Close()
		os.Remove(path)
		return nil, err
	}

	if err := syncDir(path); err != nil {
		j.Close()
		return nil, err
	}

	return j, nil
}

// OpenJournal opens the journal of a run and goes on where its last whole frame ends.
// What is damaged is cut out; its requests count as not done. It returns an error
// that wraps os.ErrNotExist if there is none, [ErrLocked] if it is in use, and
// proto.ErrFormat if the file is no journal.
func OpenJournal(path string) (*Journal, error) {
	path, err := follow(path)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}

	var file *os.File
	for {
		if file, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
			return nil, fmt.Errorf("open journal: %w", err)
		}

		if err = lock(path, file); err == nil {
			break
		}
		if !errors.Is(err, errMoved) {
			return nil, err
		}
	}

	j, err := newJournal(path, file)
	if err != nil {
		return nil, err
	}

	if err := j.recover(false); err != nil {
		j.Close()
		return nil, fmt.Errorf("recover journal %s: %w", path, err)
	}

	return j, nil
}

// ReadManifest reads what a journal says of its run. It takes no lock, so a run may be
// writing it.
func ReadManifest(path string) (proto.Manifest, error) {
	file, err := os.Open(path)
	if err != nil {
		return proto.Manifest{}, fmt.Errorf("open journal: %w", err)
	}
	defer file.Close()

	info, err := file.Stat()
	if err != nil {
		return proto.Manifest{}, fmt.Errorf("open journal: %w", err)
	}

	first, err := firstFrame(file)
	if err != nil {
		return proto.Manifest{}, fmt.Errorf("read journal %s: %w", path, err)
	}

	h, _, err := readHeader(file, first, info.Size())
	if err != nil || h.Manifest == nil {
		return proto.Manifest{}, fmt.Errorf("read journal %s: %w", path, errors.Join(ErrUndescribed, err))
	}

	if h.Manifest.Schema != proto.ManifestSchema {
		return proto.Manifest{}, fmt.Errorf("read journal %s: %w", path, proto.SchemaError(h.Manifest.Schema))
	}

	return *h.Manifest, nil
}

// newJournal is a journal in a locked file.
func newJournal(path string, file *os.File) (*Journal, error) {
	// it is rewritten in the end
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		unlock(file)
		return nil, fmt.Errorf("zstd encoder: %w", err)
	}
	return &Journal{path: path, file: file, enc: enc}, nil
}

// State is what the journal holds. The caller must not change it.
func (j *Journal) State() *State { return &j.state }

// Close releases the journal and its lock.
func (j *Journal) Close() error {
	j.enc.Close()
	if j.claim != nil {
		j.claim.release(j.path, !exists(j.path))
	}

	return unlock(j.file)
}

// Remove deletes the journal, which stays open.
func (j *Journal) Remove() error {
	if err := os.Remove(j.path); err != nil {
		return fmt.Errorf("remove journal: %w", err)
	}
	return syncDir(j.path)
}

// begin notes that a session of the run begins, if it is not the first.
func (j *Journal) begin() error {
	if !j.old {
		return nil
	}

	j.old = false
	j.state.Sessions++
	m, now := j.state.Manifest, time.Now().UTC()

	return j.append(header{
		Run:      m.Run,
		Manifest: &m,
		At:       now,
		Lost:     max(0, now.Sub(j.state.At)).Milliseconds(),
	}, nil, nil)
}

// append writes a frame and waits until it is on the disk.
func (j *Journal) append(h header, seqs []uint32, lines []byte) error {
	if err := j.write(h, lines); err != nil {
		return err
	}
	j.state.add(h, seqs)
	return nil
}

func (j *Journal) write(h header, lines []byte) error {
	var packed []byte
	if len(lines) > 0 {
		packed = j.enc.EncodeAll(lines, nil)
	}

	h.Bytes, h.Packed, h.CRC = int64(len(lines)), int64(len(packed)), crc32.Checksum(packed, crcTable)
	buf := j.buf[:0]
	if j.size == 0 {
		buf = append(buf, journalStart...)
	}

	buf, err := appendHeader(buf, h)
	if err != nil {
		return err
	}

	j.buf = append(buf, packed...)
	if _, err := j.file.WriteAt(j.buf, j.size); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}

	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}

	j.size += int64(len(j.buf))

	return nil
}

func (s *State) add(h header, seqs []uint32) {
	s.Done.AddMany(seqs)
	s.Counts.Add(h.Counts)
	s.Digest += h.Digest

	switch {
	case h.Tally == nil && h.Counts.Done > 0:
		s.Tally = nil
	case h.Tally != nil && s.Tally != nil:
		s.Tally.Add(*h.Tally)
	}

	for _, w := range h.Workers {
		if s.Workers == nil {
			s.Workers = map[string]WorkerSession{}
		}
		s.Workers[w.key()] = w
	}

	s.Sizes.add(h.Sizes)
	if s.Series.Len() == 0 && !s.Manifest.CreatedAt.IsZero() {
		s.Series.Add(s.Manifest.CreatedAt, metadata.Point{}) // whatever came first came some time after that
	}

	s.Series.Merge(h.Series)
	s.Worked += time.Duration(h.Worked) * time.Millisecond
	s.Idle += time.Duration(h.Idle) * time.Millisecond
	s.Lost += time.Duration(h.Lost) * time.Millisecond
	s.Sessions += h.Sessions
	s.At = h.At

	if h.Position.Seq > 0 {
		s.Position = h.Position
	}
}

// place is a frame in the file.
type place struct {
	header
	offset int64 // of the skippable frame
	packed int64 // offset of the zstd frame
	end    int64
}

// light is the place without what could be long, which can be read again.
func (p place) light() place {
	p.Seqs, p.Failed, p.Manifest, p.Tally, p.Series, p.Workers = "", "", nil, nil, nil, nil
	return p
}

// frames calls each with every whole frame, in order, and returns where the last one
// ends. What lies between whole frames is damage, and is skipped.
func (j *Journal) frames(each func(place) error) (end int64, damaged bool, err error) {
	info, err := j.file.Stat()
	if err != nil {
		return 0, false, err
	}

	size := info.Size()
	first, err := firstFrame(j.file)
	if err != nil {
		return 0, false, err
	}

	for offset := first; offset < size; {
		h, length, err := readHeader(j.file, offset, size)
		if errors.Is(err, errTorn) {
			next, err := nextHeader(j.file, offset+1, size)
			if err != nil {
				return end, damaged, err
			}

			if next < 0 {
				break
			}

			damaged = true
			offset = next

			continue
		}
		if err != nil {
			return end, damaged, err
		}

		p := place{
			header: h,
			offset: offset,
			packed: offset + length,
			end:    offset + length + h.Packed,
		}
		if err := each(p); err != nil {
			return end, damaged, err
		}

		offset, end = p.end, p.end
	}

	return end, damaged, nil
}

// recover reads the journal's headers, and cuts off what is torn. The contents of the
// last frame are checked, and with all given, those of every frame; others were
// synced before the next was begun.
func (j *Journal) recover(all bool) error {
	u, err := newUnpacker()
	if err != nil {
		return err
	}
	defer u.close()

	r := recovery{
		j:        j,
		all:      all,
		unpacker: u,
		state:    State{Done: roaring.New(), Tally: &Tally{}},
	}

	_, damaged, err := j.frames(func(p place) error {
		err := r.settle(false)
		r.pending = &p
		return err
	})
	if err == nil {
		err = r.settle(true)
	}
	if err != nil {
		return err
	}

	size, err := j.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}

	if !r.described {
		if len(r.good) == 0 && j.unborn() {
			// The process that made it died before its first frame was whole.
			return errors.Join(os.Remove(j.path), os.ErrNotExist)
		}
		return ErrUndescribed
	}

	if damaged || r.damaged {
		err = j.compact(r.good)
		// A frame that was cut out may have held results that the stream still has.
		r.state.Position = Position{}
	} else {
		j.size = r.good[len(r.good)-1].end
		if err = j.file.Truncate(j.size); err == nil && j.size < size {
			err = j.file.Sync()
		}
	}

	r.state.Cut = size - j.size
	j.state, j.old = r.state, true

	return err
}

// recovery gathers what a journal holds, one frame behind the reading, so that it
// knows which frame is the last.
type recovery struct {
	*unpacker
	j         *Journal
	all       bool
	pending   *place
	good      []place
	state     State
	described bool // a frame had the run's manifest
	damaged   bool // a frame before the last one has damaged contents
}

// settle takes in the pending frame.
func (r *recovery) settle(last bool) error {
	if r.pending == nil {
		return nil
	}

	p := *r.pending
	r.pending = nil

	if r.all || last {
		if _, err := r.unpack(r.j.file, p); errors.Is(err, errTorn) {
			r.damaged = r.damaged || !last
			return nil
		} else if err != nil {
			return err
		}
	}

	if m := p.Manifest; m != nil {
		if m.Schema != proto.ManifestSchema {
			return proto.SchemaError(m.Schema)
		}
		r.state.Manifest, r.described = *m, true
		r.state.Sessions++
	}

	if r.described && p.Run != r.state.Manifest.Run {
		return fmt.Errorf("%w: it holds frames of run %s and of run %s", proto.ErrFormat, r.state.Manifest.Run, p.Run)
	}

	seqs, err := proto.ParseIndexes(p.Seqs, p.Counts.Done)
	if err != nil {
		return fmt.Errorf("frame at byte %d: %w", p.offset, err)
	}

	r.state.add(p.header, seqs)
	r.good = append(r.good, p.light())

	return nil
}

// unborn reports whether the file is the beginning of a journal without a whole frame, or
// empty.
func (j *Journal) unborn() bool {
	const start = len(journalStart)
	var got [start + 12]byte
	n, err := j.file.ReadAt(got[:], 0)
	if err != nil && err != io.EOF {
		return false
	}

	magic := binary.LittleEndian.AppendUint32([]byte(journalStart), frameMagic)

	return bytes.HasPrefix(magic, got[:min(n, start+4)]) && strings.HasPrefix(frameTag, string(got[min(n, start+8):n]))
}

// compact replaces the file by one of whole frames only.
func (j *Journal) compact(good []place) error {
	return j.replace(func(tmp *Journal) error {
		for _, p := range good {
			if err := tmp.copyFrame(j.file, p); err != nil {
				return err
			}
		}

		return nil
	})
}

// copyFrame appends a frame of another journal as it is.
func (j *Journal) copyFrame(from *os.File, p place) error {
	if j.size == 0 && p.offset > 0 {
		n, err := j.file.WriteString(journalStart)
		if err != nil {
			return err
		}
		j.size = int64(n)
	}

	n, err := io.Copy(io.NewOffsetWriter(j.file, j.size), io.NewSectionReader(from, p.offset, p.end-p.offset))
	j.size += n

	return err
}

// replace writes another file in the place of the journal's.
func (j *Journal) replace(write func(tmp *Journal) error) error {
	info, err := j.file.Stat()
	if err != nil {
		return err
	}

	tmp, err := createLocked(j.path+tempSuffix, outputMode)
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already when all went well

	next := &Journal{path: tmp.Name(), file: tmp, enc: j.enc}
	err = tmp.Chmod(info.Mode().Perm())
	if err == nil {
		err = write(next)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err == nil {
		err = os.Rename(tmp.Name(), j.path)
	}
	if err != nil {
		tmp.Close()
		return err
	}

	// The path has the new file from here on, whether or not that is known to last.
	unlock(j.file)
	j.file, j.size = tmp, next.size

	return syncDir(j.path)
}
