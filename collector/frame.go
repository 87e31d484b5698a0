package collector

import (
	"time"

	"github.com/promptmill/promptmill/collector/journal"
)

// pendingFrame is a frame of the journal that is being filled, with what is to be done when
// it is synced.
type pendingFrame struct {
	journal.Frame

	opened  time.Time     // when its first message came
	found   time.Duration // in which results show work while the run was not collected
	sources []string      // objects that its requests came in
	answers []largeAnswer // objects that its lines came in
}

// largeAnswer are lines that did not fit into their message.
type largeAnswer struct {
	name  string
	bytes int64
}
