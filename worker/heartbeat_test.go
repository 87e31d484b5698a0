package worker

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/promptmill/promptmill/proto/bus"
)

func TestHeartbeat(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		begin, last, n := time.Now(), time.Now(), 0
		h := startHeartbeat(func() error {
			if gap := time.Since(last); gap > bus.AckWait/2 {
				t.Errorf("%v without a heartbeat", gap)
			}
			last, n = time.Now(), n+1
			return nil
		})

		time.Sleep(10*bus.AckWait + time.Second)
		h.stop()

		if n != 30 {
			t.Errorf("%d heartbeats in %v", n, time.Since(begin))
		}

		time.Sleep(bus.AckWait)
		if n != 30 {
			t.Error("heartbeats after stop")
		}
	})
}
