package supervise

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// ErrStart is wrapped by the error of [Process.Run] when there is no use in starting the server
// again.
var ErrStart = errors.New("the model server does not start")

// ErrSystem is returned by [New] on Windows, which has no process groups.
var ErrSystem = errors.New(
	"promptmill starts no model servers on Windows: start it by hand, and name its address with --url")

// Config configures a [Process].
type Config struct {
	// Command is one command with its arguments, quoted as for a shell, such as
	// "CUDA_VISIBLE_DEVICES=1 vllm serve meta-llama/Llama-3.1-8B-Instruct". The server must
	// stay in the foreground. More than one command needs its own shell: "sh -c '.
	// venv/bin/activate && exec vllm serve ...'". Required.
	Command string

	// LogFile takes the server's stdout and stderr. It is appended to; each start is headed by
	// a line with time and command. Its folder must exist. When it is larger than 64 MiB, its last
	// 64 MiB become LogFile+".1", and it is empty again. Required.
	LogFile string

	// Ready returns nil when the server answers requests. It is called until then, with a
	// deadline, and must return when its context ends. Required.
	Ready func(context.Context) error

	// Grace is the time from SIGTERM to SIGKILL at the end. Defaults to 10 s. See also [Process.KillBy].
	Grace time.Duration

	// Log receives the starts and ends of the server. Defaults to no log.
	Log zerolog.Logger
}

// maxUnready is the number of times that a server that has been ready may die in a row before
// it is ready again.
const maxUnready = 5

// lateKillWait is the time that killed processes have to be gone after the time of [Process.KillBy].
const lateKillWait = 100 * time.Millisecond

// tuning holds the times and sizes that tests make small.
type tuning struct {
	poll        time.Duration // between checks for readiness
	pollLater   time.Duration // likewise, after freshTime
	freshTime   time.Duration
	pauseMin    time.Duration // before a restart; it doubles with each one
	pauseMax    time.Duration
	steadyTime  time.Duration // of a ready server, after which the pauses start again at pauseMin
	readyWait   time.Duration // for one call of Config.Ready
	killWait    time.Duration // for killed processes to be gone
	maxLogBytes int64
	logPoll     time.Duration // between looks at the size of the log
}

var defaultTuning = tuning{
	poll:        250 * time.Millisecond,
	pollLater:   time.Second,
	freshTime:   30 * time.Second,
	pauseMin:    time.Second,
	pauseMax:    time.Minute,
	steadyTime:  5 * time.Minute,
	readyWait:   5 * time.Second,
	killWait:    10 * time.Second,
	maxLogBytes: 64 << 20,
	logPoll:     2 * time.Second,
}

// Process is a model server that is kept running. It is safe for concurrent use.
type Process struct {
	cfg     Config
	tuning  tuning
	restart chan string // a reason for a restart

	// mu guards the fields below.
	mu      sync.Mutex
	status  Status
	changed chan struct{} // closed at the next change of phase
	killBy  time.Time     // of KillBy; zero: there is no such time
}

// New returns a server that is not started yet.
func New(cfg Config) (*Process, error) {
	switch {
	case cfg.LogFile == "":
		return nil, errors.New("supervise: Config.LogFile is required")
	case cfg.Ready == nil:
		return nil, errors.New("supervise: Config.Ready is required")
	}

	if err := checkSystem(); err != nil {
		return nil, err
	}

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
	}, nil
}

// KillBy lets the end of the server take no longer than until a time, at which SIGKILL comes though
// Config.Grace is not over; zero: there is no such time. It counts for an end that comes later.
func (p *Process) KillBy(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killBy = at
}

// endTimes returns how long the server has to end by itself now, and killed processes to be gone.
func (p *Process) endTimes() (grace, killWait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()

	grace, killWait = p.cfg.Grace, p.tuning.killWait
	if p.killBy.IsZero() {
		return grace, killWait
	}

	left := max(0, time.Until(p.killBy))
	grace = min(grace, left)

	return grace, min(killWait, left-grace+lateKillWait)
}

// Run starts the server and keeps it running until ctx ends; then it stops the server with all
// its processes and returns nil. The error wraps [ErrStart], with the last lines of the log,
// when the server dies before it was ever ready, or dies five times in a row without becoming
// ready. Run may be called again when it has returned.
func (p *Process) Run(ctx context.Context) error {
	defer p.updateStatus(func(s *Status) { s.Phase = Stopped })

	if p.cfg.Command == "" {
		return fmt.Errorf("%w: there is no command", ErrStart)
	}

	// A server that was there before would be taken for ours, which then dies again and again
	// because its port is in use.
	if p.checkReady(ctx) == nil {
		return fmt.Errorf("%w: another one answers already where it is to listen", ErrStart)
	}

	pause, unready, everReady := p.tuning.pauseMin, 0, false
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

		if end.readyFor >= p.tuning.steadyTime {
			pause = p.tuning.pauseMin
		}

		p.cfg.Log.Warn().Str("exit", end.exit).Dur("wait_ms", pause).Msg("model server ended; restarting it")

		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}

		pause = min(2*pause, p.tuning.pauseMax)
	}

	return nil
}

// Restart kills the server with all its processes now, and starts it again after the usual
// pause. The reason is logged, and part of [Status]. It does nothing when the server is not
// running.
func (p *Process) Restart(reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()

	if !p.status.Phase.isRunning() {
		return
	}

	select {
	case p.restart <- reason:
	default: // the server is being killed already
	}
}

// outcome is the end of one start of the server.
type outcome struct {
	ready     bool
	readyFor  time.Duration
	restarted bool   // by Restart
	exit      string // as in Status.LastExit
	lines     string // the last ones of the log
}

// startError returns the error of a server that is not started again.
func (o outcome) startError(logFile string, times int) error {
	err := fmt.Errorf("%w: %s", ErrStart, o.exit)
	if times > 1 {
		err = fmt.Errorf("%w: it ended %d times in a row before it was ready: %s", ErrStart, times, o.exit)
	}

	if o.lines == "" {
		return fmt.Errorf("%w; it printed nothing into its log, %s", err, logFile)
	}

	return fmt.Errorf("%w; its log, %s, ends with:\n%s", err, logFile, o.lines)
}

// runOnce starts the server and waits for its end. It ends the server when ctx ends or Restart
// is called.
func (p *Process) runOnce(ctx context.Context) outcome {
	log, err := openLog(p.cfg.LogFile, p.cfg.Command, p.tuning.maxLogBytes)
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

	waiting, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	beside.Go(func() { p.awaitReady(waiting, log, begun) })
	beside.Go(func() { p.boundLog(waiting, log) })

	var end outcome
	grace, killWait := time.Duration(0), p.tuning.killWait
	select {
	case <-s.exited:
		end.exit = s.exitStatus()
	case reason := <-p.restart:
		end.restarted, end.exit = true, "killed: "+reason
	case <-ctx.Done():
		grace, killWait = p.endTimes()
	}

	stop()
	beside.Wait()

	if status := p.Status(); status.Phase == Ready {
		end.ready, end.readyFor = true, time.Since(status.Since)
	}

	if ctx.Err() == nil { // at once, and not when the group is gone, so that it gets no more requests
		p.updateStatus(func(s *Status) { s.Phase, s.LastExit = Waiting, end.exit })
	}

	if !s.terminate(grace, killWait) {
		p.cfg.Log.Warn().Int("pid", s.group).Msg("killed the model server; some of its processes are still there")
	}

	if ctx.Err() != nil && end.exit == "" {
		end.exit = s.exitStatus()
		p.updateStatus(func(s *Status) { s.LastExit = end.exit })
	}

	end.lines = log.tailLines()

	return end
}

// awaitReady reads the log of the server that was started at begun, until the server is ready
// or ctx ends.
func (p *Process) awaitReady(ctx context.Context, log *logFile, begun time.Time) {
	var memory memoryReader
	var load loadReader
	for every := p.tuning.poll; ; {
		err := p.checkReady(ctx)
		read := time.Since(begun)
		log.readNewLines(func(line []byte) {
			memory.parseLine(line)
			load.parseLine(line, read)
		})
		p.updateStatus(func(s *Status) { s.Memory, s.Load = memory.Memory, load.load() })

		if err == nil {
			took := time.Since(begun)
			p.updateStatus(func(s *Status) { s.Phase, s.LoadTime = Ready, took })
			p.cfg.Log.Info().Dur("load_ms", took).Msg("the model server is ready")
			return
		}

		if time.Since(begun) > p.tuning.freshTime {
			every = p.tuning.pollLater
		}

		select {
		case <-time.After(every):
		case <-ctx.Done():
			return
		}
	}
}

// boundLog puts the log aside whenever it is full, until ctx ends.
func (p *Process) boundLog(ctx context.Context, log *logFile) {
	tick := time.NewTicker(p.tuning.logPoll)
	defer tick.Stop()

	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}

		if err := log.putAside(p.tuning.maxLogBytes); err != nil {
			p.cfg.Log.Warn().Err(err).Str("log", p.cfg.LogFile).Msg("cannot put the full log of the model server aside")
		}
	}
}

// checkReady returns nil if the server answers requests now.
func (p *Process) checkReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.tuning.readyWait)
	defer cancel()
	return p.cfg.Ready(ctx)
}

// Status returns the current status. It may be called at any time.
func (p *Process) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// Changed returns a channel that is closed when the phase changes next. Call it before Status,
// so as to miss no change.
func (p *Process) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// updateStatus changes the status, and wakes the goroutines that wait for a change of phase.
func (p *Process) updateStatus(change func(*Status)) {
	p.mu.Lock()
	defer p.mu.Unlock()

	before := p.status.Phase
	change(&p.status)
	if p.status.Phase != before {
		p.status.Since = time.Now()
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

// recordStart records that the server is started. A restart that was requested earlier meant
// the start before.
func (p *Process) recordStart() {
	p.updateStatus(func(s *Status) {
		select {
		case <-p.restart:
		default:
		}
		s.Phase, s.Starts = Loading, s.Starts+1
		s.LoadTime, s.Load, s.Memory = 0, Load{}, Memory{}
	})
}

// recordStartFailure records that the server could not be started.
func (p *Process) recordStartFailure(err error) outcome {
	p.updateStatus(func(s *Status) { s.Phase, s.LastExit = Waiting, err.Error() })
	return outcome{exit: err.Error()}
}
