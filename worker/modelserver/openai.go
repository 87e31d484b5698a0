package modelserver

import (
	"context"
	"slices"
	"sync"
)

// openAI is a server of which only the common interface is known. Ollama builds on it.
type openAI struct{}

func (openAI) name() string                                    { return "OpenAI-compatible" }
func (openAI) describe(context.Context, *Server, *Info) error  { return nil }
func (openAI) readLoad(context.Context, *Server) (Load, error) { return Load{}, ErrNoGauges }

// swapTracker is a part of servers that unload a model to load another, and do not tell how many
// they can have at once.
type swapTracker struct {
	mu     sync.Mutex
	most   int      // that were seen at once
	loaded []string // as last looked
}

// observeLoaded is how many models the server can have loaded, at least 1, as far as was seen; 0 of a
// server that has no others. One that went while another came had to make room: then it is as
// many as there are now, whatever there was of smaller ones. Each look asks it.
func (s *swapTracker) observeLoaded(info *Info) int {
	s.mu.Lock()
	defer s.mu.Unlock()

	went := slices.ContainsFunc(s.loaded, func(id string) bool { return !slices.Contains(info.Loaded, id) })
	came := slices.ContainsFunc(info.Loaded, func(id string) bool { return !slices.Contains(s.loaded, id) })
	if n := len(info.Loaded); n > s.most || went && came {
		s.most = n
	}

	s.loaded = slices.Clone(info.Loaded)

	return info.capLoaded(max(1, s.most))
}

// capLoaded is a number of models, if it is one and the server has more, or else 0.
func (i *Info) capLoaded(most int) int {
	all := 0
	for _, m := range i.Models {
		if m.AliasOf == "" {
			all++
		}
	}

	if 0 < most && most < all {
		return most
	}

	return 0
}

// CountsTokensAtEnd reports whether the server's counter of tokens moves only when a request ends, so
// that a counter that stands still is no sign of a server that does.
func (s *Server) CountsTokensAtEnd() bool {
	known := s.recognized.Load()
	return known != nil && known.countsAtEnd
}
