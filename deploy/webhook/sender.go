package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// Bucket is the bucket of deliveries, a [bus.Bucket].
type Bucket interface {
	Make(ctx context.Context, l bus.Limits) error
	State(ctx context.Context) (made time.Time, last uint64, err error)
	Changes(ctx context.Context, after uint64) (changed []bus.Entry, last uint64, err error)
	Get(ctx context.Context, key string) (value []byte, revision uint64, err error)
	Create(ctx context.Context, key string, value []byte) error
	Update(ctx context.Context, key string, value []byte, revision uint64) error
	Put(ctx context.Context, key string, value []byte) error
}

const (
	// pollEvery is the interval at which the bucket is read for deliveries that other processes
	// have changed. A read takes the bus two direct gets. No role may make a consumer that
	// would report a change.
	pollEvery = 2 * time.Second
	// checkEvery is the interval at which the bucket is looked for: a bus that has lost it gets
	// it again.
	checkEvery = 15 * time.Second
	// announceEvery is the interval at which the entries of endpoints are stored again, before
	// they end.
	announceEvery = 24 * time.Hour
	// claimTime is how much longer a claim holds than an attempt may take: for its answer to be
	// stored.
	claimTime = 15 * time.Second
	// maxAge is the age from which on an event is not added any more. An entry stays longer, so
	// an event that is added again finds it.
	maxAge = giveUpAfter
)

// Config configures a [Sender].
type Config struct {
	// Bucket has the deliveries. Required.
	Bucket Bucket
	// Limits are the limits of the bus, for the bucket.
	Limits bus.Limits
	// Endpoints get the events. Required.
	Endpoints []Endpoint
	// Process names this process, and is the same when it starts again. No other process may
	// have the name at the same time. Required.
	Process string
	// Log gets the outcomes. The zero value discards them.
	Log zerolog.Logger
}

// Sender sends events to endpoints. It is safe for concurrent use.
type Sender struct {
	Config

	since map[string]time.Time // of each endpoint, by its id
	wake  chan struct{}
	done  chan string // keys of deliveries that were tried
	stats Stats
}

// Open returns the sender of a bus. It makes the bucket, and announces the endpoints there. An
// endpoint that is new gets no event of before: the runs that are on the bus may be many.
func Open(ctx context.Context, cfg Config) (*Sender, error) {
	switch {
	case cfg.Bucket == nil:
		return nil, errors.New("webhook: Config.Bucket is required")
	case len(cfg.Endpoints) == 0:
		return nil, errors.New("webhook: Config.Endpoints is required")
	case cfg.Process == "":
		return nil, errors.New("webhook: Config.Process is required")
	}

	s := &Sender{
		Config: cfg,
		since:  map[string]time.Time{},
		wake:   make(chan struct{}, 1),
		done:   make(chan string),
	}

	if err := cfg.Bucket.Make(ctx, cfg.Limits); err != nil {
		return nil, err
	}

	for _, e := range cfg.Endpoints {
		since, err := s.announce(ctx, e)
		if err != nil {
			return nil, fmt.Errorf("announce webhook %s: %w", e.Name, err)
		}
		s.since[e.ID] = since
	}

	return s, nil
}

// announce stores the entry of an endpoint, or stores it again, and returns the time at which
// the endpoint was there first.
func (s *Sender) announce(ctx context.Context, e Endpoint) (time.Time, error) {
	key := knownPrefix + e.ID
	now := known{Name: e.Name, Command: e.Command, Since: time.Now().UTC()}

	value, _, err := s.Bucket.Get(ctx, key)
	if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) && !errors.Is(err, proto.ErrFormat) {
		return time.Time{}, err
	}

	var then known
	if json.Unmarshal(value, &then) == nil && !then.Since.IsZero() && then.Since.Before(now.Since) {
		now.Since = then.Since
	}

	value, err = json.Marshal(now)
	if err != nil {
		return time.Time{}, err
	}

	return now.Since, s.Bucket.Put(ctx, key, value)
}

// AddRun adds the event of a run that has ended, see [Sender.Add].
func (s *Sender) AddRun(ctx context.Context, m proto.Manifest) error {
	return s.Add(ctx, NewRunEvent(m))
}

// Add adds an event for each endpoint, unless it was added before. An event of a time before
// the endpoint was there is left out, and so is one that is older than 3 days.
func (s *Sender) Add(ctx context.Context, e Event) error {
	e = e.withID()
	now := time.Now().UTC()
	if now.Sub(e.At) > maxAge {
		return nil
	}

	for _, endpoint := range s.Endpoints {
		if e.At.Before(s.since[endpoint.ID]) {
			continue
		}

		d := newDelivery(e, endpoint.ID, endpoint.Name, now)
		err := s.Bucket.Create(ctx, d.key(), d.encode())
		if err != nil && !errors.Is(err, jetstream.ErrKeyExists) {
			return fmt.Errorf("add event %s of %s for %s: %w", e.ID, e.BatchID, endpoint.Name, err)
		}
	}

	select {
	case s.wake <- struct{}{}:
	default: // Run will look anyway
	}

	return nil
}

// newDelivery returns the delivery of an event that is to be sent now.
func newDelivery(e Event, id, name string, now time.Time) Delivery {
	return Delivery{
		Event:      e,
		Endpoint:   name,
		EndpointID: id,
		State:      Pending,
		Since:      now,
		NextAt:     now,
	}
}

// schedule is what a sender knows of the deliveries that are to be sent.
type schedule struct {
	// due has the times of the next attempts, by key.
	due map[string]time.Time
	// trying are the keys of deliveries that are tried now, and busy counts them by endpoint.
	trying map[string]bool
	busy   map[string]int

	// made and last are the time at which the bucket was made, and its sequence that was read last.
	made time.Time
	last uint64
	// checkedAt is the time at which the bucket was looked for, and announcedAt the one at
	// which the endpoints were announced.
	checkedAt, announcedAt time.Time
	// failed reports that the bucket could not be read, and that this is in the log.
	failed bool
}

// Run sends the deliveries of the bus until ctx ends. The attempts that it breaks off then are
// made again by the next sender of the same process name.
func (s *Sender) Run(ctx context.Context) error {
	var sending sync.WaitGroup
	defer sending.Wait()

	sc := &schedule{
		due:         map[string]time.Time{},
		trying:      map[string]bool{},
		busy:        map[string]int{},
		announcedAt: time.Now(),
	}
	for {
		s.read(ctx, sc)
		s.stats.Pending.Store(int64(len(sc.due)))

		for key, e := range s.takeDue(sc) {
			sending.Go(func() {
				s.deliver(ctx, key, e)
				select {
				case s.done <- key:
				case <-ctx.Done():
				}
			})
		}

		timer := time.NewTimer(sc.untilNext(time.Now()))

		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-s.wake:
		case key := <-s.done:
			delete(sc.trying, key)
			sc.busy[endpointOf(key)]--
			sc.delay(key, time.Now().Add(time.Second)) // the copy of the bucket that answers may be behind
		}

		timer.Stop()

		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// endpointOf returns the id of the endpoint of a delivery's key.
func endpointOf(key string) string { return key[max(0, len(key)-16):] }

// untilNext returns the time until there is something to do.
func (sc *schedule) untilNext(now time.Time) time.Duration {
	wait := pollEvery
	for key, at := range sc.due {
		if d := at.Sub(now); d > 0 && !sc.trying[key] {
			wait = min(wait, d)
		}
	}

	return wait
}

// delay moves the next attempt of a delivery to a time, unless it is later already.
func (sc *schedule) delay(key string, until time.Time) {
	if at, ok := sc.due[key]; ok && at.Before(until) {
		sc.due[key] = until
	}
}

// takeDue returns the deliveries whose time has come, as far as their endpoints have room, the
// oldest first.
func (s *Sender) takeDue(sc *schedule) map[string]Endpoint {
	var keys []string
	for key, at := range sc.due {
		if !sc.trying[key] && !at.After(time.Now()) {
			keys = append(keys, key)
		}
	}

	slices.SortFunc(keys, func(a, b string) int { return sc.due[a].Compare(sc.due[b]) })

	taken := map[string]Endpoint{}
	for _, key := range keys {
		i := slices.IndexFunc(s.Endpoints, func(e Endpoint) bool { return e.ID == endpointOf(key) })
		if e := s.Endpoints[i]; sc.busy[e.ID] < e.AtOnce {
			sc.busy[e.ID]++
			sc.trying[key], taken[key] = true, e
		}
	}

	return taken
}

// read reads what has changed in the bucket. If it cannot, that is in the log once, and the
// next call continues.
func (s *Sender) read(ctx context.Context, sc *schedule) {
	err := s.readChanges(ctx, sc)
	if err != nil && ctx.Err() == nil && !sc.failed {
		s.Log.Warn().Err(err).Msg("failed to read the events of webhooks; retrying")
	}

	sc.failed = err != nil
}

// readChanges reads what has changed in the bucket. It makes the bucket again if the bus has
// lost it.
func (s *Sender) readChanges(ctx context.Context, sc *schedule) error {
	if time.Since(sc.announcedAt) >= announceEvery {
		for _, e := range s.Endpoints {
			if _, err := s.announce(ctx, e); err != nil {
				return err
			}
		}
		sc.announcedAt = time.Now()
	}

	if time.Since(sc.checkedAt) >= checkEvery {
		made, last, err := s.Bucket.State(ctx)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			sc.announcedAt = time.Time{}
			return s.Bucket.Make(ctx, s.Limits)
		}
		if err != nil {
			return err
		}

		if !made.Equal(sc.made) || last < sc.last { // it is another one, or has lost its end
			sc.made, sc.last = made, 0
			clear(sc.due)
		}

		sc.checkedAt = time.Now()
	}

	changed, last, err := s.Bucket.Changes(ctx, sc.last)
	if err != nil {
		return err
	}

	sc.last = last
	for _, entry := range changed {
		s.note(sc, entry)
	}

	return nil
}

// note notes an entry that has changed.
func (s *Sender) note(sc *schedule, entry bus.Entry) {
	d, err := parseDelivery(entry.Key, entry.Value)
	ours := slices.ContainsFunc(s.Endpoints, func(e Endpoint) bool { return e.ID == d.EndpointID })
	switch {
	case err != nil || entry.Deleted || !ours || d.State != Pending:
		delete(sc.due, entry.Key)
	case d.ClaimedBy == s.Process && !sc.trying[entry.Key]:
		sc.due[entry.Key] = time.Time{} // an earlier start of this process has left its claim
	default:
		sc.due[entry.Key] = d.NextAt
	}
}

// deliver makes one attempt, unless another process does. An error is in the log, and the
// attempt is made again.
func (s *Sender) deliver(ctx context.Context, key string, e Endpoint) {
	d, claimed, err := s.claim(ctx, key, e)
	if err != nil && ctx.Err() == nil {
		s.Log.Warn().Err(err).Str("event", key).Msg("failed to claim an event; retrying")
		bus.Sleep(ctx, time.Second)
	}

	if !claimed {
		return
	}

	sending, cancel := context.WithTimeout(ctx, e.Timeout)
	answer := e.Send(sending, d.Event)
	cancel()

	if ctx.Err() != nil && !answer.Delivered {
		return // the claim stays, and the next start makes the attempt again
	}

	s.store(context.WithoutCancel(ctx), key, d, e, answer)
}

// claim takes a delivery for an attempt. It returns false if there is none to make.
func (s *Sender) claim(ctx context.Context, key string, e Endpoint) (d Delivery, claimed bool, err error) {
	value, revision, err := s.Bucket.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return d, false, nil
	}
	if err != nil {
		return d, false, err
	}

	d, err = parseDelivery(key, value)
	if err != nil {
		return d, false, err
	}

	now := time.Now().UTC()
	if d.State != Pending || d.NextAt.After(now) && d.ClaimedBy != s.Process {
		return d, false, nil
	}

	d.Attempts++
	d.ClaimedBy, d.NextAt = s.Process, now.Add(e.Timeout+claimTime)

	err = s.Bucket.Update(ctx, key, d.encode(), revision)
	if bus.IsWrongSequence(err) {
		return d, false, nil
	}

	return d, err == nil, err
}

// store stores what became of an attempt. It tries for as long as the claim holds.
func (s *Sender) store(ctx context.Context, key string, d Delivery, e Endpoint, answer Answer) {
	ctx, cancel := context.WithTimeout(ctx, claimTime)
	defer cancel()

	for {
		err := s.storeOnce(ctx, key, d, e, answer)
		switch {
		case err == nil:
			return
		case bus.IsWrongSequence(err):
			continue // a person has changed it: once more
		}

		if bus.Sleep(ctx, time.Second) != nil {
			s.Log.Warn().Err(err).Str("event", key).Msg("failed to store the answer to an event; sending it again")
			return
		}
	}
}

// storeOnce stores what became of an attempt, if it is still the latest.
func (s *Sender) storeOnce(ctx context.Context, key string, d Delivery, e Endpoint, answer Answer) error {
	value, revision, err := s.Bucket.Get(ctx, key)
	if err != nil {
		return err
	}

	now, err := parseDelivery(key, value)
	if err != nil {
		return err
	}

	if now.ClaimedBy != s.Process || now.Attempts != d.Attempts {
		return nil // it was wanted again meanwhile
	}

	now = now.record(answer, e, time.Now().UTC(), rand.Float64())
	if err := s.Bucket.Update(ctx, key, now.encode(), revision); err != nil {
		return err
	}

	s.report(now)

	return nil
}

// record returns the delivery after an attempt.
func (d Delivery) record(answer Answer, e Endpoint, now time.Time, jitter float64) Delivery {
	d.ClaimedBy, d.NextAt = "", time.Time{}
	d.LastAt, d.Answer, d.Status = now, answer.Text, answer.Status

	next, more := nextAttempt(d.Attempts, d.Since, now, answer.RetryAfter, jitter)
	switch {
	case answer.Delivered:
		d.State, d.DeliveredAt = Delivered, now
	case answer.Final || d.Test || e.Command || !more:
		d.State = GivenUp
	default:
		d.NextAt = next
	}

	return d
}

// report logs what became of an attempt.
func (s *Sender) report(d Delivery) {
	s.stats.count(d)

	add := func(e *zerolog.Event) *zerolog.Event {
		if d.Event.Run != nil {
			e = e.Str("run", d.Event.Run.ID)
		}
		return e.Str("event", d.Event.ID).Str("endpoint", d.Endpoint).Int("attempts", d.Attempts)
	}

	switch {
	case d.State == Delivered && d.Attempts == 1:
		add(s.Log.Debug()).Msg("delivered an event")
	case d.State == Delivered:
		add(s.Log.Info()).Msg("delivered an event")
	case d.Test:
		add(s.Log.Debug()).Str("error", d.Answer).Msg("failed to deliver a test event")
	case d.State == GivenUp:
		add(s.Log.Warn()).Str("error", d.Answer).
			Msg("failed to deliver an event; promptmill webhooks redeliver sends it again")
	case d.Attempts == 1:
		add(s.Log.Warn()).Str("error", d.Answer).Msg("failed to deliver an event; retrying for 3 days")
	default:
		add(s.Log.Debug()).Str("error", d.Answer).Time("next", d.NextAt).Msg("failed to deliver an event; retrying")
	}
}
