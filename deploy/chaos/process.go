package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/promptmill/promptmill/proto/bus"
)

// process is a part of the deployment. As under systemd, it is started again whenever
// it ends, unless it is to stay down or its work is done.
type process struct {
	name       string
	deployment *deployment
	args       func() (path string, args []string) // of its next incarnation
	// output, if it is not nil, makes the file for stdout of each incarnation.
	output func() (*os.File, error)
	// works says that exit code 0 ends its work, and not only one incarnation.
	works bool

	alive chan struct{} // holds one element while the process may run
	done  chan struct{} // closed when its work is done
	kept  sync.WaitGroup

	mu    sync.Mutex
	cmd   *exec.Cmd
	dying bool // by a fault
}

// restartPause is the time between two incarnations.
const restartPause = 500 * time.Millisecond

func (d *deployment) addProcess(name string, args func() (string, []string)) *process {
	p := &process{
		name:       name,
		deployment: d,
		args:       args,
		alive:      make(chan struct{}, 1),
		done:       make(chan struct{}),
	}

	p.alive <- struct{}{}
	d.processes[name] = p

	return p
}

// runUntil starts the process, again and again until ctx ends.
func (p *process) runUntil(ctx context.Context) {
	p.kept.Go(func() {
		said, since := "", time.Time{}
		for {
			select {
			case <-p.alive:
			case <-ctx.Done():
				return
			}

			err := p.runOnce()
			p.alive <- struct{}{}
			switch {
			case ctx.Err() != nil:
				return
			case err == nil && p.works:
				close(p.done)
				return
			case errors.Is(err, errWanted):
			case fmt.Sprint(err) != said || time.Since(since) > 10*time.Second:
				said, since = fmt.Sprint(err), time.Now()
				p.deployment.logf("%s ended by itself: %v; started again", p.name, cmp.Or(err, errNone))
			}

			if bus.Sleep(ctx, restartPause) != nil {
				return
			}
		}
	})
}

var (
	errWanted = errors.New("a fault ended it")
	errNone   = errors.New("exit status 0")
)

// runOnce runs one incarnation and returns how it ended.
func (p *process) runOnce() error {
	log, err := os.OpenFile(p.deployment.logPath(p.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()

	path, args := p.args()
	fmt.Fprintf(log, "--- %s: %s %v\n", p.deployment.elapsed(), filepath.Base(path), args)
	path, args = p.deployment.withFileLimit(p.name, path, args)
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = p.deployment.dir, log, log, childAttributes()

	cmd.Env = slices.Concat(os.Environ(), p.deployment.nodesEnv,
		[]string{"PROMPTMILL_STATE=" + p.deployment.clientState()})
	if p.deployment.clockSkipped == nil {
		cmd.Env = append(cmd.Env, clockEnv+"="+p.deployment.clockPath(p.name))
	}

	if p.output != nil {
		out, err := p.output()
		if err != nil {
			return err
		}
		defer out.Close()
		cmd.Stdout = out
	}

	p.mu.Lock()
	p.dying = false
	err = cmd.Start()
	p.cmd = cmd
	p.mu.Unlock()
	if err != nil {
		return err
	}

	err = cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()

	p.cmd = nil
	if p.dying {
		return errWanted
	}

	return err
}

// signal sends a signal, unless the process is not there. Deadly ones are wanted.
func (p *process) signal(s syscall.Signal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.cmd.Process == nil {
		return false
	}
	p.dying = p.dying || s == syscall.SIGKILL || s == syscall.SIGTERM
	return p.cmd.Process.Signal(s) == nil
}

// kill ends the process as kill -9 does, and keeps it down until start.
func (p *process) kill() {
	for {
		p.signal(syscall.SIGKILL)
		select {
		case <-p.alive:
			return
		case <-p.done:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// start lets the process run again after kill or terminate.
func (p *process) start() {
	select {
	case p.alive <- struct{}{}:
	default: // its work is done
	}
}

// errLate is the error of a process that does not end when it is asked to.
var errLate = errors.New("it has not ended in time")

// terminate asks the process to end and keeps it down. Its stacks are in its log if it
// does not end within the time.
func (p *process) terminate(within time.Duration) error {
	p.signal(syscall.SIGCONT)

	asked := p.signal(syscall.SIGTERM)
	for late := time.After(within); ; {
		select {
		case <-p.alive:
			return nil
		case <-p.done:
			return nil
		case <-late:
			p.signal(syscall.SIGQUIT)
			bus.Sleep(context.Background(), time.Second)
			p.kill()
			return fmt.Errorf("%s: %w (%s)", p.name, errLate, within)
		case <-time.After(10 * time.Millisecond):
			asked = asked || p.signal(syscall.SIGTERM)
		}
	}
}
