package page

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// countingRenderer counts its rounds.
type countingRenderer struct{ rounds, watching atomic.Int64 }

func (r *countingRenderer) watch(ctx context.Context) {
	r.watching.Add(1)
	<-ctx.Done()
	r.watching.Add(-1)
}

func (r *countingRenderer) render(_ context.Context, owners, runs []string) (overviews, details map[string]*message) {
	round := strconv.FormatInt(r.rounds.Add(1), 10)
	overviews, details = map[string]*message{}, map[string]*message{}
	for _, owner := range owners {
		overviews[owner] = &message{data: []byte(round)}
	}
	for _, run := range runs {
		details[run] = nil
	}

	return overviews, details
}

// Ten viewers cost the rounds of one, and none costs none.
func TestRoundsOfTheHub(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		r := &countingRenderer{}
		h := newHub(r)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- h.run(ctx) }()

		synctest.Wait()
		time.Sleep(time.Minute)
		if r.rounds.Load() != 0 || r.watching.Load() != 0 {
			t.Errorf("without a viewer: %d rounds", r.rounds.Load())
		}

		var leave []func()
		for range 10 {
			leave = append(leave, h.join("", "r"))
		}
		if _, err := h.await(ctx, "", "r"); err != nil {
			t.Fatal(err)
		}

		before := r.rounds.Load()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := r.rounds.Load() - before; n < 59 || n > 61 || r.watching.Load() != 1 {
			t.Errorf("ten viewers: %d rounds in a minute, %d watches", n, r.watching.Load())
		}

		// One that was slow gets the latest frame, and a new one does not wait for the next round.
		latest, _ := h.now()
		if text := string(latest.overviews[""].data); text != strconv.FormatInt(r.rounds.Load(), 10) {
			t.Errorf("the latest frame is of round %s of %d", text, r.rounds.Load())
		}
		leave = append(leave, h.join("key", ""))
		time.Sleep(leastRest)
		synctest.Wait()
		if latest, _ := h.now(); !latest.has("key", "") {
			t.Error("a viewer of something else waits for the next round")
		}

		for _, f := range leave {
			f()
		}
		time.Sleep(linger + 2*time.Second)
		synctest.Wait()
		before = r.rounds.Load()
		time.Sleep(time.Minute)
		if r.rounds.Load() != before || r.watching.Load() != 0 {
			t.Errorf("after the last viewer: %d rounds", r.rounds.Load()-before)
		}

		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// The viewer who comes as the rounds end has them begin again: the frame of an ended round gets no successor.
func TestJoinAsTheRoundsEnd(t *testing.T) {
	t.Parallel()

	h := newHub(&countingRenderer{})
	h.publish(&frame{overviews: map[string]*message{"": {}}})
	if _, _, wanted := h.wanted(); wanted {
		t.Fatal("rounds without a viewer")
	}

	defer h.join("", "")()
	select {
	case <-h.wake:
	default:
		t.Error("a viewer who joins then waits forever")
	}
}

// Viewers who ask for one run after the other begin a round each leastRest at most.
func TestRoundsOfAScript(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		r := &countingRenderer{}
		h := newHub(r)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- h.run(ctx) }()

		begun := time.Now()
		for i := range 100 {
			run := strconv.Itoa(i)
			leave := h.join("", run)
			if _, err := h.await(ctx, "", run); err != nil {
				t.Fatal(err)
			}
			leave()
		}

		if most := int(time.Since(begun)/leastRest) + 1; int(r.rounds.Load()) > most {
			t.Errorf("%d rounds in %s", r.rounds.Load(), time.Since(begun))
		}

		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
