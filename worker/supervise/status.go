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

// Status is the state of a server.
type Status struct {
	// Phase is the current phase.
	Phase Phase
	// Since is the beginning of that phase.
	Since time.Time
	// LoadTime is the duration of the last start, from its process to ready; 0 while unknown.
	LoadTime time.Duration
	// Starts is the number of starts of the server.
	Starts int
	// LastExit is the last exit of the server, such as "exit status 1"; empty if it never did.
	LastExit string
	// Load has the parts of LoadTime that the last start has logged.
	Load Load
	// Memory has the sizes that the last start has logged.
	Memory Memory
}
