package main

import (
	"sync"
	"time"

	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// showLoading returns a function that shows the loading time of each model server.
func showLoading(s *terminal.Screen) modelservers.Loading {
	var mu sync.Mutex
	shown := map[string]time.Time{} // by URL

	return func(url, what string, waited time.Duration) {
		mu.Lock()
		defer mu.Unlock()

		last, ok := shown[url]
		if !ok {
			last = time.Now().Add(-waited)
		}

		s.ShowClock(what, waited, &last)
		shown[url] = last
	}
}
