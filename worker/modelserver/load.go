package modelserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// loadTimeout bounds one reading. A later one is worth more than an old one.
const loadTimeout = 3 * time.Second

// errNotNow is returned for a model that has no gauges because it is not loaded.
var errNotNow = errors.New("the model is not loaded")

// Load is the load of a server, all its replicas together. The counters start again at 0 when
// the server restarts.
type Load struct {
	// Running is the number of requests that the server works on.
	Running int
	// Waiting is the number of requests in the server's queue.
	Waiting int
	// KVUsage is the used part of the KV cache, 0 to 1, the mean of the replicas; -1 unknown.
	KVUsage float64
	// Preemptions is a counter of requests that lost their KV cache to others; -1 unknown.
	Preemptions float64
	// Tokens is a counter of generated tokens; -1 unknown.
	Tokens float64
	// PromptTokens is a counter of prompt tokens; -1 unknown.
	PromptTokens float64
	// Missing are the gauges that servers of this flavour report, and this one does not.
	Missing []string

	// FirstToken and OutputToken count the times to the first token and of each further one, since
	// the server began, as it measures them; nil: it does not, or not truly.
	FirstToken, OutputToken *proto.Histogram

	// Started is the start of the server's process, in seconds of a clock of its host; 0 unknown.
	Started float64
	// Engines are the names of the replicas that this process has.
	Engines string
	// ReplicaEvidence is the sign that the readings come from more than one server, as they do
	// behind a load balancer. Then each reading is one server's. Empty: there is no such sign.
	ReplicaEvidence string
}

// Load reads the gauges now, with one request, after [Server.Probe]. The error wraps
// [ErrNoGauges] if the server has none, with the way to get them if that is known, and
// [ErrUnreachable] if it is away. After any other error, such as of a server that is too busy
// to answer in 3 s, the load is unknown this time.
func (s *Server) Load(ctx context.Context) (Load, error) {
	r := s.recognized.Load()
	if r == nil {
		return Load{}, fmt.Errorf("%w: it was not probed yet", ErrNoGauges)
	}

	limited, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()

	load, err := r.flavour.readLoad(limited, s)
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

// ProbeSlots checks whether a server without gauges is several behind a load balancer, and
// returns the evidence, or "". llama.cpp reports its slots without --metrics, and they bound
// how many requests are sent. It asks only until that is known.
func (s *Server) ProbeSlots(ctx context.Context) (evidence string) {
	r := s.recognized.Load()
	if r == nil || !s.replicas.wantsSlots() {
		return ""
	}

	f, ok := r.flavour.(*llamaCPP)
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

// sampleProcess returns the figures of a reading about its process.
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

// CountAnswer counts an answer of the server and the tokens in its usage. The server's own
// counter is compared with them.
func (s *Server) CountAnswer(tokens int64) {
	s.answeredTokens.Add(tokens)
	s.answeredRequests.Add(1)
}
