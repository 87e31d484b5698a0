package sim

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// errEvicted means that the model of a running request was unloaded for another one.
	errEvicted = errors.New("the model was unloaded")
	// errNoConnection means that this happened before the request ran.
	errNoConnection = errors.New("the model was unloaded before the request began")
)

// modelPool holds the loaded models of a server that cannot have all of its models loaded at once.
type modelPool struct {
	most     int           // models
	loadTime time.Duration // time that loading a model takes
	// evicts is set if a model is unloaded though it has requests, which then fail (llama.cpp's
	// router until August 2026). If not, a request for another model waits for these, and all
	// requests behind it (Ollama's server/sched.go, processPending).
	evicts bool
	turn   chan struct{} // holds one element while no request waits for room

	swaps atomic.Int64 // models loaded

	mu      sync.Mutex
	loaded  []*loadedModel // the one used last is at the end
	changed chan struct{}  // closed, and made again, when one has become idle
}

// loadedModel is a model that is loaded, or is being loaded.
type loadedModel struct {
	name  string
	busy  int           // requests
	ready chan struct{} // closed when it is loaded
	gone  chan struct{} // closed when it is unloaded
}

func newModelPool(most int, load time.Duration, evicts bool) *modelPool {
	s := &modelPool{
		most:     most,
		loadTime: load,
		evicts:   evicts,
		turn:     make(chan struct{}, 1),
		changed:  make(chan struct{}),
	}

	s.turn <- struct{}{}

	return s
}

// acquire waits until a model is loaded, and keeps it loaded until release. The error is
// errEvicted, or the context's.
func (s *modelPool) acquire(ctx context.Context, name string) (m *loadedModel, err error) {
	if !s.evicts {
		select {
		case <-s.turn:
			defer func() { s.turn <- struct{}{} }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}

	for {
		m, wait := s.findOrLoad(name)
		if m == nil {
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}

		select {
		case <-m.ready:
			return m, nil
		case <-m.gone:
			s.release(m)
			return nil, errEvicted
		case <-ctx.Done():
			s.release(m)
			return nil, ctx.Err()
		}
	}
}

// findOrLoad returns a model, and loads it if it is not there. If there is no room for it, wait
// is closed when there may be.
func (s *modelPool) findOrLoad(name string) (m *loadedModel, wait <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if i := slices.IndexFunc(s.loaded, func(m *loadedModel) bool { return m.name == name }); i >= 0 {
		m = s.loaded[i]
		s.loaded = append(slices.Delete(s.loaded, i, i+1), m)
		m.busy++
		return m, nil
	}

	if len(s.loaded) == s.most {
		i := slices.IndexFunc(s.loaded, func(m *loadedModel) bool { return s.evicts || m.busy == 0 })
		if i < 0 {
			return nil, s.changed
		}
		close(s.loaded[i].gone)
		s.loaded = slices.Delete(s.loaded, i, i+1)
	}

	m = &loadedModel{
		name:  name,
		busy:  1,
		ready: make(chan struct{}),
		gone:  make(chan struct{}),
	}

	s.loaded = append(s.loaded, m)
	s.swaps.Add(1)
	time.AfterFunc(s.loadTime, func() { close(m.ready) })

	return m, nil
}

// release ends a request of a model.
func (s *modelPool) release(m *loadedModel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.busy--; m.busy == 0 {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// modelState returns "loaded", "loading" or "unloaded".
func (s *modelPool) modelState(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()

	for _, m := range s.loaded {
		if m.name != name {
			continue
		}

		select {
		case <-m.ready:
			return "loaded"
		default:
			return "loading"
		}
	}

	return "unloaded"
}
