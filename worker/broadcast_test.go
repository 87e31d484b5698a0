package worker

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Without work, await waits for a change, however long that takes; with work, for a time.
func TestBroadcastAwait(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		var b broadcast
		var work atomic.Bool
		ctx, cancel := context.WithCancel(t.Context())
		begin := time.Now()

		time.AfterFunc(time.Minute, b.notify)
		time.AfterFunc(time.Hour, func() { work.Store(true); b.notify() })

		if !b.await(ctx, time.Second, work.Load) {
			t.Error("await ends without work")
		}

		if got := time.Since(begin); got != time.Hour+time.Second {
			t.Errorf("await returned after %v", got)
		}

		time.AfterFunc(time.Millisecond, b.notify)
		b.await(ctx, time.Second, work.Load)

		if got := time.Since(begin); got != time.Hour+time.Second+time.Millisecond {
			t.Errorf("a change was noticed after %v", got)
		}

		work.Store(false)
		time.AfterFunc(time.Second, cancel)

		if b.await(ctx, time.Second, work.Load) {
			t.Error("await found work after the end")
		}
	})
}
