package supervise

import "time"

// Load has the times that the phases of a start took, as far as the server's log says; nil: unknown.
// Where several processes of the server report one phase, it is the longest. The rest of
// [Status.LoadTime] is what the log does not time: imports, the choice of kernels, the API.
type Load struct {
	// Download is the time for the weights to come onto the disk; 0: they were there.
	Download *time.Duration
	// Weights is the time for them to come from the disk onto the GPUs.
	Weights *time.Duration
	// Compile is the time of torch.compile, also for its cache to be read.
	Compile *time.Duration
	// Graphs is the time to capture CUDA graphs.
	Graphs *time.Duration
	// WarmUp is the time of the first runs, with those that measure how much memory is left, and for
	// the KV cache to be created.
	WarmUp *time.Duration
}
