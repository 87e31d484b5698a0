package page

import (
	"context"
	"sync"
	"time"
)

const (
	// roundEvery is the time between two rounds, and slowestRound that of a head with so much on its bus that a
	// round would take more than roundShare of a core otherwise.
	roundEvery   = time.Second
	slowestRound = 5 * time.Second
	roundShare   = 0.005
	// leastRest is the pause after each round: a script that asks for one run after the other begins no more rounds.
	leastRest = 50 * time.Millisecond
	// linger is the time for which the rounds go on after the last viewer: one who loads the page again, or a script
	// that asks every few seconds, begins no new ones.
	linger = 5 * time.Second
)

// frame is what there is to see at a moment. It is made once for all viewers.
type frame struct {
	// number counts the frames of this process.
	number int
	// overviews are by the owner of runs; the one of "" has all.
	overviews map[string]*message
	// details are by run. One that is nil: there is no such run.
	details map[string]*message
}

// renderer makes frames.
type renderer interface {
	// watch works beside the rounds until ctx ends.
	watch(ctx context.Context)
	// render returns the overviews of owners and the details of runs. It is never called twice at once.
	render(ctx context.Context, owners, runs []string) (overviews, details map[string]*message)
}

// hub makes frames while there are viewers: one loop for all viewers. A viewer takes the latest frame when it is ready
// for one, so a slow one skips frames, and no viewer waits for another.
type hub struct {
	renderer renderer
	// wake begins the next round at once: there is a viewer of something that the last frame does not have.
	wake chan struct{}

	// mu guards the fields below.
	mu     sync.Mutex
	owners map[string]int // viewers by owner
	runs   map[string]int // viewers by run
	latest *frame         // nil: none since the rounds began
	next   chan struct{}  // is closed when there is another frame
	leftAt time.Time      // when the last viewer left
}

// newHub returns a hub without viewers.
func newHub(r renderer) *hub {
	return &hub{
		renderer: r,
		wake:     make(chan struct{}, 1),
		owners:   map[string]int{},
		runs:     map[string]int{},
		next:     make(chan struct{}),
	}
}

// join adds a viewer of an owner's runs, and of the details of a run unless that is empty. leave removes it.
func (h *hub) join(owner, run string) (leave func()) {
	h.mu.Lock()
	defer h.mu.Unlock()

	h.owners[owner]++
	if run != "" {
		h.runs[run]++
	}

	if !h.latest.has(owner, run) {
		select {
		case h.wake <- struct{}{}:
		default:
		}
	}

	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()

		decrease(h.owners, owner)
		decrease(h.runs, run)
		h.leftAt = time.Now()
	}
}

// decrease takes one from a count.
func decrease(counts map[string]int, of string) {
	if counts[of]--; counts[of] <= 0 {
		delete(counts, of)
	}
}

// has reports whether a frame, which may be nil, has what a viewer wants.
func (f *frame) has(owner, run string) bool {
	if f == nil || f.overviews[owner] == nil {
		return false
	}

	_, known := f.details[run]

	return known || run == ""
}

// now returns the latest frame, nil if there is none, and a channel that is closed when there is another.
func (h *hub) now() (*frame, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.latest, h.next
}

// await returns the first frame that has what a viewer wants. The viewer has joined.
func (h *hub) await(ctx context.Context, owner, run string) (*frame, error) {
	for {
		latest, next := h.now()
		if latest.has(owner, run) {
			return latest, nil
		}

		select {
		case <-next:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// run makes frames until ctx ends.
func (h *hub) run(ctx context.Context) error {
	for {
		select {
		case <-h.wake:
			h.serveViewers(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// serveViewers makes frames until the last viewer has left, or ctx ends.
func (h *hub) serveViewers(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)

	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	watching.Go(func() { h.renderer.watch(ctx) })

	for number := 1; ctx.Err() == nil; number++ {
		owners, runs, wanted := h.wanted()
		if !wanted {
			break
		}

		begun := time.Now()
		f := &frame{number: number}
		f.overviews, f.details = h.renderer.render(ctx, owners, runs)
		h.publish(f)
		h.rest(ctx, restAfter(time.Since(begun)))
	}
}

// restAfter returns the pause after a round that took some time.
func restAfter(took time.Duration) time.Duration {
	return min(max(roundEvery, time.Duration(float64(took)/roundShare)), slowestRound)
}

// wanted returns what the viewers want to see, and whether there are some, or were just now. If not, it forgets the
// latest frame in the same step: the next viewer has the rounds begin again, and does not wait for a frame that an
// ended round has promised.
func (h *hub) wanted() (owners, runs []string, wanted bool) {
	h.mu.Lock()
	defer h.mu.Unlock()

	for owner := range h.owners {
		owners = append(owners, owner)
	}
	for run := range h.runs {
		runs = append(runs, run)
	}

	wanted = len(owners) > 0 || time.Since(h.leftAt) < linger
	if !wanted {
		h.latest = nil
	}

	return owners, runs, wanted
}

// publish makes a frame the latest one.
func (h *hub) publish(f *frame) {
	h.mu.Lock()
	defer h.mu.Unlock()

	h.latest = f
	close(h.next)
	h.next = make(chan struct{})
}

// rest waits until the next round.
func (h *hub) rest(ctx context.Context, pause time.Duration) {
	select {
	case <-time.After(leastRest):
	case <-ctx.Done():
		return
	}

	select {
	case <-time.After(pause - leastRest):
	case <-h.wake:
	case <-ctx.Done():
	}
}
