package modelserver

import (
	"context"
	"fmt"
	"time"
)

// loadTimeout bounds one reading. A later one is worth more than an old one.
const loadTimeout = 3 * time.Second

// Load is how busy a server is, all its replicas together. The counters start anew
// when the server does.
type Load struct {
	Running      int      // requests that it works on
	Waiting      int      // requests that it has but does not work on yet
	KVUsage      float64  // 0 to 1, the mean of the replicas; -1 unknown
	Preemptions  float64  // counter of requests that lost their KV cache to others; -1 unknown
	Tokens       float64  // counter of generated tokens; -1 unknown
	PromptTokens float64  // counter of prompt tokens; -1 unknown
	Missing      []string // what servers of this flavour tell, and this one does not
}

// Load reads the gauges now, with one request. [Server.Look] must have been called
// before. The error wraps [ErrNoGauges] if the server has none, and then says how to
// get them where that is known, and [ErrUnreachable] if it is away. Any other error,
// such as a server that is too busy to answer in 3 s, leaves it unknown for this time.
func (s *Server) Load(ctx context.Context) (Load, error) {
	known := s.known.Load()
	if known == nil {
		return Load{}, fmt.Errorf("%w: it was not looked at yet", ErrNoGauges)
	}
	limited, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	load, err := known.flavour.load(limited, s)
	switch {
	case err == nil:
		return load, nil
	case limited.Err() != nil: // late is not away: llama.cpp answers when its batch is done
		return Load{}, fmt.Errorf("read the load of %s: %w", s.URL(), limited.Err())
	}
	return Load{}, fmt.Errorf("read the load of %s: %w", s.URL(), err)
}
