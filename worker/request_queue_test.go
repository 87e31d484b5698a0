package worker

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

func newTask(index uint32) *task { return &task{Request: proto.Request{Index: index}} }

func popIndexes(t *testing.T, q *requestQueue, n int) (indexes []uint32) {
	t.Helper()

	for range n {
		task, ok := q.pop(t.Context())
		if !ok {
			t.Fatal("the queue has ended")
		}
		indexes = append(indexes, task.Index)
	}

	return indexes
}

func checkIndexes(t *testing.T, want, got []uint32) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tasks (-want +got):\n%s", diff)
	}
}

func TestQueueFirstInFirstOut(t *testing.T) {
	t.Parallel()

	q := newRequestQueue()
	q.push(newTask(1), newTask(2))
	checkIndexes(t, []uint32{1}, popIndexes(t, q, 1))
	q.push(newTask(3))
	checkIndexes(t, []uint32{2, 3}, popIndexes(t, q, 2))
	q.push(newTask(4)) // in the array that was emptied
	checkIndexes(t, []uint32{4}, popIndexes(t, q, 1))
}

func TestQueuePushAfter(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		q, begin := newRequestQueue(), time.Now()
		q.pushAfter(newTask(2), 2*time.Second)
		q.pushAfter(newTask(1), time.Second)
		if q.delayedCount() != 2 {
			t.Errorf("%d delayed, want 2", q.delayedCount())
		}

		checkIndexes(t, []uint32{1}, popIndexes(t, q, 1))
		if got := time.Since(begin); got != time.Second {
			t.Errorf("the first comes after %v", got)
		}

		checkIndexes(t, []uint32{2}, popIndexes(t, q, 1))
		if got := time.Since(begin); got != 2*time.Second {
			t.Errorf("the second comes after %v", got)
		}

		if q.delayedCount() != 0 {
			t.Errorf("%d delayed, want none", q.delayedCount())
		}
	})
}

func TestQueuePopWaits(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		end  func(q *requestQueue, cancel func())
		ok   bool
	}{
		{"for a task", func(q *requestQueue, _ func()) { q.push(newTask(1)) }, true},
		{"for the context's end", func(_ *requestQueue, cancel func()) { cancel() }, false},
		{"for close", func(q *requestQueue, _ func()) { q.close() }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()

				q, back := newRequestQueue(), false
				var ok bool
				go func() {
					_, ok = q.pop(ctx)
					back = true
				}()

				synctest.Wait()
				if back {
					t.Fatal("pop does not wait")
				}

				tt.end(q, cancel)
				synctest.Wait()

				if !back || ok != tt.ok {
					t.Errorf("pop came back: %v, with a task: %v", back, ok)
				}
			})
		})
	}
}

func TestQueueClose(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		q := newRequestQueue()
		q.push(newTask(0), newTask(1), newTask(2))
		q.pushAfter(newTask(3), time.Second)
		popIndexes(t, q, 1)

		var rest []uint32
		for _, task := range q.close() {
			rest = append(rest, task.Index)
		}

		checkIndexes(t, []uint32{1, 2, 3}, rest)
		if q.push(newTask(4)) || q.pushAfter(newTask(5), 0) {
			t.Error("a closed queue takes tasks")
		}

		time.Sleep(2 * time.Second) // fake time: past the end of the wait
		if again := q.close(); len(again) != 0 {
			t.Errorf("a task is given out twice: %v", again[0].Index)
		}
	})
}
