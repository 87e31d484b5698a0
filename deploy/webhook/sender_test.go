package webhook

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

// ended returns a run that has ended now.
func ended(run string) proto.Manifest {
	now := time.Now().UTC()
	return proto.Manifest{Run: run, State: proto.StateCompleted, CreatedAt: now.Add(-time.Hour), EndedAt: &now}
}

// states returns the deliveries of a bucket, and their states.
func states(t *testing.T, b Bucket) (list []Delivery, states []string) {
	t.Helper()

	list, _, err := NewStore(b).List(t.Context())
	must(t, err)

	for _, d := range list {
		states = append(states, d.State)
	}

	return list, states
}

// An endpoint that refuses an event gets it again after 5 s, 30 s, 2 min, 10 min, 30 min, 2 h
// and then every 6 h, each time up to a fifth later, for 3 days. Then it is given up, until a
// person wants it again.
func TestBackOff(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		a, b := &attempts{answer: refused}, &memoryBucket{}
		s, _ := startSender(t, b, a.endpoint("e"))
		must(t, s.AddRun(t.Context(), ended("r")))
		time.Sleep(100 * time.Hour)

		at := a.times()
		for i, want := range slices.Concat([]time.Duration{0}, pauses, slices.Repeat(pauses[6:], len(at)-8)) {
			pause := at[i] - at[max(0, i-1)]
			if pause < want || pause > want+want/5 {
				t.Errorf("attempt %d is %s after the one before, want %s and up to a fifth more", i+1, pause, want)
			}
		}

		if len(at) < 16 || len(at) > 19 || at[len(at)-1] > giveUpAfter {
			t.Errorf("%d attempts, the last after %s", len(at), at[len(at)-1])
		}

		list, got := states(t, b)
		if diff := cmp.Diff([]string{GivenUp}, got); diff != "" {
			t.Fatalf("states (-want +got):\n%s", diff)
		}

		again, err := NewStore(b).Redeliver(t.Context(), list[0])
		must(t, err)
		if again.State != Pending || again.Attempts != 0 {
			t.Errorf("wanted again: %+v", again)
		}

		a.answerWith(taken)
		time.Sleep(pollEvery)
		synctest.Wait()

		if list, got = states(t, b); got[0] != Delivered || list[0].Attempts != 1 || list[0].Answer != "200 OK" {
			t.Errorf("after it was wanted again: %+v", list)
		}

		for _, e := range a.list() {
			if diff := cmp.Diff(string(a.list()[0].Body()), string(e.Body())); diff != "" {
				t.Errorf("the body is another one in a later attempt:\n%s", diff)
			}
		}
	})
}

// An answer may ask for a longer pause, of a day at most; a shorter one than ours does not count.
func TestRetryAfter(t *testing.T) {
	t.Parallel()

	for ask, want := range map[time.Duration]time.Duration{
		time.Second:   5 * time.Second,
		time.Minute:   time.Minute,
		9 * time.Hour: 9 * time.Hour,
		96 * maxAge:   maxRetryAfter,
	} {
		synctest.Test(t, func(t *testing.T) {
			a := &attempts{answer: func(ctx context.Context, n int) Answer {
				if n > 1 {
					return taken(ctx, n)
				}
				return Answer{Status: 503, RetryAfter: ask}
			}}

			s, _ := startSender(t, &memoryBucket{}, a.endpoint("e"))
			must(t, s.AddRun(t.Context(), ended("r")))
			time.Sleep(2 * maxRetryAfter)

			if at := a.times(); len(at) != 2 || at[1] < want || at[1] > want+want/5 {
				t.Errorf("an answer that asks for %s: attempts at %s, want the second at %s", ask, at, want)
			}
		})
	}
}

// An endpoint that is gone gets the event no more, and other events still.
func TestGone(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		a, b := &attempts{answer: func(ctx context.Context, n int) Answer {
			if n > 1 {
				return taken(ctx, n)
			}
			return Answer{Final: true, Status: 410}
		}}, &memoryBucket{}

		s, _ := startSender(t, b, a.endpoint("e"))
		must(t, s.AddRun(t.Context(), ended("r1")))
		time.Sleep(time.Hour)
		must(t, s.AddRun(t.Context(), ended("r2")))
		time.Sleep(100 * time.Hour)

		if _, got := states(t, b); len(a.times()) != 2 || got[0] != Delivered || got[1] != GivenUp {
			t.Errorf("%d attempts, states %q", len(a.times()), got)
		}
	})
}

// An endpoint that hangs does not delay another, and gets at most four events at once.
func TestSlowEndpoint(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		slow, quick := &attempts{answer: func(ctx context.Context, _ int) Answer {
			<-ctx.Done()
			return Answer{Text: "no answer"}
		}}, &attempts{answer: taken}

		s, _ := startSender(t, &memoryBucket{}, slow.endpoint("slow"), quick.endpoint("quick"))

		for _, run := range []string{"r1", "r2", "r3", "r4", "r5", "r6"} {
			must(t, s.AddRun(t.Context(), ended(run)))
		}

		synctest.Wait()

		if len(quick.times()) != 6 || len(slow.times()) != atOnce {
			t.Errorf("at once: %d attempts at the quick endpoint, %d at the slow one",
				len(quick.times()), len(slow.times()))
		}

		time.Sleep(answerTime + time.Second)
		if at := slow.times(); len(at) < 6 || at[4] != answerTime {
			t.Errorf("attempts at the slow endpoint: %s", at)
		}
	})
}

// An event that is added again is one event; a run that was retried, or is another of its id,
// has another.
func TestAddAgain(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		a := &attempts{answer: taken}
		s, _ := startSender(t, &memoryBucket{}, a.endpoint("e"))
		m := ended("r")

		for range 3 {
			must(t, s.AddRun(t.Context(), m))
			time.Sleep(time.Hour)
		}

		if len(a.times()) != 1 {
			t.Errorf("%d attempts of one event", len(a.times()))
		}

		m.Retries++
		must(t, s.AddRun(t.Context(), m))
		m.CreatedAt = time.Now()
		must(t, s.AddRun(t.Context(), m))
		m.State = proto.StateCancelled
		must(t, s.AddRun(t.Context(), m))
		must(t, s.Add(t.Context(), Event{Type: Failed, BatchID: "batch_x", At: time.Now()}))
		time.Sleep(time.Hour)

		ids := map[string]bool{}
		for _, e := range a.list() {
			ids[e.ID] = true
		}

		if len(a.times()) != 5 || len(ids) != 5 {
			t.Errorf("%d attempts of %d events, want 5", len(a.times()), len(ids))
		}
	})
}

// A new endpoint gets nothing of before, also after a restart, and an old event is not sent at all.
func TestOldEvents(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		b, first, second := &memoryBucket{}, &attempts{answer: taken}, &attempts{answer: taken}
		before := ended("before")
		time.Sleep(time.Hour)

		s, stop := startSender(t, b, first.endpoint("first"))
		must(t, s.AddRun(t.Context(), before))
		time.Sleep(time.Minute)
		stop()

		missed := ended("missed") // between its end and the event, the process was killed
		time.Sleep(time.Hour)

		s, stop = startSender(t, b, first.endpoint("first"), second.endpoint("second"))
		must(t, s.AddRun(t.Context(), before))
		must(t, s.AddRun(t.Context(), missed))
		time.Sleep(time.Minute)

		if len(first.list()) != 1 || first.list()[0].BatchID != "batch_missed" || len(second.list()) != 0 {
			t.Errorf("events %v and %v, want the missed one for the first endpoint alone", first.list(), second.list())
		}

		time.Sleep(2 * announceEvery)
		stop()
		old := ended("old")
		time.Sleep(maxAge + time.Minute)
		s, _ = startSender(t, b, first.endpoint("first"))
		must(t, s.AddRun(t.Context(), old))
		time.Sleep(time.Minute)

		if len(first.list()) != 1 {
			t.Errorf("an event of 3 days ago is sent: %v", first.list())
		}
	})
}

// A process that ends in an attempt leaves its claim behind: it makes the attempt again when it
// starts, and another process when the claim is over.
func TestClaims(t *testing.T) {
	t.Parallel()

	hang := func(ctx context.Context, _ int) Answer {
		<-ctx.Done()
		return Answer{Text: "no answer"}
	}

	for process, want := range map[string]time.Duration{
		"here":      0,
		"elsewhere": answerTime + claimTime,
	} {
		synctest.Test(t, func(t *testing.T) {
			b, a := &memoryBucket{}, &attempts{answer: hang}
			s, stop := startSender(t, b, a.endpoint("e"))
			must(t, s.AddRun(t.Context(), ended("r")))
			synctest.Wait()
			stop()

			if list, got := states(t, b); got[0] != Pending || list[0].ClaimedBy != "here" {
				t.Fatalf("after an attempt that was broken off: %+v", list)
			}

			later := &attempts{answer: taken}
			s, err := Open(t.Context(), Config{Bucket: b, Endpoints: []Endpoint{later.endpoint("e")}, Process: process})
			must(t, err)

			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				s.Run(ctx)
			}()

			time.Sleep(time.Hour)
			cancel()
			<-done

			if at := later.times(); len(at) != 1 || at[0] < want || at[0] > want+pollEvery {
				t.Errorf("%s makes attempts at %s, want one at %s", process, at, want)
			}
		})
	}
}

// Two processes with the same endpoint send an event once.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		b, a := &memoryBucket{}, &attempts{answer: taken}
		startSender(t, b, a.endpoint("e"))
		other, err := Open(t.Context(), Config{Bucket: b, Endpoints: []Endpoint{a.endpoint("e")}, Process: "there"})
		must(t, err)

		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			other.Run(ctx)
		}()

		for range 50 {
			must(t, other.AddRun(t.Context(), ended(time.Now().Format("150405"))))
			time.Sleep(2 * time.Second)
		}

		cancel()
		<-done

		if len(a.times()) != 50 {
			t.Errorf("%d attempts of 50 events", len(a.times()))
		}
	})
}

// A bucket that is away, or that the bus has lost, stops nothing for good.
func TestBucketAway(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		b, a := &memoryBucket{}, &attempts{answer: taken}
		s, _ := startSender(t, b, a.endpoint("e"))

		b.setDown(true)
		time.Sleep(time.Hour)

		if err := s.AddRun(t.Context(), ended("r1")); err == nil {
			t.Error("an event is added to a bucket that is away")
		}

		b.setDown(false)
		must(t, s.AddRun(t.Context(), ended("r1")))
		time.Sleep(time.Minute)

		b.lose()
		time.Sleep(time.Minute)
		must(t, s.AddRun(t.Context(), ended("r2")))
		time.Sleep(time.Minute)

		if len(a.times()) != 2 {
			t.Errorf("%d events arrive, want 2", len(a.times()))
		}

		if _, endpoints, err := NewStore(b).List(t.Context()); err != nil || len(endpoints) != 1 {
			t.Errorf("endpoints after the bucket was lost: %v, %v", endpoints, err)
		}
	})
}

// A command gets an event once, whatever its end.
func TestCommandOnce(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		b, a := &memoryBucket{}, &attempts{answer: refused}
		e := a.endpoint("e")
		e.Command, e.AtOnce = true, 1
		s, _ := startSender(t, b, e)
		must(t, s.AddRun(t.Context(), ended("r")))
		time.Sleep(100 * time.Hour)

		if _, got := states(t, b); len(a.times()) != 1 || got[0] != GivenUp {
			t.Errorf("%d attempts, states %q", len(a.times()), got)
		}
	})
}

// A test has one attempt. Without a sender it says so in the end.
func TestOfEndpoints(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		b, a := &memoryBucket{}, &attempts{answer: refused}
		_, stop := startSender(t, b, a.endpoint("e"))
		store := NewStore(b)
		_, endpoints, err := store.List(t.Context())
		must(t, err)

		test := func() Delivery {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()

			d, err := store.Test(ctx, endpoints[0], NewTestEvent())
			must(t, err)

			return d
		}

		if d := test(); d.State != GivenUp || d.Answer != "500" || len(a.times()) != 1 {
			t.Errorf("test: %+v", d)
		}

		a.answerWith(taken)
		if d := test(); d.State != Delivered {
			t.Errorf("test: %+v", d)
		}

		stop()
		if d := test(); d.State != GivenUp || d.Answer != "no promptmill serve on this bus has sent it" {
			t.Errorf("test without a sender: %+v", d)
		}
	})
}
