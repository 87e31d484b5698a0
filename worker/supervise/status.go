package supervise

import (
	"sync"
	"time"
)

// Process is a model server that is kept running.
type Process struct {
	cfg Config
	tuning
	restart chan string

	mu      sync.Mutex
	status  Status
	changed chan struct{} // closed at the next change of phase
}

// Phase is what a server is at.
type Phase string

// The phases of a server.
const (
	Stopped Phase = "stopped" // not started yet, or never to be started again
	Loading Phase = "loading" // started, not ready
	Ready   Phase = "ready"
	Waiting Phase = "waiting" // ended; it is cleared away, and started again after a pause
)

func (p Phase) isRunning() bool { return p == Loading || p == Ready }

// Status is how a server is doing.
type Status struct {
	Phase    Phase
	Since    time.Time     // of this phase
	LoadTime time.Duration // of the last start: from its process to ready; 0 while unknown
	Starts   int           // of its process
	LastExit string        // how it ended last, such as "exit status 1"; empty if it never did
	Memory   Memory        // as the last start told
}

// Status tells how the server is doing. It may be called at any time.
func (p *Process) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// Changed returns a channel that is closed when the phase changes next. Ask for it
// before the status, so as to miss no change.
func (p *Process) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// updateStatus changes the status.
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

// recordStart notes that the process is started. A restart asked for before meant the one
// before.
func (p *Process) recordStart() {
	p.updateStatus(func(s *Status) {
		select {
		case <-p.restart:
		default:
		}
		s.Phase, s.Starts, s.LoadTime, s.Memory = Loading, s.Starts+1, 0, Memory{}
	})
}
