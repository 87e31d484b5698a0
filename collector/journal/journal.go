package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
)

// Journal is an open journal. It is not safe for concurrent use.
type Journal struct {
	path  string
	file  *os.File // holds the lock
	enc   *zstd.Encoder
	size  int64
	buf   []byte
	state State

	// resumed reports that an earlier session wrote the journal, and that this one is not
	// noted in it yet.
	resumed bool
	// reopened reports that the journal was made from a complete output, and not interrupted.
	reopened bool

	claim *output.Claim // nil until Claim
}

// State is the content of a journal, except for the lines.
type State struct {
	// Manifest is the run's manifest at the start of the latest session.
	Manifest proto.Manifest
	// Done are the requests that have their line.
	Done *roaring.Bitmap
	// Counts and Digest are of the requests that the lines answer.
	Counts proto.Counts
	Digest proto.Digest
	// Stats are of all lines; nil: unknown, since some lines were not counted so.
	Stats *FrameStats
	// WorkerSessions may have worked on the run, by their keys.
	WorkerSessions map[string]WorkerSession
	Sizes          Sizes
	// Position is the last message of the results stream that was read. It is zero after
	// damage: a frame that was cut out may have held results that the stream still has.
	Position Position
	Series   metadata.Series
	// Latencies are the end-to-end latencies of the answered requests by time.
	Latencies Latencies
	// Worked, Idle and Lost are the parts of the run's time: it was worked on, it was
	// collected but not worked on, and it was not collected and no result came.
	Worked, Idle, Lost time.Duration
	// Stops are the limits of the policy that stopped the run, in order.
	Stops []proto.ReachedLimit
	// At is the time at which the last frame was closed, and Began the earliest such time.
	At, Began time.Time
	// AccountedTo is the time until which Worked, Idle and Lost account for the time of the run. It is
	// before At while the results of a time without a collector are being read.
	AccountedTo time.Time
	// Interruptions are the times without a collector, the latest 100.
	Interruptions []metadata.Interruption
	// Sessions counts the sessions of the run, the first one included.
	Sessions int
	// CutBytes is the size of the damage that was dropped when the journal was opened.
	CutBytes int64
}

// Missing returns the requests that have no line.
func (s *State) Missing() *roaring.Bitmap {
	return roaring.Flip(s.Done, 0, uint64(s.Manifest.Input.Requests))
}

// Create makes the journal of a new run. It returns an error that wraps os.ErrExist if the
// journal exists, and [atomicfile.ErrLocked] if it is in use.
func Create(path string, m proto.Manifest) (*Journal, error) {
	path, err := atomicfile.FollowLinks(path)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}

	file, err := createFile(path)
	if err != nil {
		return nil, err
	}

	return initJournal(path, file, m)
}

// createFile creates and locks the file of a new journal. A file of a process that died
// before the first frame was whole is replaced.
func createFile(path string) (*os.File, error) {
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, output.Mode)
		if err == nil {
			err = atomicfile.Lock(path, file)
			if errors.Is(err, atomicfile.ErrReplaced) {
				continue // another process took it for a partial first frame
			}
			return file, err
		}

		if !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("create journal: %w", err)
		}

		switch j, openErr := Open(path); {
		case openErr == nil:
			j.Close()
			return nil, fmt.Errorf("create journal: %w", err)
		case !errors.Is(openErr, os.ErrNotExist):
			return nil, openErr
		}
		// Open has removed a partial first frame.
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
		Stats:    &FrameStats{},
		Sessions: 1,
	}

	if err := j.Append(&Frame{manifest: &m, AccountedTo: m.CreatedAt}); err != nil {
		j.Close()
		os.Remove(path)
		return nil, err
	}

	if err := atomicfile.SyncDir(path); err != nil {
		j.Close()
		return nil, err
	}

	return j, nil
}

// Open opens the journal of a run, and resumes where its last whole frame ends. Damaged
// frames are cut out, and their requests count as not done. Open returns an error that
// wraps os.ErrNotExist if there is no journal, [atomicfile.ErrLocked] if it is in use, a
// [CorruptionError] if no frame in it has the run's manifest, and an error that wraps
// proto.ErrFormat if another version of promptmill wrote it ([proto.CheckSchema]).
func Open(path string) (*Journal, error) {
	path, err := atomicfile.FollowLinks(path)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}

	file, err := openFile(path)
	if err != nil {
		return nil, err
	}

	j, err := newJournal(path, file)
	if err != nil {
		return nil, err
	}

	if err := j.recoverFrames(false); err != nil {
		j.Close()
		return nil, fmt.Errorf("recover journal %s: %w", path, err)
	}

	return j, nil
}

// openFile opens and locks the file of a journal.
func openFile(path string) (*os.File, error) {
	for {
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil, fmt.Errorf("open journal: %w", err)
		}

		err = atomicfile.Lock(path, file)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, atomicfile.ErrReplaced) {
			return nil, err
		}
	}
}

// ReadManifest reads the manifest of a journal's run. It takes no lock, so a run may be
// writing the journal.
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

	r := &frameReader{path: path, file: file, size: info.Size()}

	first, err := r.firstFrame()
	if err != nil {
		return proto.Manifest{}, err
	}

	h, _, err := r.readHeader(first)
	if err == nil && h.Manifest == nil {
		err = r.corruption(first, errNoManifest)
	}
	if err == nil {
		err = proto.CheckSchema(h.Manifest.Schema)
	}
	if err != nil {
		return proto.Manifest{}, fmt.Errorf("read journal %s: %w", path, err)
	}

	return *h.Manifest, nil
}

// newJournal returns the journal of a locked file, which it closes if it cannot.
func newJournal(path string, file *os.File) (*Journal, error) {
	// Fast, because the journal is rewritten in the end.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		atomicfile.Unlock(file)
		return nil, fmt.Errorf("zstd encoder: %w", err)
	}
	return &Journal{path: path, file: file, enc: enc}, nil
}

// State returns the journal's state. The caller must not change it.
func (j *Journal) State() *State { return &j.state }

// Size returns the size of the journal's file in bytes: the end of its last frame.
func (j *Journal) Size() int64 { return j.size }

// Claim makes sure that no other run writes a file of the output, from now until the
// journal is closed, and over the death of the process until the run is complete. It does
// nothing the second time.
func (j *Journal) Claim(out output.Prefix) error {
	if j.claim != nil {
		return nil
	}

	var err error
	j.claim, err = output.NewClaim(out, j.path)

	return err
}

// CreateFile begins a file of the output that the journal has claimed.
func (j *Journal) CreateFile(path string) (*atomicfile.File, error) { return j.claim.CreateFile(path) }

// Close releases the journal, its lock and its claim.
func (j *Journal) Close() error {
	j.enc.Close()

	_, err := os.Stat(j.path)
	j.claim.Release(j.path, err != nil)

	return atomicfile.Unlock(j.file)
}

// Remove deletes the journal's file. The journal stays open.
func (j *Journal) Remove() error {
	if err := os.Remove(j.path); err != nil {
		return fmt.Errorf("remove journal: %w", err)
	}
	return atomicfile.SyncDir(j.path)
}

// BeginSession notes that a session of the run begins, if it is not the first. The time since the session
// before counts as lost, until results show how it was spent.
func (j *Journal) BeginSession() error {
	if !j.resumed {
		return nil
	}

	j.resumed = false
	j.state.Sessions++
	m, stopped, now := j.state.Manifest, j.state.At, time.Now().UTC()

	f := &Frame{
		manifest:    &m,
		At:          now,
		Lost:        max(0, now.Sub(stopped)),
		AccountedTo: j.state.AccountedTo,
	}
	if !j.reopened {
		f.interruption = &metadata.Interruption{From: stopped, To: now}
		if now.Before(stopped) { // the clock was put back
			f.interruption.From = now
		}
	}

	return j.Append(f)
}

// Append writes a frame and waits until it is on the disk.
func (j *Journal) Append(f *Frame) error {
	return j.appendFrame(f, true)
}

// appendFrame writes a frame, and with sync waits until it is on the disk.
func (j *Journal) appendFrame(f *Frame, sync bool) error {
	indexes, lines := f.sortLines()
	h := f.header(indexes)
	h.Run = j.state.Manifest.Run
	if h.At.IsZero() {
		h.At = time.Now().UTC()
	}

	if err := j.writeFrame(h, lines, sync); err != nil {
		return err
	}

	j.state.add(h, indexes)

	return nil
}

// writeFrame writes a frame, and with sync waits until it is on the disk.
func (j *Journal) writeFrame(h header, lines []byte, sync bool) error {
	var packed []byte
	if len(lines) > 0 {
		packed = j.enc.EncodeAll(lines, nil)
	}

	h.Bytes, h.Packed, h.CRC = int64(len(lines)), int64(len(packed)), crc32.Checksum(packed, crcTable)
	buf := j.buf[:0]
	if j.size == 0 {
		buf = append(buf, fileStart...)
	}

	buf, err := appendHeader(buf, h)
	if err != nil {
		return err
	}

	j.buf = append(buf, packed...)
	if _, err := j.file.WriteAt(j.buf, j.size); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}

	if sync {
		if err := j.file.Sync(); err != nil {
			return fmt.Errorf("write journal: %w", err)
		}
	}

	j.size += int64(len(j.buf))

	return nil
}

// maxInterruptions is the most interruptions that a journal lists.
const maxInterruptions = 100

// add adds a frame of the requests indexes.
func (s *State) add(h header, indexes []uint32) {
	s.Done.AddMany(indexes)
	s.Counts.Add(h.Counts)
	s.Digest += h.Digest

	switch {
	case h.Stats == nil && h.Counts.Done > 0:
		s.Stats = nil
	case h.Stats != nil && s.Stats != nil:
		s.Stats.Merge(*h.Stats)
	}

	for _, w := range h.WorkerSessions {
		if s.WorkerSessions == nil {
			s.WorkerSessions = map[string]WorkerSession{}
		}
		s.WorkerSessions[w.Key()] = w
	}

	s.Sizes.add(h.Sizes)

	if s.Series.Len() == 0 && !s.Manifest.CreatedAt.IsZero() {
		s.Series.Add(s.Manifest.CreatedAt, metadata.Point{}) // the first results came some time after that
		s.Latencies.interval(s.Manifest.CreatedAt)
	}

	s.Series.Merge(h.Series)
	s.Latencies.Merge(h.Latencies)
	s.Worked += time.Duration(h.Worked) * time.Millisecond
	s.Idle += time.Duration(h.Idle) * time.Millisecond
	s.Lost += time.Duration(h.Lost) * time.Millisecond
	s.Sessions += h.EarlierSessions
	s.Stops = append(s.Stops, h.Stops...)

	s.Interruptions = append(s.Interruptions, h.EarlierInterruptions...)
	if h.Interruption != nil {
		s.Interruptions = append(s.Interruptions, *h.Interruption)
	}
	s.Interruptions = s.Interruptions[max(0, len(s.Interruptions)-maxInterruptions):]

	if s.Began.IsZero() || h.At.Before(s.Began) {
		s.Began = h.At
	}

	s.At, s.AccountedTo = h.At, h.At
	if !h.AccountedTo.IsZero() {
		s.AccountedTo = h.AccountedTo
	}

	if h.Position.Sequence > 0 {
		s.Position = h.Position
	}
}
