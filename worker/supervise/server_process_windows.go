package supervise

import (
	"os"
	"time"
)

// checkSystem refuses to start a server: without the process groups of Unix, its processes could outlive this one, and
// would keep the GPU's memory.
func checkSystem() error { return ErrSystem }

// serverProcess is one start of the model server: none, here.
type serverProcess struct {
	group  int
	exited chan struct{}
}

func startServer(string, *os.File) (*serverProcess, error) { return nil, ErrSystem }

func (*serverProcess) exitStatus() string { return "" }

func (*serverProcess) terminate(_, _ time.Duration) bool { return true }
