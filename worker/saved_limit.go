package worker

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// saveLimitEvery is the time between two looks at whether the limit found is worth saving.
const saveLimitEvery = 10 * time.Second

// savedLimit begins the search for the concurrency limit where it ended the last time at this
// server, and saves the limit that is found.
type savedLimit struct {
	memory  *limit.Memory // nil: nothing is saved
	limiter *limit.Limiter
	server  *modelserver.Server
	log     zerolog.Logger

	// mu guards the fields below.
	mu sync.Mutex
	// key identifies the server; empty until the server has identified itself.
	key   string
	value int
	// written is true once this process has saved a value, which also records that the server
	// was met.
	written bool
}

// run saves the limit now and then, and once more when ctx ends.
func (s *savedLimit) run(ctx context.Context) {
	tick := time.NewTicker(saveLimitEvery)
	defer tick.Stop()

	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}

		s.saveLimit()
	}
}

// resumeLimit sets the limiter to the limit that was saved for the server, if there is one.
func (s *savedLimit) resumeLimit(info modelserver.Info) {
	if s.memory == nil {
		return
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	key := memoryKey(s.server.URL(), info)
	if key == s.key {
		return
	}

	s.key, s.value, s.written = key, s.memory.Load(key), false
	if s.value > 0 && s.limiter.StartAt(s.value) {
		s.log.Info().Str("server", s.server.URL()).Int("at_once", s.limiter.Limit()).
			Msg("starting with the concurrency that this server took the last time")
	}
}

// memoryKey returns the key by which a server is recognized at the next start.
func memoryKey(url string, info modelserver.Info) string {
	parts := []string{url, info.Flavour}
	for _, m := range info.Models {
		parts = append(parts, m.ID)
	}

	slices.Sort(parts[2:])

	return limit.MemoryKey(parts...)
}

// saveLimit stores the limit that was found, unless it is within 10 % of the one stored already.
func (s *savedLimit) saveLimit() {
	s.mu.Lock()
	defer s.mu.Unlock()

	found := s.limiter.Found()
	same := s.written && found <= s.value+s.value/10 && found >= s.value-s.value/10
	if s.key == "" || found == 0 || same {
		return
	}

	if err := s.memory.Store(s.key, found); err != nil {
		s.log.Debug().Err(err).Msg("failed to save the concurrency limit; the next start searches for it again")
	}

	s.value, s.written = found, true
}
