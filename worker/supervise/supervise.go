package supervise

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// ErrStart is wrapped by what [Process.Run] returns when there is no use in starting
// the server again.
var ErrStart = errors.New("the model server does not start")

// Config is what to run, and how.
type Config struct {
	// Command is one command with its arguments, quoted as for a shell, such as
	// "CUDA_VISIBLE_DEVICES=1 vllm serve meta-llama/Llama-3.1-8B-Instruct". The server
	// must stay in the foreground. More than one command needs a shell of its own:
	// "sh -c '. venv/bin/activate && exec vllm serve ...'".
	Command string

	// LogFile takes the server's stdout and stderr. It is appended to; each start is
	// headed by a line with time and command. Its folder must exist. When it is larger
	// than 64 MiB at a start, it is renamed to LogFile+".1" first.
	LogFile string

	// Ready is nil when the server answers requests. It is asked until then, with a
	// deadline, and must return when its context ends.
	Ready func(context.Context) error

	Grace time.Duration // from SIGTERM to SIGKILL at the end. Defaults to 10 s.
	Log   zerolog.Logger
}

// maxUnready is how often a server that has been ready may die in a row before it is
// ready again.
const maxUnready = 5

// tuning is what tests make small.
type tuning struct {
	poll, pollLater     time.Duration // between checks for readiness, while the start is fresh and after
	fresh               time.Duration
	pauseMin, pauseMax  time.Duration // before the server is started again: doubles from the first to the last
	steady              time.Duration // ready for so long, and the pauses begin anew
	readyWait, killWait time.Duration // for one answer of Ready; for killed processes to be gone
	maxLog              int64         // bytes
}

var defaultTuning = tuning{
	poll:      250 * time.Millisecond,
	pollLater: time.Second,
	fresh:     30 * time.Second,
	pauseMin:  time.Second,
	pauseMax:  time.Minute,
	steady:    5 * time.Minute,
	readyWait: 5 * time.Second,
	killWait:  10 * time.Second,
	maxLog:    64 << 20,
}

// New returns a server that is not started yet.
func New(cfg Config) *Process {
	if cfg.Grace <= 0 {
		cfg.Grace = 10 * time.Second
	}

	cfg.Command = strings.TrimSpace(cfg.Command)

	return &Process{
		cfg:     cfg,
		tuning:  defaultTuning,
		restart: make(chan string, 1),
		status:  Status{Phase: Stopped, Since: time.Now()},
		changed: make(chan struct{}),
	}
}

// Run starts the server and keeps it running until ctx ends; then it stops it with all
// its processes and returns nil. The error wraps [ErrStart], with the last lines of
// the log, when the server dies before it was ever ready, or dies five times in a row
// without becoming ready. Run is called once.
func (p *Process) Run(ctx context.Context) error {
	defer p.updateStatus(func(s *Status) { s.Phase = Stopped })

	if p.cfg.Command == "" {
		return fmt.Errorf("%w: there is no command", ErrStart)
	}

	// A server that was there before would be taken for ours, which dies for want of
	// its port, again and again.
	if p.checkReady(ctx) == nil {
		return fmt.Errorf("%w: another one answers already where it is to listen", ErrStart)
	}

	pause, unready, everReady := p.pauseMin, 0, false
	for ctx.Err() == nil {
		end := p.runOnce(ctx)
		if ctx.Err() != nil {
			break
		}

		switch {
		case end.ready:
			everReady, unready = true, 0
		case !end.restarted:
			unready++
		}

		if unready == maxUnready || unready > 0 && !everReady {
			return end.startError(p.cfg.LogFile, unready)
		}

		if end.readyFor >= p.steady {
			pause = p.pauseMin
		}

		p.cfg.Log.Warn().Str("exit", end.exit).Dur("wait_ms", pause).
			Msg("the model server has ended; starting it again")

		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}

		pause = min(2*pause, p.pauseMax)
	}

	return nil
}

// Restart kills the server with all its processes now, and starts it again after the
// usual pause. The reason is logged, and told by [Status]. It does nothing when the
// server is not running.
func (p *Process) Restart(reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()

	if !p.status.Phase.isRunning() {
		return
	}

	select {
	case p.restart <- reason:
	default: // it is being killed already
	}
}

// outcome is how one life of the server ended.
type outcome struct {
	ready     bool
	readyFor  time.Duration
	restarted bool   // by Restart
	exit      string // as in Status.LastExit
	lines     string // the last of the log
}

func (e outcome) startError(logFile string, times int) error {
	err := fmt.Errorf("%w: %s", ErrStart, e.exit)
	if times > 1 {
		err = fmt.Errorf("%w: it ended %d times in a row before it was ready: %s", ErrStart, times, e.exit)
	}

	if e.lines == "" {
		return fmt.Errorf("%w; its log is %s", err, logFile)
	}

	return fmt.Errorf("%w; its log, %s, ends with:\n%s", err, logFile, e.lines)
}

// runOnce starts the server and waits for its end, which it brings about when ctx ends
// or a restart is asked for.
func (p *Process) runOnce(ctx context.Context) outcome {
	log, err := openLog(p.cfg.LogFile, p.cfg.Command, p.maxLog)
	if err != nil {
		return p.recordStartFailure(err)
	}
	defer log.Close()

	begun := time.Now()
	s, err := startServer(p.cfg.Command, log.File)
	if err != nil {
		return p.recordStartFailure(err)
	}

	p.recordStart()
	p.cfg.Log.Info().Str("log", p.cfg.LogFile).Int("pid", s.group).Msg("started the model server")

	watch, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		p.awaitReady(watch, log, begun)
	}()

	var end outcome
	var grace time.Duration
	select {
	case <-s.exited:
		end.exit = s.exitStatus()
	case reason := <-p.restart:
		end.restarted, end.exit = true, "killed: "+reason
	case <-ctx.Done():
		grace = p.cfg.Grace
	}

	stop()
	<-watched

	if status := p.Status(); status.Phase == Ready {
		end.ready, end.readyFor = true, time.Since(status.Since)
	}

	if ctx.Err() == nil { // at once, and not when the group is gone: nobody shall send it requests
		p.updateStatus(func(s *Status) { s.Phase, s.LastExit = Waiting, end.exit })
	}

	if !s.terminate(grace, p.killWait) {
		p.cfg.Log.Warn().Int("pid", s.group).Msg("some processes of the model server are still there though killed")
	}

	if grace > 0 {
		end.exit = s.exitStatus()
		p.updateStatus(func(s *Status) { s.LastExit = end.exit })
	}

	end.lines = log.tailLines()

	return end
}

func (p *Process) recordStartFailure(err error) outcome {
	p.updateStatus(func(s *Status) { s.Phase, s.LastExit = Waiting, err.Error() })
	return outcome{exit: err.Error()}
}

// awaitReady reads the log of the server that was started at begun, until it is ready or ctx
// ends.
func (p *Process) awaitReady(ctx context.Context, log *logFile, begun time.Time) {
	var told memoryReader
	for every := p.poll; ; {
		err := p.checkReady(ctx)
		log.readNewLines(told.parseLine)
		p.updateStatus(func(s *Status) { s.Memory = told.Memory })
		if err == nil {
			took := time.Since(begun)
			p.updateStatus(func(s *Status) { s.Phase, s.LoadTime = Ready, took })
			p.cfg.Log.Info().Dur("load_ms", took).Msg("the model server is ready")
			return
		}

		if time.Since(begun) > p.fresh {
			every = p.pollLater
		}

		select {
		case <-time.After(every):
		case <-ctx.Done():
			return
		}
	}
}

func (p *Process) checkReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.readyWait)
	defer cancel()
	return p.cfg.Ready(ctx)
}
