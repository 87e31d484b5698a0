package batch

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// followRuns follows the runs of the batches until ctx ends.
func (s *Service) followRuns(ctx context.Context) error {
	seen := map[string]sighting{}
	for all, err := range s.bus.Runs.WatchAll(ctx) {
		if err != nil {
			return err
		}

		s.followChanged(ctx, all, seen)
		s.findMissing(ctx, all)
	}

	return nil
}

// sighting has the fields of a manifest that matter to a batch. After an equal one, the batch
// stays as it is.
type sighting struct {
	state   proto.State
	at      time.Time
	counts  proto.Counts
	retries int
	output  string
	problem string
}

// followChanged changes the records by the manifests that have changed since they were seen.
func (s *Service) followChanged(ctx context.Context, all map[string]proto.Manifest, seen map[string]sighting) {
	for run := range seen {
		if _, there := all[run]; !there {
			delete(seen, run)
		}
	}

	for run, m := range all {
		now := sighting{m.State, m.StateAt, m.Counts, m.Retries, m.Output, m.Problem}
		if seen[run] == now {
			continue
		}

		s.followAll(slices.Values([]proto.Manifest{m}))
		if err := errors.Join(s.cancelAgain(ctx, m), s.endHalfSubmitted(m)); err != nil {
			continue // at the next look
		}

		seen[run] = now
	}
}

// cancelAgain cancels a run whose batch is cancelling, in case the bus has lost that.
func (s *Service) cancelAgain(ctx context.Context, m proto.Manifest) error {
	r := s.find(IDPrefix + m.Run)
	if r == nil || r.State != proto.StateCancelling || rank(m.State) > rank(proto.StateInProgress) {
		return nil
	}

	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	err := s.bus.Runs.Cancel(ctx, m.Run)
	if errors.Is(err, bus.ErrWrongState) {
		return nil
	}
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.Warn().Err(err).Str("run", m.Run).Msg("failed to cancel the run of the batch; retrying")
	}

	return err
}

// endHalfSubmitted ends a batch whose run an operator has cancelled while it was put on the
// bus: without its input there, no collector can end it.
func (s *Service) endHalfSubmitted(m proto.Manifest) error {
	r := s.find(IDPrefix + m.Run)
	if r == nil || r.State.Ended() || m.State != proto.StateCancelling || m.Input.Stored {
		return nil
	}

	_, err := s.cancelUnsubmitted(m.Run, true)

	return err
}

// followAll changes the records by the manifests of their runs.
func (s *Service) followAll(runs iter.Seq[proto.Manifest]) {
	for m := range runs {
		if r := s.find(IDPrefix + m.Run); r != nil && (!r.State.Ended() || m.Retries > r.Retries) {
			s.followOne(m)
		}
	}
}

// followOne changes the record of a run by its manifest.
func (s *Service) followOne(m proto.Manifest) {
	s.changes.Lock()
	defer s.changes.Unlock()

	old := s.find(IDPrefix + m.Run)
	r := old.follow(m, time.Now().UTC())
	if m.Output != "" {
		r.Elsewhere = s.findElsewhere(m)
	}

	if r.State.Ended() {
		r.addMetadata(s.cfg.output(r.Run))
	}

	s.observe(&r)
}

// findElsewhere returns the output of a run if it is not in our folder.
func (s *Service) findElsewhere(m proto.Manifest) string {
	if _, path, ok := strings.Cut(m.Output, ":"); ok && path == string(s.cfg.output(m.Run)) {
		return ""
	}
	return m.Output
}

// addMetadata adds what the metadata of the output has and the manifest has not.
func (r *record) addMetadata(out output.Prefix) {
	if meta := readMeta(out, r.Run); meta != nil {
		r.Counts.CachedInput = metadata.OrZero(meta.Results.CachedPromptTokens)
		r.Counts.Reasoning = meta.Results.ReasoningTokens
	}
}

// readMeta returns the metadata of the complete output of a run, or nil if there is none.
func readMeta(out output.Prefix, run string) *metadata.Run {
	meta, err := out.ReadMeta()
	if err != nil || meta.TestID != run || meta.Manifest == nil {
		return nil
	}
	return meta
}

// findMissing looks for batches that have begun and whose run is not among all runs of the bus.
func (s *Service) findMissing(ctx context.Context, all map[string]proto.Manifest) {
	s.mu.Lock()

	var gone []string
	for run := range s.live {
		if _, there := all[run]; there {
			delete(s.missing, run)
		} else if s.all[run].State != proto.StateValidating && s.submissions[run] == nil && !s.missing[run] {
			gone = append(gone, run)
		}
	}

	s.mu.Unlock()

	for _, run := range gone {
		settled, err := s.settle(ctx, run)
		switch {
		case err != nil:
			if ctx.Err() == nil {
				s.cfg.Log.Warn().Err(err).Str("run", run).Msg("failed to look for the run of the batch; retrying")
			}
		case !settled:
			s.noteMissing(run)
		}
	}
}

// noteMissing has a run put on the bus again that the bus has lost. The lines that its journal has
// stay.
func (s *Service) noteMissing(run string) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.live[run] && !s.missing[run] {
		s.missing[run] = true
		s.cfg.Log.Warn().Str("run", run).Msg("the bus has lost the run of the batch; putting it there again")
		s.submitter.wake()
	}
}

// noteThere notes that a run is on the bus.
func (s *Service) noteThere(run string) {
	s.mu.Lock()
	defer s.mu.Unlock()

	delete(s.missing, run)
}

// codeDeleted is the code of a batch whose run was deleted.
const codeDeleted = "run_deleted"

// settle ends a batch whose run is not on the bus and need not be put there: its output is
// complete, it was cancelled, or an operator has deleted the run. It reports whether the batch
// is settled: it has ended, or its run is on the bus.
func (s *Service) settle(ctx context.Context, run string) (settled bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	r := s.find(IDPrefix + run)
	if r.State.Ended() {
		return true, nil
	}

	switch m, err := s.bus.Runs.Get(ctx, run); {
	case err == nil && m.State == proto.StateValidating:
		return false, nil
	case err == nil:
		s.followOne(m)
		s.noteThere(run)
		return true, nil
	case !errors.Is(err, proto.ErrNoRun):
		return false, err
	}

	if meta := readMeta(s.cfg.output(run), run); meta != nil && meta.Manifest.Retries >= r.Retries {
		m := *meta.Manifest
		m.State, m.Output = meta.Status, "" // it is here, wherever it was written
		s.followOne(m)
		return s.find(IDPrefix + run).State.Ended(), nil
	}

	deleted, err := s.isDeleted(ctx, run)
	if err != nil {
		return false, err
	}

	if !deleted && r.State != proto.StateCancelling {
		return false, nil
	}

	r, err = s.change(run, func(now *record) error {
		switch {
		case now.State.Ended():
			return errUnchanged
		case now.State == proto.StateCancelling:
			now.cancel(time.Now().UTC())
		default:
			text := "Run " + run + " was deleted on the server before it had ended."
			now.fail(time.Now().UTC(), nil)
			if now.hasAnswers() {
				text += " The requests that had an answer by then are in the output file."
			}
			now.Errors = []InputError{{Code: codeDeleted, Message: text}}
		}

		return nil
	})

	return r.State.Ended(), err
}

// answerTime is the time that the service waits for an answer of the bus.
const answerTime = 10 * time.Second
