package supervise

import "time"

// Phase is the state of a server.
type Phase string

// The phases of a server.
const (
	Stopped Phase = "stopped" // not started yet, or never to be started again
	Loading Phase = "loading" // started, not ready
	Ready   Phase = "ready"
	Waiting Phase = "waiting" // ended; it is cleared away, and started again after a pause
)

// isRunning reports whether there is a server.
func (p Phase) isRunning() bool { return p == Loading || p == Ready }

// Status is how a server is doing.
type Status struct {
	// Phase is the current phase.
	Phase Phase
	// Since is when it began.
	Since time.Time
	// LoadTime is how long the last start took, from its process to ready; 0 while unknown.
	LoadTime time.Duration
	// Starts is how often the server was started.
	Starts int
	// LastExit is how the server ended last, such as "exit status 1"; empty if it never did.
	LastExit string
	// Memory is what the last start has logged about its memory.
	Memory Memory
}
