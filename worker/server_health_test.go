package worker

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// A model server that does nothing for a while counts as hung. A step of the wall clock makes
// no difference.
func TestHangWithSteppedClock(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name        string
		after       time.Duration
		step        int // seconds
		hung, again bool
	}{
		{name: "at work", after: time.Second},
		{name: "it does nothing", after: time.Minute + time.Second, hung: true, again: true},
		{name: "the clock is put forward", after: time.Second, step: 3600},
		{
			name:  "it does nothing, and the clock is put back",
			after: time.Minute + time.Second,
			step:  -3600,
			hung:  true,
			again: true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			server, err := modelserver.New("http://127.0.0.1:1", "")
			if err != nil {
				t.Fatal(err)
			}

			w := newWorker(t, Config{JS: noBus{}, Server: server, Limiter: limit.Fixed(1), Stall: time.Minute})
			before := time.Now()
			now := prototest.Stepped(t, before.Add(tt.after), tt.step)
			w.server.progress.record(before)
			w.server.health.mayWarn(before)
			w.server.load.detectHang(now)
			if w.Down() != tt.hung {
				t.Errorf("it hangs: %t, want %t", w.Down(), tt.hung)
			}

			if again := w.server.health.mayWarn(now); again != tt.again {
				t.Errorf("another warning may be logged: %t, want %t", again, tt.again)
			}
		})
	}
}

// A time in which this process was stopped is no hang of the server.
func TestStoppedIsNoHang(t *testing.T) {
	t.Parallel()

	server, err := modelserver.New("http://127.0.0.1:1", "")
	if err != nil {
		t.Fatal(err)
	}

	w := newWorker(t, Config{JS: noBus{}, Server: server, Limiter: limit.Fixed(1), Stall: time.Minute})
	now := time.Now()
	w.server.progress.record(now)
	w.server.progress.recordRunning(now)

	now = now.Add(time.Hour)
	if w.server.load.detectHang(now); w.Down() {
		t.Error("the server counts as hung after an hour in which this process did not run")
	}

	for range 4 * 61 {
		now = now.Add(limit.BeatEvery)
		w.server.progress.recordRunning(now)
	}

	if w.server.load.detectHang(now); !w.Down() {
		t.Error("the server does not count as hung after a minute without an answer")
	}
}

// A server that answers probes and no request counts as hung: a probe is no progress, but the
// loading of a model is.
func TestProbeIsNoProgress(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		status string // of the other model that it has
		hung   bool
	}{
		{"it has its models", "loaded", true},
		{"it loads one", "loading", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v1/models" {
					http.NotFound(w, r)
					return
				}
				fmt.Fprintf(w, `{"object":"list","data":[{"id":"a","owned_by":"llamacpp","status":{"value":%q}}]}`,
					tt.status)
			})

			b := newEmptyBed(t).withServer(startServer(t, handler))
			b.cfg.Stall = time.Minute
			b.cfg.Limiter = limit.New(limit.Config{})
			w := newWorker(t, b.cfg)
			w.server.progress.record(time.Now().Add(-2 * time.Minute))

			for range 2 {
				if err := w.server.health.probeServer(t.Context()); err != nil {
					t.Fatal(err)
				}
			}

			w.server.load.detectHang(time.Now())
			if w.Down() != tt.hung {
				t.Errorf("it hangs: %t, want %t", w.Down(), tt.hung)
			}
		})
	}
}
