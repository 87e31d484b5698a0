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
)

// process is a part of the deployment. As under systemd, it is started again whenever
// it ends, unless it was told to stay down or its work is done.
type process struct {
	name  string
	fleet *fleet
	args  func() (path string, args []string) // of its next life
	// output, if it is not nil, makes the file for stdout of each life.
	output func() (*os.File, error)
	// works says that exit code 0 is the end of its work, and not of one life.
	works bool

	alive chan struct{} // holds one element, which who takes it may live with
	done  chan struct{} // closed when its work is done
	kept  sync.WaitGroup

	mu    sync.Mutex
	cmd   *exec.Cmd
	dying bool // by a deed
}

// restartPause is between two lives.
const restartPause = 500 * time.Millisecond

func (f *fleet) process(name string, args func() (string, []string)) *process {
	p := &process{
		name:  name,
		fleet: f,
		args:  args,
		alive: make(chan struct{}, 1),
		done:  make(chan struct{}),
	}

	p.alive <- struct{}{}
	f.processes[name] = p

	return p
}

// keep starts the process, again and again until ctx ends.
func (p *process) keep(ctx context.Context) {
	p.kept.Go(func() {
		said, since := "", time.Time{}
		for {
			select {
			case <-p.alive:
			case <-ctx.Done():
				return
			}

			err := p.live()
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
				p.fleet.say("%s ended by itself: %v; started again", p.name, cmp.Or(err, errNone))
			}

			if pause(ctx, restartPause) != nil {
				return
			}
		}
	})
}

var (
	errWanted = errors.New("a deed has ended it")
	errNone   = errors.New("exit status 0")
)

// live lives once and tells how that ended.
func (p *process) live() error {
	log, err := os.OpenFile(p.fleet.log(p.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()

	path, args := p.args()
	fmt.Fprintf(log, "--- %s: %s %v\n", p.fleet.elapsed(), filepath.Base(path), args)
	path, args = p.fleet.limited(p.name, path, args)
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = p.fleet.dir, log, log, childAttributes()

	cmd.Env = slices.Concat(os.Environ(), p.fleet.nodesEnv, []string{"PROMPTMILL_STATE=" + p.fleet.state()})
	if p.fleet.timeless == nil {
		cmd.Env = append(cmd.Env, clockEnv+"="+p.fleet.clock(p.name))
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

// start ends what kill or end began.
func (p *process) start() {
	select {
	case p.alive <- struct{}{}:
	default: // its work is done
	}
}

// errLate is the error of a process that does not end when it is asked to.
var errLate = errors.New("it has not ended in time")

// end asks the process to end and keeps it down. Its stacks are in its log if it
// does not end within the time.
func (p *process) end(within time.Duration) error {
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
			pause(context.Background(), time.Second)
			p.kill()
			return fmt.Errorf("%s: %w (%s)", p.name, errLate, within)
		case <-time.After(10 * time.Millisecond):
			asked = asked || p.signal(syscall.SIGTERM)
		}
	}
}

// pause waits, and returns the cause of ctx's end if that comes first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
