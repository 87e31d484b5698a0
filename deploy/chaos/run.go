package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// run starts a deployment, hurts it by the plan, and returns the figures of what came of it,
// and what is wrong.
func run(
	ctx context.Context, o options, built programs, events []event, history io.Writer,
) (figures string, found findings) {
	stop, cancel := context.WithCancel(context.Background())
	defer cancel()

	f := &fleet{
		shape:          o.shape,
		dir:            o.dir,
		history:        history,
		programs:       built,
		processes:      map[string]*process{},
		links:          map[string]*link{},
		disks:          map[string]*disk{},
		modelAddress:   map[string]string{},
		metricsAddress: map[string]string{},
		joins:          map[proto.Role]proto.Join{},
		faults:         map[string]string{},
		luck:           map[string]uint64{},
		files:          map[string]int{},
		aside:          map[string]string{},
		locks:          map[string]*sync.Mutex{},
	}
	defer func() {
		f.shutDown(cancel, &found)
		if len(found) > 0 || o.keep {
			f.save()
		}
		f.unmount()
	}()

	if err := f.start(stop); err != nil {
		found.add("start: %v", err)
		return "", found
	}

	f.play(ctx, events, &found)
	if ctx.Err() != nil {
		found.add("interrupted")
		return "", found
	}

	f.say("all is healed")
	f.await(ctx, &found)

	if ctx.Err() != nil {
		found.add("interrupted")
		return "", found
	}

	figures = f.check(&found)
	f.say("%s", figures)

	return figures, found
}

// play does what the plan says, and looks at the files from time to time.
func (f *fleet) play(ctx context.Context, events []event, found *findings) {
	var deeds sync.WaitGroup
	var mu sync.Mutex
	fail := func(e event, err error) {
		if s, ok := errors.AsType[skipped](err); ok {
			f.say("%s: %v", e, s)
		} else if err != nil {
			mu.Lock()
			defer mu.Unlock()
			f.say("%s: %v", e, err)
			found.add("%s: %v", e, err)
		}
	}

	checkpoint := time.AfterFunc(f.shape.time/2, func() {
		mu.Lock()
		defer mu.Unlock()
		f.checkpoint(found)
	})
	defer checkpoint.Stop()

	for _, e := range events {
		if pause(ctx, time.Until(f.begin.Add(e.at))) != nil {
			break
		}

		f.say("%s", e)
		deeds.Go(func() {
			// A deed may take longer than planned, such as the end of a busy part. The next
			// one to the same part waits for it.
			for _, part := range e.deed.harms(e.target) {
				lock := f.lock(part)
				lock.Lock()
				defer lock.Unlock()
			}

			h := f.shape.harmBy(e)
			h.from = time.Now()
			fail(e, e.deed.do(f, e))

			if e.deed.undo != nil {
				pause(ctx, time.Until(f.begin.Add(e.at+e.length)))
				fail(e, e.deed.undo(f, e))
			}

			h.to = time.Now()
			f.harmed(h)
		})
	}

	pause(ctx, time.Until(f.begin.Add(f.shape.time)))
	if late := 5 * time.Minute; !waited(ctx, late, deeds.Wait) && ctx.Err() == nil {
		mu.Lock()
		defer mu.Unlock()
		found.add("what was done to the deployment is not over %s after its time", late)
	}
}

// waited waits for something that has no deadline of its own, and reports whether it came.
func waited(ctx context.Context, most time.Duration, wait func()) bool {
	over := make(chan struct{})
	go func() {
		defer close(over)
		wait()
	}()

	select {
	case <-over:
		return true
	case <-time.After(most):
	case <-ctx.Done():
	}

	return false
}

// await waits for the end of all work, and asks for the stacks of those who are late.
func (f *fleet) await(ctx context.Context, found *findings) {
	begin := time.Now()
	late := begin.Add(2*time.Minute + time.Duration(f.shape.requests)*40*time.Millisecond)
	if !waited(ctx, time.Until(late), f.submitting.Wait) {
		found.add("a run could not be submitted")
	}

	for time.Now().Before(late) && ctx.Err() == nil {
		if f.complete("a") && f.complete("b") && f.read() {
			f.say("both runs are complete, and the reader has all that it can get, %.1fs after the last harm",
				time.Since(begin).Seconds())
			return
		}
		pause(ctx, 100*time.Millisecond)
	}

	if ctx.Err() != nil {
		return
	}

	found.add("not done %s after the last harm: run a complete: %t, run b: %t",
		time.Since(begin).Round(time.Second), f.complete("a"), f.complete("b"))
	f.command(30*time.Second, "submit-bus", proto.RoleReader, "status")

	for _, p := range f.processes {
		p.signal(syscall.SIGQUIT)
	}

	pause(ctx, time.Second)
}

// read reports whether the reader has all that it can get.
func (f *fleet) read() bool {
	f.mu.Lock()
	defer f.mu.Unlock()

	select {
	case <-f.processes["reader"].done:
		return true
	default:
		return f.unread
	}
}

// shutDown ends all parts as an operator does, and looks that nobody stays.
func (f *fleet) shutDown(cancel context.CancelFunc, found *findings) {
	var mu sync.Mutex
	all := func(names ...string) {
		var ending sync.WaitGroup
		for _, name := range names {
			if p := f.processes[name]; p != nil {
				ending.Go(func() {
					if err := p.end(endTime); err != nil {
						mu.Lock()
						defer mu.Unlock()
						found.add("%v", err)
					}
				})
			}
		}

		ending.Wait()
	}

	all(append(f.shape.workerNames(), "reader")...)
	all("serve")
	cancel()
	all(append(f.shape.nodeNames(), f.shape.modelNames()...)...)
	f.submitting.Wait()

	for _, p := range f.processes {
		p.kept.Wait()
	}

	for _, l := range f.links {
		l.close()
	}

	for _, pid := range leftBehind(f.promptmill) {
		found.add("process %s of promptmill is left", pid)
	}

	f.checkLogs(found)
}

// save copies what lies on disks of our own to where it outlives us.
func (f *fleet) save() {
	for name, path := range f.diskPaths() {
		if err := os.CopyFS(filepath.Join(f.dir, "left", name), os.DirFS(path)); err != nil &&
			!errors.Is(err, os.ErrNotExist) {
			fmt.Fprintf(f.history, "keep what is on disk %s: %v\n", name, err)
		}
	}
}

// unmount takes the disks of our own away.
func (f *fleet) unmount() {
	for name, d := range f.disks {
		if err := d.unmount(); err != nil {
			fmt.Fprintf(f.history, "disk %s stays mounted: %v\n", name, err)
		}
	}
}
