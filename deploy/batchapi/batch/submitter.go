package batch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/inputerror"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/jsonl"
)

const (
	// maxSubmissions is the most batches that are put on the bus at once: each is read, packed
	// and sent. An owner has fewer, see [turns].
	maxSubmissions = 3
	// firstRetry and lastRetry bound the time until a failed attempt is repeated.
	firstRetry = time.Second
	lastRetry  = time.Minute
	// longWait is the time for which a goroutine waits that nothing else wakes.
	longWait = time.Hour
)

// submission is an attempt to put a run on the bus, or the time of the next one.
type submission struct {
	// stop ends the attempt that is at work, and done is closed then. Nil: none is.
	stop context.CancelCauseFunc
	done chan struct{}
	// failures counts the attempts that failed, and next is the time of the next one.
	failures int
	next     time.Time
	// holds counts the calls that keep the next attempt from beginning.
	holds int
}

// submitAll puts batches on the bus, the oldest first, until ctx ends.
func (s *Service) submitAll(ctx context.Context) error {
	var working sync.WaitGroup
	defer working.Wait()

	slots := make(chan struct{}, maxSubmissions)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}

		r, attempt, err := s.awaitSubmission(ctx)
		if err != nil {
			return err
		}

		working.Go(func() {
			defer func() { <-slots }()
			s.submit(attempt, r)
		})
	}
}

// awaitSubmission waits for a batch to put on the bus, and begins the attempt. The context is
// that of the attempt.
func (s *Service) awaitSubmission(ctx context.Context) (*record, context.Context, error) {
	for {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}

		r, attempt, wait := s.beginSubmission(ctx, time.Now())
		if r != nil {
			return r, attempt, nil
		}

		if err := s.submitter.wait(ctx, wait); err != nil {
			return nil, nil, err
		}
	}
}

// beginSubmission begins an attempt for the oldest batch to put on the bus now. If there is
// none, it returns the time until there may be one.
func (s *Service) beginSubmission(
	ctx context.Context, now time.Time,
) (next *record, attempt context.Context, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if left := s.noRoomUntil.Sub(now); left > 0 {
		return nil, nil, left
	}

	wait = longWait
	turns := s.countTurns()
	if s.crowded && len(turns.files) > 0 {
		return nil, nil, wait
	}

	for run := range s.live {
		r := s.all[run]
		if r.State != proto.StateValidating && !s.missing[run] || !turns.allow(r) {
			continue
		}

		if at := s.submissions[run]; at != nil {
			if at.stop != nil || at.holds > 0 {
				continue
			}

			if left := at.next.Sub(now); left > 0 {
				wait = min(wait, left)
				continue
			}
		}

		if next == nil || compareRecords(r, next) < 0 {
			next = r
		}
	}

	if next == nil {
		return nil, nil, wait
	}

	at := s.submissions[next.Run]
	if at == nil {
		at = &submission{}
		s.submissions[next.Run] = at
	}

	attempt, at.stop = context.WithCancelCause(ctx)
	at.done = make(chan struct{})

	return next, attempt, 0
}

// turns count the attempts at work by their owners and by their input files. An input may take minutes to
// read: an owner leaves a slot to others, and a file has one slot.
type turns struct {
	owners map[string]int
	files  map[string]bool
}

// countTurns counts the attempts at work. The caller holds mu.
func (s *Service) countTurns() turns {
	t := turns{owners: map[string]int{}, files: map[string]bool{}}
	for run, at := range s.submissions {
		if at.stop != nil {
			r := s.all[run]
			t.owners[r.Owner]++
			t.files[r.InputFileID] = true
		}
	}

	return t
}

// allow reports whether a batch may be put on the bus now. Without keys, the owners are not known.
func (t turns) allow(r *record) bool {
	return !t.files[r.InputFileID] && (r.Owner == "" || t.owners[r.Owner] < maxSubmissions-1)
}

// endSubmission ends an attempt. The error of one that is to be repeated sets the time of the
// next one.
func (s *Service) endSubmission(run string, err error) (wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()

	at := s.submissions[run]
	at.stop(nil)
	close(at.done)
	at.stop = nil

	switch {
	case err == nil || errors.Is(err, errMadeRoom):
		at.failures, at.next = 0, time.Time{}
		s.crowded = err != nil
		s.dropSubmission(run)
	case bus.IsNoStorage(err): // the oldest batch is the next one, whenever there is room
		wait = noRoomWait
		s.crowded = true
		s.noRoomUntil = time.Now().Add(wait)
		s.dropSubmission(run)
	default:
		at.failures++
		wait = min(firstRetry<<min(at.failures-1, 10), lastRetry)
		at.next = time.Now().Add(wait)
	}

	s.submitter.wake()

	return wait
}

// noRoomWait is the time until the bus is asked for room again, unless a batch ends before.
const noRoomWait = 10 * time.Second

// errMadeRoom is returned when the bus had no room for a run and has some now.
var errMadeRoom = errors.New("there is room for the run now")

// makeRoom deletes the batch from the bus that ended first. Its output is in its files, and it
// stayed there for readers alone. Without one, it returns the error noRoom. Either way, the streams of
// the run that found no room are gone, and those of others that wait: they would keep out the oldest
// batch, which is the next one.
func (s *Service) makeRoom(ctx context.Context, run string, noRoom error) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	runs, err := s.bus.Runs.List(ctx)
	if err != nil {
		return err
	}

	var first *proto.Manifest
	for _, m := range runs {
		r := s.find(IDPrefix + m.Run)
		if r == nil || !r.State.Ended() || !m.State.Ended() || m.EndedAt == nil {
			continue
		}

		if first == nil || m.EndedAt.Before(*first.EndedAt) {
			first = &m
		}
	}

	for _, m := range runs {
		if m.State != proto.StateValidating {
			continue
		}

		release := func() {}
		if m.Run != run {
			if release = s.holdWaiting(m.Run); release == nil {
				continue
			}
		}

		err := bus.DeleteStreams(ctx, s.cfg.Bus.JS, m.Run)
		release()
		if err != nil {
			return errors.Join(noRoom, err)
		}
	}

	if first == nil {
		return noRoom
	}

	s.cfg.Log.Info().Str("run", first.Run).
		Msg("the bus has no room for another batch; deleted one there that has ended")

	return cmp.Or(pipeline.DeleteRun(ctx, s.cfg.Bus.JS, s.bus.Runs, *first), errMadeRoom)
}

// dropSubmission forgets a submission that has nothing to say. The caller holds mu.
func (s *Service) dropSubmission(run string) {
	if at := s.submissions[run]; at.stop == nil && at.failures == 0 && at.holds == 0 {
		delete(s.submissions, run)
	}
}

// holdSubmission keeps attempts to put a run on the bus from beginning, and stops the one that
// is at work. release ends the hold; it is to be called also after an error. isFresh reports
// that there was no attempt yet, so that nothing of the run is on the bus.
func (s *Service) holdSubmission(ctx context.Context, run string) (isFresh bool, release func(), err error) {
	s.mu.Lock()
	at, release := s.hold(run)
	stop, done, isFresh := at.stop, at.done, s.fresh[run]
	s.mu.Unlock()

	if stop == nil {
		return isFresh, release, nil
	}

	stop(errHeld)
	select {
	case <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}

	return false, release, err
}

// holdWaiting keeps attempts to put a batch on the bus from beginning, if it waits for one. Else release
// is nil.
func (s *Service) holdWaiting(run string) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()

	r, at := s.all[run], s.submissions[run]
	if r == nil || r.State != proto.StateValidating || at != nil && at.stop != nil {
		return nil
	}

	_, release = s.hold(run)

	return release
}

// hold keeps attempts to put a run on the bus from beginning until release. The caller holds mu.
func (s *Service) hold(run string) (at *submission, release func()) {
	at = s.submissions[run]
	if at == nil {
		at = &submission{}
		s.submissions[run] = at
	}

	at.holds++

	return at, func() {
		s.mu.Lock()
		defer s.mu.Unlock()

		at.holds--
		s.dropSubmission(run)
		s.submitter.wake()
	}
}

// errHeld stops the submission of a batch that is cancelled or expires.
var errHeld = errors.New("the batch is to end")

// submit puts a batch on the bus.
func (s *Service) submit(ctx context.Context, r *record) {
	err := s.trySubmit(ctx, r)
	stopped := ctx.Err() != nil
	wait := s.endSubmission(r.Run, err)
	switch {
	case err == nil, stopped, errors.Is(err, errMadeRoom):
	case bus.IsNoStorage(err):
		s.cfg.Log.Info().Str("run", r.Run).Msg("the bus has no room for the batch now; waiting until others have ended")
	default:
		s.cfg.Log.Warn().Err(err).Str("run", r.Run).Stringer("again_in", wait).
			Msg("failed to put the batch on the bus; retrying")
	}
}

// trySubmit puts a batch on the bus, or ends it if its input is at fault. Its error is no fault
// of the batch.
func (s *Service) trySubmit(ctx context.Context, r *record) error {
	if !s.takeFresh(r.Run) {
		if settled, err := s.settle(ctx, r.Run); settled || err != nil {
			return err
		}
	}

	path, err := s.cfg.Files.Path(r.InputFileID)
	var m proto.Manifest
	if err == nil {
		m, err = pipeline.Submit(ctx, s.newSubmit(r, path))
	}

	switch faults := describeFaults(err, r.InputName); {
	case bus.IsNoStorage(err):
		return s.makeRoom(ctx, r.Run, err)
	case err == nil:
		return s.noteSubmitted(m)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case len(faults) > 0:
		_, err := s.change(r.Run, func(now *record) error {
			if now.State.Ended() {
				return errUnchanged
			}
			now.fail(time.Now().UTC(), faults)
			return nil
		})

		return err
	}

	return err
}

// takeFresh reports whether there was no attempt to put a run on the bus yet. There is one from
// now on.
func (s *Service) takeFresh(run string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()

	isFresh := s.fresh[run]
	delete(s.fresh, run)

	return isFresh
}

// newSubmit returns the configuration that puts a batch on the bus.
func (s *Service) newSubmit(r *record, path string) pipeline.SubmitConfig {
	settings := r.Settings
	settings.Endpoint = r.Endpoint

	var expiresAt *time.Time
	if !r.ExpiresAt.IsZero() {
		expiresAt = new(r.ExpiresAt)
	}

	return pipeline.SubmitConfig{
		Bus:      s.cfg.Bus,
		Inputs:   []string{path},
		State:    s.cfg.State,
		Settings: settings,
		Policy: proto.RunPolicy{
			ExpiresAt:   expiresAt,
			KeepSeconds: int64(s.cfg.Keep / time.Second),
			Attended:    true,
			Batch:       true,
		},
		RunID:  r.Run,
		Output: s.cfg.output(r.Run),
		Label:  makeLabel(r.InputName),
	}
}

// noteSubmitted notes that a run is on the bus.
func (s *Service) noteSubmitted(m proto.Manifest) error {
	if m.State == proto.StateValidating { // as it was made
		m.State, m.StateAt = proto.StateInProgress, time.Now().UTC()
	}

	s.followOne(m)
	s.noteThere(m.Run)

	return nil
}

// describeFaults returns the faults of an input that cannot be a batch, or nil if the error is
// another one. name is the name of the input as the client gave it.
func describeFaults(err error, name string) []InputError {
	if err == nil {
		return nil
	}

	if refused, ok := errors.AsType[*pipeline.InputError](err); ok {
		return describeLines(refused.Report)
	}

	name = cmp.Or(terminal.Printable(name), "the input file")
	if format, ok := errors.AsType[*producer.FormatError](err); ok {
		named := *format
		named.File = name
		described := inputerror.Input{Files: []string{name}}.Describe(&named)
		return []InputError{{Code: "invalid_file_format", Message: makeSentence(described)}}
	}

	if filler, ok := errors.AsType[*producer.FillerError](err); ok {
		named := *filler
		named.File = name
		return []InputError{{
			Code:    "invalid_file_format",
			Message: fmt.Sprintf("The file %s. Remove them, and upload it again.", named.Error()),
		}}
	}

	if damage, ok := errors.AsType[*jsonl.DamageError](err); ok {
		named := *damage
		named.File = name
		return []InputError{
			{Code: "invalid_file_format", Message: fmt.Sprintf("The file %s: %s. Upload it again.", name,
				strings.TrimSuffix(named.Error(), "."))},
		}
	}

	switch {
	case errors.Is(err, producer.ErrEmpty):
		return []InputError{{
			Code:    "empty_file",
			Message: fmt.Sprintf("The file %s has no requests. It needs one request a line.", name),
		}}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, filestore.ErrNotFound):
		return []InputError{{
			Code:    "file_not_found",
			Message: fmt.Sprintf("The input %s is not on the disk of the server any more. Upload it again.", name),
		}}
	}

	return nil
}

// describeLines returns the refused lines of a report, and the number of the others.
func describeLines(report producer.Report) (list []InputError) {
	noModel := (&producer.LineError{Fault: producer.FaultNoModel}).Error()
	for _, line := range report.Lines[:min(len(report.Lines), MaxErrors)] {
		if line.Message == noModel {
			line.Message += "; the batch's parameter model names one for all"
		}
		list = append(list, InputError{
			Code:    line.Code,
			Message: endSentence(line.Message),
			Param:   line.Param,
			Line:    line.Line,
		})
	}

	if others := report.Count - len(list); others > 0 {
		text := terminal.CountOf(others, "more line") + " cannot be sent."
		if report.Count == producer.MaxBad {
			text = "At least " + text + " No further line was read."
		}
		list = append(list, InputError{Code: "too_many_errors", Message: text})
	}

	return list
}

// endSentence returns a text as a sentence: with a capital letter and a full stop.
func endSentence(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	text = string(unicode.ToUpper(first)) + text[size:]
	if strings.HasSuffix(text, ".") {
		return text
	}

	return text + "."
}

// makeSentence returns an error with its hint as sentences.
func makeSentence(err error) string {
	text := err.Error() + "."
	if hint := exit.Hint(err); hint != "" {
		hint = strings.Replace(hint, ", and give ", ", and upload ", 1) // the hint is for a command line
		text += " " + strings.ToUpper(hint[:1]) + hint[1:]
		if exit.Command(err) == "" {
			text += "."
		}
	}

	return text
}

// isDeleted reports whether a run was deleted from the bus.
func (s *Service) isDeleted(ctx context.Context, run string) (bool, error) {
	deleted, err := s.bus.Runs.ListDeleted(ctx)
	return slices.Contains(deleted, run), err
}
