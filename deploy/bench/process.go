package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a child. The system reports its memory as no less than what this
// program had when it started it, so this program keeps little.
type process struct {
	cmd   *exec.Cmd
	begin time.Time
	ended chan struct{}

	mu    sync.Mutex
	said  []string // the lines on its standard error
	news  chan struct{}
	err   error // of its end
	usage usage // after its end
}

// usage holds the CPU time and memory of a process.
type usage struct {
	wall, cpu time.Duration // cpu: user and system
	peak      int64         // memory, in bytes
}

// perRequest is the CPU time a request, in microseconds.
func (u usage) perRequest(requests int) float64 {
	return float64(u.cpu.Microseconds()) / float64(requests)
}

func (u usage) peakMB() float64 { return float64(u.peak) / 1e6 }

// startProcess starts a child in a folder.
func (b *bench) startProcess(ctx context.Context, dir, path string, args ...string) (*process, error) {
	p := &process{
		cmd:   exec.CommandContext(ctx, path, args...),
		ended: make(chan struct{}),
		news:  make(chan struct{}, 1),
	}

	p.cmd.Dir = dir
	p.cmd.Env = append(append(os.Environ(), "PROMPTMILL_STATE="+dir), b.env...)

	out, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}

	p.begin = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}

	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.addLine(lines.Text())
		}

		io.Copy(io.Discard, out) // behind a line that is too long
		err := p.cmd.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()

		p.err = err
		p.usage.wall = time.Since(p.begin)

		if took, ok := p.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			p.usage.cpu = time.Duration(took.Utime.Nano() + took.Stime.Nano())
			p.usage.peak = took.Maxrss * maxrssUnit
		}

		close(p.ended)
	}()

	return p, nil
}

func (p *process) addLine(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()

	if len(p.said) < 1000 {
		p.said = append(p.said, line)
	}

	select {
	case p.news <- struct{}{}:
	default:
	}
}

// patience bounds each wait.
const patience = 5 * time.Minute

// awaitLine waits for a line with a text, and returns it.
func (p *process) awaitLine(ctx context.Context, text string) (string, error) {
	late := time.After(patience)
	for {
		p.mu.Lock()
		said := p.said
		p.mu.Unlock()

		for _, line := range said {
			if strings.Contains(line, text) {
				return line, nil
			}
		}

		select {
		case <-p.news:
		case <-p.ended:
			return "", p.describeFailure("ended too early")
		case <-late:
			return "", p.describeFailure(fmt.Sprintf("has not said %q in %s", text, patience))
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// wait waits until the child ends by itself, which must be well.
func (p *process) wait() (usage, error) {
	<-p.ended
	if p.err != nil {
		return p.usage, p.describeFailure(p.err.Error())
	}
	return p.usage, nil
}

// stop ends the child and waits for it.
func (p *process) stop() usage {
	p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.ended
	return p.usage
}

func (p *process) describeFailure(what string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Errorf("%s: %s\n%s", strings.Join(p.cmd.Args, " "), what, strings.Join(p.said, "\n"))
}

// runProcess runs a child to its end.
func (b *bench) runProcess(ctx context.Context, dir, path string, args ...string) (usage, error) {
	p, err := b.startProcess(ctx, dir, path, args...)
	if err != nil {
		return usage{}, err
	}
	return p.wait()
}

// startServer starts a simulated model server with its flags, and returns its URL.
func (b *bench) startServer(ctx context.Context, args ...string) (url string, p *process, err error) {
	p, err = b.startProcess(ctx, b.dir, b.promptmill,
		append([]string{"sim", "--listen", "127.0.0.1:0", "--model", "sim", "--sim-spread", "0"}, args...)...)
	if err != nil {
		return "", nil, err
	}

	line, err := p.awaitLine(ctx, "http://")
	if err != nil {
		return "", nil, err
	}

	_, rest, _ := strings.Cut(line, "http://")
	address, _, _ := strings.Cut(rest, ",")

	return "http://" + address, p, nil
}

// sharedServer is server for one that stays until the section ends.
func (b *bench) sharedServer(ctx context.Context, args ...string) (string, error) {
	url, p, err := b.startServer(ctx, args...)
	if err == nil {
		b.stops = append(b.stops, func() { p.stop() })
	}
	return url, err
}
