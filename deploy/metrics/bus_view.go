package metrics

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/deploy/scale"
	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

const (
	// lookEvery is the least time between two looks at the bus, however many programs scrape.
	lookEvery = 5 * time.Second
	// lookTime bounds a look. Prometheus gives up a scrape after 10 s by default.
	lookTime = 3 * time.Second
	// mostEnded is the number of ended runs that are exported, the latest ones: a batch API may keep thousands of
	// them, with a dozen series each.
	mostEnded = 100
	// streamsAtOnce are the streams that are asked for at once.
	streamsAtOnce = 8
	// mostAsked is the number of models of a run up to which the shards of each are asked for.
	mostAsked = 20
)

// busState is what a look at the bus has found.
type busState struct {
	status.Bus
	// byState counts all runs, also the ended ones that Runs has no room for.
	byState map[proto.State]int
	streams []streamState
	// pending has the shards that are not done, of runs with several models.
	pending map[string]map[string]int
	// storeBytes are the bytes that all streams take on the disk, and storeLimit the most that they may take;
	// 0: no limit.
	storeBytes, storeLimit int64
}

// streamState is the size of a stream of a run.
type streamState struct {
	run, kind       string
	bytes, messages float64
	limit           float64 // 0: none
}

// busView asks a bus for its state, seldom.
type busView struct {
	js     jetstream.JetStream
	bus    *bus.Bus
	wanted func(proto.Manifest) bool
	// boxes has learned from all looks.
	boxes scale.Meter

	// mu guards the fields below. It is held during a look, which all scrapes share.
	mu    sync.Mutex
	at    time.Time // of the latest look
	state *busState // nil: it failed
}

func newBusView(js jetstream.JetStream, wanted func(proto.Manifest) bool) *busView {
	return &busView{
		js:     js,
		bus:    bus.New(js),
		wanted: wanted,
	}
}

// look returns the state of the bus, at most lookEvery old; nil: the bus does not answer.
func (v *busView) look() *busState {
	v.mu.Lock()
	defer v.mu.Unlock()

	if !v.at.IsZero() && time.Since(v.at) < lookEvery {
		return v.state
	}

	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()

	state, err := v.read(ctx)
	if err != nil {
		state = nil
	} else {
		v.boxes.Observe(state.Bus)
	}
	v.at, v.state = time.Now(), state

	return state
}

// forget makes the next look ask the bus.
func (v *busView) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()

	v.at = time.Time{}
}

// read asks the bus: four requests, one for each stream of a run that has not ended, and one for each model of a run
// with several that works.
func (v *busView) read(ctx context.Context) (*busState, error) {
	found, err := status.Look(ctx, v.bus, v.wanted)
	if err != nil {
		return nil, err
	}

	account, err := v.js.AccountInfo(ctx)
	if err != nil {
		return nil, err
	}

	state := &busState{
		Bus:        found,
		byState:    map[proto.State]int{},
		storeBytes: int64(account.Store),
		storeLimit: max(0, account.Limits.MaxStore),
	}
	for _, r := range found.Runs {
		state.byState[r.State]++
	}

	state.Runs = dropOldest(found.Runs, mostEnded)
	if state.streams, err = v.readStreams(ctx, state.Runs); err != nil {
		return nil, err
	}
	state.pending, err = v.readPending(ctx, state.Runs)

	return state, err
}

// dropOldest leaves out the ended runs but for the latest ones.
func dropOldest(runs []status.Run, most int) []status.Run {
	var ended []status.Run
	for _, r := range runs {
		if r.EndedAt != nil {
			ended = append(ended, r)
		}
	}

	if len(ended) <= most {
		return runs
	}

	slices.SortFunc(ended, func(a, b status.Run) int {
		return cmp.Or(a.EndedAt.Compare(*b.EndedAt), cmp.Compare(a.Run, b.Run))
	})
	dropped := map[string]bool{}
	for _, r := range ended[:len(ended)-most] {
		dropped[r.Run] = true
	}

	return slices.DeleteFunc(slices.Clone(runs), func(r status.Run) bool { return dropped[r.Run] })
}

// readStreams returns the streams of the runs that have not ended.
func (v *busView) readStreams(ctx context.Context, runs []status.Run) ([]streamState, error) {
	var mu sync.Mutex
	var list []streamState

	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(streamsAtOnce)
	for _, r := range runs {
		if r.State.Ended() {
			continue
		}

		for _, cfg := range bus.RunStreamConfigs(r.Run, bus.Limits{}) {
			group.Go(func() error {
				stream, err := v.js.Stream(ctx, cfg.Name)
				switch {
				case errors.Is(err, jetstream.ErrStreamNotFound): // it is not made yet, or the run was deleted
					return nil
				case err != nil:
					return err
				}

				info := stream.CachedInfo()
				mu.Lock()
				defer mu.Unlock()
				list = append(list, streamState{
					run:      r.Run,
					kind:     cfg.Name[strings.LastIndexByte(cfg.Name, '_')+1:],
					bytes:    float64(info.State.Bytes),
					messages: float64(info.State.Msgs),
					limit:    float64(max(0, info.Config.MaxBytes)),
				})

				return nil
			})
		}
	}

	return list, group.Wait()
}

// readPending returns the shards of each model that are not done, of runs with several models whose shards are all
// stored.
func (v *busView) readPending(ctx context.Context, runs []status.Run) (map[string]map[string]int, error) {
	var mu sync.Mutex
	pending := map[string]map[string]int{}

	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(streamsAtOnce)
	for _, r := range runs {
		models := r.Models()
		if r.State != proto.StateInProgress || !r.Publish.Done || len(models) < 2 || len(models) > mostAsked {
			continue
		}

		shards := map[string]int{}
		pending[r.Run] = shards
		for _, model := range models {
			group.Go(func() error {
				consumer, err := v.js.Consumer(ctx, proto.WorkStream(r.Run), proto.ConsumerName(model))
				switch {
				case errors.Is(err, jetstream.ErrConsumerNotFound), errors.Is(err, jetstream.ErrStreamNotFound):
					return nil // it has nothing to do, as far as is known
				case err != nil:
					return err
				}

				info := consumer.CachedInfo()
				mu.Lock()
				defer mu.Unlock()
				shards[model] = int(info.NumPending) + info.NumAckPending

				return nil
			})
		}
	}

	return pending, group.Wait()
}
