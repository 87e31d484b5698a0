package batch

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// Service has the batches of a folder. It is safe for concurrent use.
type Service struct {
	cfg  Config
	disk *records
	bus  *bus.Bus

	// changes is held while a record is changed, on disk too, and while a file is deleted: no
	// batch is created of a file that is being deleted.
	changes sync.Mutex

	// mu guards the fields below. It is held for moments.
	mu sync.RWMutex
	// all has the records by their runs, and order has them, the oldest first.
	all   map[string]*record
	order []*record
	// live are the runs of the batches that have not ended.
	live map[string]bool
	// byKey has the runs by the owners and the idempotency keys of their requests.
	byKey map[requestKey]string
	// byFile has the runs by the ids of the files of their outputs.
	byFile map[string]string
	// unsaved are the runs whose records could not be written since they changed.
	unsaved map[string]bool
	// submissions are the attempts to put runs on the bus, by the runs.
	submissions map[string]*submission
	// noRoomUntil is the time until which nothing is put on the bus, since it has no room.
	noRoomUntil time.Time
	// crowded reports that the bus had no room for the latest attempt: there is one at a time then, since
	// the streams of several that are half there leave no room for any.
	crowded bool
	// fresh are the runs that were created since Open and that no attempt has put on the bus.
	fresh map[string]bool
	// missing are the runs that the bus has lost, though their batches began.
	missing map[string]bool
	// sizes are the sizes of the files of the outputs, by their ids.
	sizes map[string]outputSize
	// noted are the ids of the files of the outputs that are missing, which is logged.
	noted map[string]bool
	// unnotified are the runs of the batches whose end is to be notified.
	unnotified map[string]bool

	// submitter, notifier and sweeper wake the goroutines of those names.
	submitter, notifier, sweeper wakeup
}

// requestKey is the idempotency key of an owner.
type requestKey struct{ owner, key string }

// Open reads the batches of a folder and looks at their runs, for as long as the bus takes to
// answer. The error names the folder if another process has it.
func Open(ctx context.Context, cfg Config) (*Service, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}

	cfg.Keep = cmp.Or(cfg.Keep, DefaultKeep)

	disk, err := openRecords(cfg.Records)
	if err != nil {
		return nil, err
	}

	s := &Service{
		cfg:         cfg,
		disk:        disk,
		bus:         bus.New(cfg.Bus.JS),
		all:         map[string]*record{},
		live:        map[string]bool{},
		byKey:       map[requestKey]string{},
		byFile:      map[string]string{},
		unsaved:     map[string]bool{},
		submissions: map[string]*submission{},
		fresh:       map[string]bool{},
		missing:     map[string]bool{},
		sizes:       map[string]outputSize{},
		noted:       map[string]bool{},
		unnotified:  map[string]bool{},
		submitter:   newWakeup(),
		notifier:    newWakeup(),
		sweeper:     newWakeup(),
	}

	if err := s.load(ctx); err != nil {
		disk.close()
		return nil, err
	}

	return s, nil
}

// load reads the records and the manifests of the runs that have not ended.
func (s *Service) load(ctx context.Context) error {
	damaged := false
	list, err := s.disk.load(func(path string, err error) {
		damaged = true
		s.cfg.Log.Error().Err(err).Str("file", path).Msg("failed to read the record of a batch; leaving it alone")
	})
	if err != nil {
		return err
	}

	for _, r := range list {
		r.ordered = s.cfg.Format.Ordered
		s.put(r)
	}

	if !damaged {
		s.removeOrphans()
	}

	for {
		runs, err := s.bus.Runs.List(ctx)
		if err == nil {
			s.followAll(slices.Values(runs))
			s.warnElsewhere(runs)
			return nil
		}

		s.cfg.Log.Warn().Err(err).Msg("failed to read the runs of the batches; retrying")
		if err := bus.Sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

// warnElsewhere warns of batches of this machine that have not ended and have their files in another folder: the
// server may have been started with the wrong one, and its clients do not find their batches.
func (s *Service) warnElsewhere(runs []proto.Manifest) {
	elsewhere := map[string]int{} // batches, by the folders
	for _, m := range runs {
		host, out, _ := strings.Cut(m.Output, ":")
		if m.Policy.Batch && !m.State.Ended() && host == pipeline.HostName() && s.find(IDPrefix+m.Run) == nil {
			elsewhere[filepath.Dir(out)]++
		}
	}

	for dir, n := range elsewhere {
		s.cfg.Log.Warn().Int("batches", n).Str("dir", dir).Str("serves", s.cfg.Dir).
			Msg("unfinished batches on this bus have their files in another folder; clients do not see them here: " +
				"give serve that folder with --dir")
	}
}

// Close lets other processes use the folder. Run must have returned.
func (s *Service) Close() error { return s.disk.close() }

// Run puts the batches on the bus and follows their runs until ctx ends, which is no error. It
// returns an error when the connection to the bus is closed.
func (s *Service) Run(ctx context.Context) error {
	group, working := errgroup.WithContext(ctx)
	group.Go(func() error { return s.followRuns(working) })
	group.Go(func() error { return s.submitAll(working) })
	group.Go(func() error { return s.notifyEnded(working) })
	group.Go(func() error { return s.sweep(working) })

	if err := group.Wait(); ctx.Err() == nil {
		return err
	}

	return nil
}

// Get returns a batch, or [ErrNotFound].
func (s *Service) Get(id string) (Batch, error) {
	r := s.find(id)
	if r == nil {
		return Batch{}, ErrNotFound
	}
	return r.describe(), nil
}

// List returns all batches, the newest first.
func (s *Service) List() []Batch {
	s.mu.RLock()
	defer s.mu.RUnlock()

	list := make([]Batch, 0, len(s.order))
	for _, r := range slices.Backward(s.order) {
		list = append(list, r.describe())
	}

	return list
}

// Create makes a batch, which is on disk then; Run puts it on the bus. A request that has its batch
// already, by its idempotency key or since it was retried, returns that one, and existing is true.
// A request that cannot be a batch is a [RequestError]. The error wraps syscall.ENOSPC while the disk of
// the outputs or of the state folder has less than its reserve, see [files.CheckRoom].
func (s *Service) Create(ctx context.Context, q Request) (b Batch, existing bool, err error) {
	window, err := q.check()
	if err != nil {
		return Batch{}, false, err
	}

	s.changes.Lock()
	defer s.changes.Unlock()

	if err := context.Cause(ctx); err != nil {
		return Batch{}, false, err
	}

	now := time.Now().UTC()
	input, inputErr := s.getInput(q.InputFileID, now)
	r := q.newRecord(input, s.cfg.Settings, window, now)
	r.ordered = s.cfg.Format.Ordered

	earlier, err := s.findEarlier(r, q.Retried)
	if err != nil {
		return Batch{}, false, err
	}

	if earlier != nil {
		return earlier.describe(), true, nil
	}

	if inputErr != nil {
		return Batch{}, false, inputErr
	}

	for _, dir := range []string{s.cfg.Dir, s.cfg.State} {
		if err := files.CheckRoom(dir, 0); err != nil {
			return Batch{}, false, err
		}
	}

	for s.find(r.id()) != nil {
		r.Run = proto.NewRunID(now)
	}

	if err := s.disk.write(r); err != nil {
		// The record may be in its place, and only its folder was not synced: the next start would
		// begin a batch that the client was refused.
		return Batch{}, false, errors.Join(err, s.disk.remove(r))
	}

	s.add(r)

	return r.describe(), false, nil
}

// findEarlier returns the batch of an earlier request that is the same as that of r, or nil.
func (s *Service) findEarlier(r *record, retried bool) (*record, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()

	if r.IdempotencyKey != "" {
		if run := s.byKey[requestKey{r.Owner, r.IdempotencyKey}]; run != "" {
			earlier := s.all[run]
			if !isSameRequest(earlier, r) {
				return nil, &RequestError{
					Message: fmt.Sprintf("The idempotency key was used for batch %s, with another request: use a new key.",
						earlier.id()),
					Code: "idempotency_key_reused",
				}
			}

			return earlier, nil
		}
	}

	if !retried {
		return nil, nil
	}

	for _, earlier := range slices.Backward(s.order) {
		if r.CreatedAt.Sub(earlier.CreatedAt) >= retryTime {
			break
		}
		if earlier.IdempotencyKey == r.IdempotencyKey && isSameRequest(earlier, r) {
			return earlier, nil
		}
	}

	return nil, nil
}

// Uses reports whether a batch that has not ended needs a file.
func (s *Service) Uses(fileID string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()

	for run := range s.live {
		if s.all[run].InputFileID == fileID {
			return true
		}
	}

	return false
}

// DeleteFile deletes an input file, or returns a [RequestError] if a batch needs it still. No
// batch is created of the file meanwhile. The error is [filestore.ErrNotFound] if the file is
// not there.
func (s *Service) DeleteFile(fileID string) error {
	s.changes.Lock()
	defer s.changes.Unlock()

	if s.Uses(fileID) {
		return &RequestError{
			Message: fmt.Sprintf("File %s is the input of a batch that has not ended: cancel the batch, or wait for its end.",
				fileID),
			Code: "file_in_use",
		}
	}

	return s.cfg.Files.Delete(fileID)
}

// find returns the record of a batch, or nil.
func (s *Service) find(id string) *record {
	run, ok := strings.CutPrefix(id, IDPrefix)
	if !ok {
		return nil
	}

	s.mu.RLock()
	defer s.mu.RUnlock()

	return s.all[run]
}

// add puts the record of a new batch into the index.
func (s *Service) add(r *record) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.put(r)
	s.fresh[r.Run] = true
	s.submitter.wake()
	if time.Until(r.ExpiresAt) < sweepInterval {
		s.sweeper.wake()
	}
}

// put puts a record into the index, in place of that of its run if there is one. The caller
// holds mu, or is alone.
func (s *Service) put(r *record) {
	s.all[r.Run] = r
	s.byFile[r.OutputFileID], s.byFile[r.ErrorFileID] = r.Run, r.Run

	if r.IdempotencyKey != "" {
		s.byKey[requestKey{r.Owner, r.IdempotencyKey}] = r.Run
	}

	if r.State.Ended() {
		if s.live[r.Run] { // it leaves room
			s.noRoomUntil = time.Time{}
			s.submitter.wake()
		}
		delete(s.live, r.Run)
		delete(s.missing, r.Run)
	} else {
		s.live[r.Run] = true
	}

	if r.State.Ended() && !r.Notified {
		s.unnotified[r.Run] = true
		s.notifier.wake()
	} else {
		delete(s.unnotified, r.Run)
	}

	i, there := slices.BinarySearchFunc(s.order, r, compareRecords)
	if there {
		s.order[i] = r
	} else {
		s.order = slices.Insert(s.order, i, r)
	}
}

// compareRecords orders records by the time of their creation.
func compareRecords(a, b *record) int {
	return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.Run, b.Run))
}

// errUnchanged is returned by a change that leaves the record as it is.
var errUnchanged = errors.New("unchanged")

// change changes a record on disk and then for all readers, and returns it. The error of apply ends
// the change, without an error if it is errUnchanged. The caller must not hold changes.
func (s *Service) change(run string, apply func(*record) error) (*record, error) {
	s.changes.Lock()
	defer s.changes.Unlock()

	old := s.find(IDPrefix + run)
	r := *old
	switch err := apply(&r); {
	case errors.Is(err, errUnchanged):
		return old, nil
	case err != nil:
		return old, err
	}

	if err := s.store(&r); err != nil {
		return old, err
	}

	s.replace(&r, false)

	return &r, nil
}

// observe stores a record that has followed its run. Readers see the change also if it cannot be
// written, and the sweeper writes it later: the run is as it is. The caller holds changes.
func (s *Service) observe(r *record) {
	old := s.find(r.id())
	if r.isSame(old) {
		s.replace(r, s.isUnsaved(r.Run))
		return
	}

	err := s.store(r)
	if err != nil {
		s.cfg.Log.Error().Err(err).Str("run", r.Run).Msg("failed to store the state of the batch; retrying")
	}

	s.replace(r, err != nil)
}

// store writes a record.
func (s *Service) store(r *record) error {
	if r.State.Ended() && s.cfg.Ended == nil {
		r.Notified = true // there is no one to notify, and so it stays
	}
	return s.disk.write(r)
}

func (s *Service) isUnsaved(run string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()

	return s.unsaved[run]
}

// replace shows a changed record to readers, and wakes the goroutines that have work with it.
func (s *Service) replace(r *record, unsaved bool) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.put(r)
	if unsaved {
		s.unsaved[r.Run] = true
	} else {
		delete(s.unsaved, r.Run)
	}

	if r.RemoveRun {
		s.sweeper.wake()
	}
}

// newFileID returns the id of a file of an output: file- and 24 letters and digits.
func newFileID() string { return "file-" + strings.ToLower(rand.Text()[:24]) }

// wakeup wakes a goroutine that waits for work.
type wakeup chan struct{}

func newWakeup() wakeup { return make(wakeup, 1) }

// wake wakes the goroutine, or keeps it from waiting next.
func (w wakeup) wake() {
	select {
	case w <- struct{}{}:
	default:
	}
}

// wait waits for work, for a time at most. It returns the cause of ctx's end.
func (w wakeup) wait(ctx context.Context, most time.Duration) error {
	timer := time.NewTimer(most)
	defer timer.Stop()

	select {
	case <-w:
		return nil
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
