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
	"github.com/promptmill/promptmill/proto/bus"
)

// runDeployment starts a deployment, injects the faults of the plan, and returns the figures
// and the findings.
func runDeployment(
	ctx context.Context, o options, built programs, events []event, history io.Writer,
) (figures string, found findings) {
	stop, cancel := context.WithCancel(context.Background())
	defer cancel()

	d := &deployment{
		shape:          o.shape,
		layout:         layout{o.dir},
		history:        history,
		programs:       built,
		processes:      map[string]*process{},
		links:          map[string]*link{},
		disks:          map[string]*disk{},
		modelAddress:   map[string]string{},
		metricsAddress: map[string]string{},
		joins:          map[proto.Role]proto.Join{},
		faults:         map[string]string{},
		faultSeeds:     map[string]uint64{},
		files:          map[string]int{},
		aside:          map[string]string{},
		locks:          map[string]*sync.Mutex{},
	}
	defer func() {
		d.shutDown(cancel, &found)
		if len(found) > 0 || o.keep {
			d.saveDisks()
		}
		d.unmountDisks()
	}()

	if err := d.start(stop); err != nil {
		found.add("start: %v", err)
		return "", found
	}

	d.playPlan(ctx, events, &found)
	if ctx.Err() != nil {
		found.add("interrupted")
		return "", found
	}

	d.logf("all faults are cleared")
	d.awaitEnd(ctx, &found)

	if ctx.Err() != nil {
		found.add("interrupted")
		return "", found
	}

	figures = (&auditor{d, &found}).checkAll()
	d.logf("%s", figures)

	return figures, found
}

// playPlan injects the faults of the plan, and checks the journals at half time.
func (d *deployment) playPlan(ctx context.Context, events []event, found *findings) {
	var deeds sync.WaitGroup
	var mu sync.Mutex
	fail := func(e event, err error) {
		if s, ok := errors.AsType[skipped](err); ok {
			d.logf("%s: %v", e, s)
		} else if err != nil {
			mu.Lock()
			defer mu.Unlock()
			d.logf("%s: %v", e, err)
			found.add("%s: %v", e, err)
		}
	}

	checkpoint := time.AfterFunc(d.shape.time/2, func() {
		mu.Lock()
		defer mu.Unlock()
		(&auditor{d, found}).checkJournals()
	})
	defer checkpoint.Stop()

	for _, e := range events {
		if bus.Sleep(ctx, time.Until(d.begin.Add(e.at))) != nil {
			break
		}

		d.logf("%s", e)
		deeds.Go(func() {
			// A fault may take longer than planned, such as the end of a busy part. The next
			// one to the same part waits for it.
			for _, part := range e.kind.conflicts(e.target) {
				lock := d.lockOf(part)
				lock.Lock()
				defer lock.Unlock()
			}

			h := d.shape.disruptionBy(e)
			h.from = time.Now()
			fail(e, e.kind.inject(d, e))

			if e.kind.clear != nil {
				bus.Sleep(ctx, time.Until(d.begin.Add(e.at+e.duration)))
				fail(e, e.kind.clear(d, e))
			}

			h.to = time.Now()
			d.addDisruption(h)
		})
	}

	bus.Sleep(ctx, time.Until(d.begin.Add(d.shape.time)))
	if late := 5 * time.Minute; !awaitWithin(ctx, late, deeds.Wait) && ctx.Err() == nil {
		mu.Lock()
		defer mu.Unlock()
		found.add("a fault is not over %s after its time", late)
	}
}

// awaitWithin waits for something that has no deadline of its own, and reports whether it came.
func awaitWithin(ctx context.Context, most time.Duration, wait func()) bool {
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

// awaitEnd waits for the end of all work, and makes late processes print their stacks.
func (d *deployment) awaitEnd(ctx context.Context, found *findings) {
	begin := time.Now()
	late := begin.Add(2*time.Minute + time.Duration(d.shape.requests)*40*time.Millisecond)
	if !awaitWithin(ctx, time.Until(late), d.submitting.Wait) {
		found.add("a run could not be submitted")
	}

	for time.Now().Before(late) && ctx.Err() == nil {
		if d.isComplete("a") && d.isComplete("b") && d.readerIsDone() {
			d.logf("both runs are complete, and the reader has all that it can get, %.1fs after the last fault",
				time.Since(begin).Seconds())
			return
		}
		bus.Sleep(ctx, 100*time.Millisecond)
	}

	if ctx.Err() != nil {
		return
	}

	found.add("not done %s after the last fault: run a complete: %t, run b: %t",
		time.Since(begin).Round(time.Second), d.isComplete("a"), d.isComplete("b"))
	d.runPromptmill(30*time.Second, "submit-bus", proto.RoleReader, "status")

	for _, p := range d.processes {
		p.signal(syscall.SIGQUIT)
	}

	bus.Sleep(ctx, time.Second)
}

// readerIsDone reports whether the reader has all that it can get.
func (d *deployment) readerIsDone() bool {
	d.mu.Lock()
	defer d.mu.Unlock()

	select {
	case <-d.processes["reader"].done:
		return true
	default:
		return d.readerCannotFinish
	}
}

// shutDown ends all parts as an operator does, and checks that no process stays.
func (d *deployment) shutDown(cancel context.CancelFunc, found *findings) {
	var mu sync.Mutex
	all := func(names ...string) {
		var ending sync.WaitGroup
		for _, name := range names {
			if p := d.processes[name]; p != nil {
				ending.Go(func() {
					if err := p.terminate(endTime); err != nil {
						mu.Lock()
						defer mu.Unlock()
						found.add("%v", err)
					}
				})
			}
		}

		ending.Wait()
	}

	all(append(d.shape.workerNames(), "reader")...)
	all("serve")
	cancel()
	all(append(d.shape.nodeNames(), d.shape.modelNames()...)...)
	d.submitting.Wait()

	for _, p := range d.processes {
		p.kept.Wait()
	}

	for _, l := range d.links {
		l.close()
	}

	for _, pid := range listLeftProcesses(d.promptmill) {
		found.add("process %s of promptmill is left", pid)
	}

	(&auditor{d, found}).checkLogs()
}

// saveDisks copies the files on disks of our own into the folder of the deployment.
func (d *deployment) saveDisks() {
	for name, path := range d.diskPaths() {
		if err := os.CopyFS(filepath.Join(d.dir, "left", name), os.DirFS(path)); err != nil &&
			!errors.Is(err, os.ErrNotExist) {
			fmt.Fprintf(d.history, "keep what is on disk %s: %v\n", name, err)
		}
	}
}

// unmountDisks takes the disks of our own away.
func (d *deployment) unmountDisks() {
	for name, disk := range d.disks {
		if err := disk.unmount(); err != nil {
			fmt.Fprintf(d.history, "disk %s stays mounted: %v\n", name, err)
		}
	}
}
