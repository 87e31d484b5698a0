package collector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// session is one pass over the results: from the journal's position until no request lacks
// its line. Three goroutines work in it: the reader, which fills frames, the writer, which
// appends them to the journal, and the loop that talks to the bus.
type session struct {
	journal       *journal.Journal
	flushInterval time.Duration
	onSynced      func(size int64) // nil: none
	log           zerolog.Logger

	activity    *activityTimer
	workers     *workerRegistry
	ledger      *ledger
	ends        *endWatcher
	limits      *limitJudge
	gap         *collectionGap
	sync        *syncLoop
	republisher *republisher
	messages    *messageReader

	newTerminator func(earlyEnd) *terminator

	source source
	total  int
	seen   *roaring.Bitmap // requests that have a line, synced or not
	// copying reports that the run has ended, so its times are those of the messages.
	copying bool
	frame   *pendingFrame
	frames  chan *pendingFrame // to the writer
}

// pendingFrame is a frame of the journal that is being filled, with the messages that can be
// deleted from the bus when it is synced.
type pendingFrame struct {
	journal.Frame

	opened  time.Time     // when its first message came
	found   times         // how the time before the session was spent, as its results show
	sources []string      // objects that its requests came in
	answers []largeAnswer // objects that its lines came in
}

// largeAnswer are lines that did not fit into their message.
type largeAnswer struct {
	name  string
	bytes int64
}

// newSession returns a session that resumes where the journal ends.
func (c *Collector) newSession() *session {
	state := c.cfg.Journal.State()
	c.activity.restart(time.Now())

	s := &session{
		journal:       c.cfg.Journal,
		flushInterval: c.cfg.FlushInterval,
		onSynced:      c.cfg.OnSynced,
		log:           c.cfg.Log,
		activity:      c.activity,
		workers:       c.workers,
		ledger:        c.ledger,
		ends:          c.ends,
		limits:        c.limits,
		gap:           c.gap,
		sync:          c.newSyncLoop(),
		republisher:   c.newRepublisher(),
		newTerminator: c.newTerminator,
		messages:      c.newMessageReader(),
		source:        source{js: c.cfg.JS, run: c.run, at: state.Position},
		total:         c.total,
		seen:          state.Done.Clone(),
		frame:         &pendingFrame{},
		frames:        make(chan *pendingFrame, 1),
	}

	s.source.skipped = s.skipMessage

	return s
}

func (c *Collector) newMessageReader() *messageReader {
	return &messageReader{
		bounds:  c.cfg.Journal.State().Manifest.Bounds(),
		answers: c.bus.Answers(c.run),
		dropped: c.dropped,
		log:     c.cfg.Log,
	}
}

func (c *Collector) newSyncLoop() *syncLoop {
	return &syncLoop{
		js:          c.cfg.JS,
		bus:         c.bus,
		run:         c.run,
		lease:       c.lease,
		activity:    c.activity,
		workers:     c.workers,
		ledger:      c.ledger,
		ends:        c.ends,
		limits:      c.limits,
		log:         c.cfg.Log,
		doneAtStart: c.cfg.Journal.State().Counts.Done,
	}
}

func (c *Collector) newRepublisher() *republisher {
	return &republisher{
		js:       c.cfg.JS,
		bus:      c.bus,
		run:      c.run,
		limits:   c.cfg.Limits,
		activity: c.activity,
		workers:  c.workers,
		log:      c.cfg.Log,
	}
}

func (c *Collector) newTerminator(end earlyEnd) *terminator {
	return &terminator{
		js:       c.cfg.JS,
		answers:  c.bus.Answers(c.run),
		run:      c.run,
		input:    c.cfg.Input,
		end:      end,
		maxLines: endLines,
		log:      c.cfg.Log,
	}
}

// syncTimeout is the limit for an exchange with the bus after reading has ended.
const syncTimeout = 2 * time.Second

// run reads results into the journal until no request lacks its line.
func (s *session) run(ctx context.Context) error {
	// The writer outlives ctx: messages already read from the bus are still synced then.
	group, broken := errgroup.WithContext(context.WithoutCancel(ctx))
	broken, stop := context.WithCancel(broken)
	defer stop()

	group.Go(func() error { return s.writeFrames(stop) })

	done := make(chan struct{})
	syncing, stopSyncing := context.WithCancel(broken)
	defer stopSyncing()

	group.Go(func() error { return s.sync.runUntil(syncing, done) })

	err := s.readResults(ctx, broken)
	if s.missing() == 0 {
		s.settleGap()
	}

	s.closeFrame()
	close(s.frames)
	close(done)
	time.AfterFunc(syncTimeout, stopSyncing) // a bus that does not answer does not hold up a stop

	if failed := group.Wait(); failed != nil {
		return errors.Join(failed, err)
	}

	return errors.Join(s.saveFinalState(), err)
}

// readResults takes results off the bus. It returns nil when it has all, the cause of ctx's
// end, and nil too when broken ends, since the writer or the sync loop then has the error.
func (s *session) readResults(ctx, broken context.Context) error {
	var terminator *terminator
	defer func() { terminator.stop() }()

	s.judgeLimits() // all tokens may be used up

	for s.missing() > 0 {
		begin := time.Now()

		n, err := s.source.fetchMessages(ctx, 50*time.Millisecond, s.handleMessage)
		if n > 0 {
			s.republisher.noteResults()
		}

		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case broken.Err() != nil:
			return nil
		case err != nil:
			s.activity.noteBlind(begin, time.Now())
			if !s.ends.isDeleted(ctx) { // else the sync loop ends the session
				s.log.Warn().Err(err).Msg("failed to read results; retrying")
			}

			if err := bus.Sleep(ctx, 500*time.Millisecond); err != nil {
				return err
			}
		}

		if n == 0 {
			s.limits.report()
		}

		if n == 0 && err == nil {
			s.settleGap()
		}

		if s.frame.Position.Sequence > 0 && time.Since(s.frame.opened) >= s.flushInterval {
			s.closeFrame()
		}

		switch end := s.ends.pending(); {
		case end != nil && terminator == nil:
			terminator = s.newTerminator(*end)
		case end != nil && n == 0:
			if err := terminator.step(ctx, s.missingRequests); err != nil {
				return err
			}
		case end == nil && n == 0:
			if err := s.republisher.check(ctx, s.source.at, s.missingRequests); err != nil {
				return err
			}
		}
	}

	return nil
}

// missing returns the number of requests that have no line.
func (s *session) missing() int { return s.total - int(s.seen.GetCardinality()) }

// missingRequests returns the requests that have no line.
func (s *session) missingRequests() *roaring.Bitmap { return roaring.Flip(s.seen, 0, uint64(s.total)) }

// handleMessage adds a message's lines to the frame. It drops lines of requests that have
// one, and lines that do not fit the run.
func (s *session) handleMessage(msg jetstream.Msg) error {
	if proto.IsDeliveryNote(msg.Headers()) {
		return nil // for workers
	}

	meta, err := msg.Metadata()
	if err != nil {
		return err
	}

	before := s.frame.Counts

	batch, lines, err := s.messages.decodeMessage(msg, s.ends.pending() != nil)
	switch {
	case bus.IsUnrecoverable(err):
		s.messages.dropResult(s.frame, msg.Subject(), nil, err)
	case err != nil:
		return err
	default:
		took := s.messages.addLines(s.frame, s.seen, msg.Subject(), batch, lines, meta.Timestamp)
		s.noteSpent(meta, took)
	}

	fresh := s.frame.Counts.Minus(before)
	s.notePosition(meta.Sequence.Stream, meta.Timestamp)
	s.ledger.addReceived(fresh, s.frame.Position)

	if err == nil { // a request that was never sent shows nothing of the speed
		s.frame.Series.Add(meta.Timestamp, metadata.Point{
			Requests:         int64(fresh.Done - fresh.Skipped),
			Failed:           int64(fresh.Failed - fresh.Skipped),
			PromptTokens:     fresh.PromptTokens,
			CompletionTokens: fresh.CompletionTokens,
		})
	}

	s.limits.skipBacklog(s.frame.Position, fresh)
	s.judgeLimits()

	if s.frame.IsFull() {
		s.closeFrame()
	}

	return nil
}

// judgeLimits stops the run if it has reached a limit. A run that ends is judged once it is complete.
func (s *session) judgeLimits() {
	if s.missing() == 0 || s.ends.pending() != nil {
		return
	}

	reached := s.limits.judge(s.ledger.receivedCounts())
	if reached == nil {
		return
	}

	s.log.Info().Str("limit", reached.String()).Msg("stopping the run")
	s.frame.Stops = append(s.frame.Stops, *reached)
	s.closeFrame()
}

// noteSpent takes in what a message shows of how the time was spent. took is the longest time that a
// request in it took. A message of the backlog was stored before the session began, however early or
// late that is by the clock of the bus.
func (s *session) noteSpent(meta *jetstream.MsgMetadata, took time.Duration) {
	if meta.Sequence.Stream <= s.source.backlog {
		s.frame.found.add(s.gap.noteResult(meta.Timestamp, took))
		return
	}

	s.settleGap()
	s.activity.noteWork(time.Now())
	s.frame.found.add(s.gap.noteLive(time.Now(), took))
}

// settleGap settles how the time before the session was spent, once the backlog is read.
func (s *session) settleGap() {
	s.frame.found.add(s.gap.settleRest(s.missing() == 0))
}

// skipMessage drops a message that cannot be delivered, since it passes for a server's own.
func (s *session) skipMessage(msg *jetstream.RawStreamMsg) {
	s.messages.dropResult(s.frame, msg.Subject, nil, &proto.FieldError{
		Field: "Status",
		Why:   "a message without lines, with the header of a server's answer",
	})

	s.notePosition(msg.Sequence, msg.Time)
	s.ledger.addReceived(proto.Counts{Dropped: 1}, s.frame.Position)
}

// notePosition notes that the results up to a message are in the frame.
func (s *session) notePosition(sequence uint64, at time.Time) {
	if s.frame.opened.IsZero() {
		s.frame.opened = time.Now()
	}

	s.frame.Position = journal.Position{Created: s.source.at.Created, Sequence: sequence, Time: at}
}

// closeFrame hands the frame to the writer. It waits while the writer has two: then the
// results stream fills, and the workers wait too.
func (s *session) closeFrame() {
	f := s.frame
	if f.Position.Sequence == 0 && len(f.Stops) == 0 {
		return // nothing in it
	}

	s.addTimes(&f.Frame)

	// Workers announce some seconds at a time, which may be older than the results of the frame.
	f.Series = metadata.Join(f.Series, s.workers.takeSeries())

	s.frames <- f
	s.frame = &pendingFrame{}
}

// addTimes adds how the time was spent to a frame that is closed now.
func (s *session) addTimes(f *journal.Frame) {
	spent := s.frame.found
	s.frame.found = times{}

	if !s.copying {
		spent.add(s.activity.take())
	}

	f.Worked, f.Idle, f.Lost = spent.worked, spent.idle, spent.lost
	if !s.gap.isSettled() {
		f.AccountedTo = s.gap.from
	}
}

// writeFrames syncs frames to the journal. If it cannot, it stops the reader.
func (s *session) writeFrames(stop func()) error {
	for f := range s.frames {
		f.WorkerSessions = s.workers.changes(s.journal.State(), f.Stats, false)

		if err := s.journal.Append(&f.Frame); err != nil {
			stop()
			for range s.frames { // the reader may have some more
			}

			return err
		}

		s.ledger.addSynced(s.journal.State(), f)
		if s.onSynced != nil {
			s.onSynced(s.journal.Size())
		}
		if len(f.Stops) > 0 {
			s.limits.noteRecorded()
		}
	}

	return nil
}

// saveFinalState writes all that is known of the workers into the journal and, where the
// session ends before the run does, how the time since the last result was spent: it would
// count as lost when the run resumes.
func (s *session) saveFinalState() error {
	f := &journal.Frame{
		At:             time.Now().UTC(),
		WorkerSessions: s.workers.changes(s.journal.State(), journal.FrameStats{}, true),
	}

	if s.missing() > 0 {
		s.activity.noteWork(time.Now()) // f.At has the wall clock only, which may have been put forward
	}

	s.addTimes(f)

	spent := max(f.Worked, f.Idle, f.Lost, -f.Worked, -f.Idle, -f.Lost)
	if len(f.WorkerSessions) == 0 && spent < time.Millisecond {
		return nil
	}

	if err := s.journal.Append(f); err != nil {
		return fmt.Errorf("save the workers and the time: %w", err)
	}

	return nil
}
