package modelserver

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// loadTimeout bounds one reading. A later one is worth more than an old one.
const loadTimeout = 3 * time.Second

// errNotNow is returned for a model whose gauges are not there because it is not loaded.
var errNotNow = errors.New("the model is not loaded")

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

	Started float64 // when its process did, in seconds of a clock of its host; 0 unknown
	Engines string  // the names of the replicas that this process has
	// ReplicaEvidence says why the readings come from more than one server, as they do behind a
	// load balancer. Then each is of one of them. Empty: nothing says so.
	ReplicaEvidence string
}

// Load reads the gauges now, with one request. [Server.Probe] must have been called
// before. The error wraps [ErrNoGauges] if the server has none, and then says how to
// get them where that is known, and [ErrUnreachable] if it is away. Any other error,
// such as a server that is too busy to answer in 3 s, leaves it unknown for this time.
func (s *Server) Load(ctx context.Context) (Load, error) {
	known := s.recognized.Load()
	if known == nil {
		return Load{}, fmt.Errorf("%w: it was not looked at yet", ErrNoGauges)
	}

	limited, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()

	load, err := known.flavour.readLoad(limited, s)
	switch {
	case err == nil:
		load.ReplicaEvidence = s.replicas.observe(s.sampleProcess(load))
		return load, nil
	case limited.Err() != nil: // late is not away: llama.cpp answers when its batch is done
		return Load{}, fmt.Errorf("read the load of %s: %w", s.URL(), limited.Err())
	case errors.Is(err, ErrUnreachable):
		s.replicas.forgetProcess()
	}

	return Load{}, fmt.Errorf("read the load of %s: %w", s.URL(), err)
}

// ProbeSlots finds out whether the server is several ones behind a load balancer where it has
// no gauges, and returns why it is, or "". llama.cpp tells its slots without --metrics, and
// bounds by them how many requests are sent. It asks only until that is known.
func (s *Server) ProbeSlots(ctx context.Context) (several string) {
	known := s.recognized.Load()
	if known == nil || !s.replicas.wantsSlots() {
		return ""
	}

	f, ok := known.flavour.(*llamaCPP)
	if !ok {
		return ""
	}

	limited, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()

	g := s.sampleProcess(Load{})
	busy, all, err := f.countSlots(limited, s)
	switch {
	case err == nil:
		return s.replicas.observeSlots(g, busy, all)
	case limited.Err() == nil && !errors.Is(err, ErrUnreachable): // it was started with --no-slots
		s.replicas.skipSlots()
	}

	return ""
}

// sampleProcess is what a reading says of the process that it comes from.
func (s *Server) sampleProcess(l Load) processSample {
	return processSample{
		at:       time.Now(),
		started:  l.Started,
		engines:  l.Engines,
		counters: [3]float64{l.Tokens, l.PromptTokens, l.Preemptions},
		answered: s.answeredTokens.Load(),
		answers:  s.answeredRequests.Load(),
		inFlight: s.inFlight.Load(),
	}
}

// Replicated reports whether the readings come from more than one server.
func (s *Server) Replicated() bool { return s.replicas.isReplicated() }

// CountAnswer notes an answer of the server and the tokens that it says it has, which the
// server's own counter is compared with.
func (s *Server) CountAnswer(tokens int64) {
	s.answeredTokens.Add(tokens)
	s.answeredRequests.Add(1)
}
