package worker

import (
	"fmt"
	"testing"
	"time"

	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/sim"
)

// A worker stays within the limits of a real proxy on the rate and on requests at once, and no
// request fails for them.
func TestNginxLimits(t *testing.T) {
	t.Parallel()

	nginx := findNginx(t)
	for _, tt := range []struct {
		name, limit string
		rate        float64 // that it allows
	}{
		{"rate", "limit_req zone=rate burst=5 nodelay; limit_req_status 429;", 20},
		{"rate, with the status that is the default", "limit_req zone=rate burst=5 nodelay;", 20},
		{"at once", "limit_conn at_once 5; limit_conn_status 429;", 25},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			server := sim.New(sim.Config{
				Flavour: sim.Plain,
				Models:  []string{"m"},
				Slots:   64,
				TTFT:    200 * time.Millisecond,
			})

			b := newRunBed(t, startNginxLimits(t, nginx, startServer(t, server), tt.limit))
			b.cfg.Limiter = limit.New(limit.Config{})
			b.publishRange("r", "m", 0, 3000, 32)
			w, stop := b.startWorker()
			defer stop()

			done := func(n int) time.Time {
				prototest.Poll(t, 2*time.Minute, fmt.Sprint(n, " answers"), func() bool {
					return w.Stats().Done.Load() >= int64(n)
				})
				return time.Now()
			}

			begin := done(int(20 * tt.rate))
			end := done(int(30 * tt.rate))
			got := 10 * tt.rate / end.Sub(begin).Seconds()
			t.Logf("%.1f answers a second of %.0f; refused %v", got, tt.rate, w.Stats().Reasons())
			if got < 0.8*tt.rate { // on cores that have much else to do
				t.Errorf("%.1f answers a second, want %.0f", got, tt.rate)
			}

			if failed := w.Stats().Failed.Load(); failed > 0 {
				t.Errorf("%d requests failed", failed)
			}
		})
	}
}

// startNginxLimits runs nginx with a limit in front of a server, and returns its URL.
func startNginxLimits(t *testing.T, nginx, server, limit string) string {
	t.Helper()

	return startNginxWith(t, nginx, func(address string) string {
		return fmt.Sprintf(`
	limit_req_zone $server_port zone=rate:1m rate=20r/s;
	limit_conn_zone $server_port zone=at_once:1m;
	server {
		listen %[1]s;
		location / { proxy_pass %[2]s; }
		location /v1/chat/completions { %[3]s proxy_pass %[2]s; }
	}
`, address, server, limit)
	})
}
