package modelserver

import (
	"slices"
	"sync"
)

// swapTracker is a part of flavours that unload a model to load another, and do not report how
// many they can have loaded at once.
type swapTracker struct {
	mu     sync.Mutex
	most   int      // models that were seen loaded at once
	loaded []string // at the last probe
}

// observeLoaded returns how many models the server can have loaded, at least 1, as far as was
// seen; 0 for a server that has no others. A model that went while another came had to make
// room: then it is as many as there are now, whatever there was of smaller ones. Each probe
// calls it.
func (t *swapTracker) observeLoaded(info *Info) int {
	t.mu.Lock()
	defer t.mu.Unlock()

	went := slices.ContainsFunc(t.loaded, func(id string) bool { return !slices.Contains(info.Loaded, id) })
	came := slices.ContainsFunc(info.Loaded, func(id string) bool { return !slices.Contains(t.loaded, id) })
	if n := len(info.Loaded); n > t.most || went && came {
		t.most = n
	}

	t.loaded = slices.Clone(info.Loaded)

	return info.capLoaded(max(1, t.most))
}
