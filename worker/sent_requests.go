package worker

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/promptmill/promptmill/proto"
)

const (
	// sentNoteEvery is the time after which a worker notes for others which requests of a shard it
	// has sent to the model server. A shard that is done by then needs no note.
	sentNoteEvery = time.Second
	// maxSentNote is the length of the longest such note. A larger shard whose requests go in
	// another order than that of their indexes has none.
	maxSentNote = 4 << 10
)

// sentRequests are the requests of a shard that were sent to the model server.
type sentRequests struct {
	// mu guards the fields below.
	mu      sync.Mutex
	indexes map[uint32]bool
	noted   int // how many of them were noted
}

// add adds a request.
func (s *sentRequests) add(index uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.indexes == nil {
		s.indexes = map[uint32]bool{}
	}

	s.indexes[index] = true
}

// takeNote returns the note of all requests, or false if there are no more than those of the note
// before.
func (s *sentRequests) takeNote() (proto.DeliveryNote, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if len(s.indexes) == s.noted {
		return proto.DeliveryNote{}, false
	}

	s.noted = len(s.indexes)
	indexes := slices.Sorted(maps.Keys(s.indexes))

	return proto.Sending(indexes), len(proto.FormatIndexes(indexes)) <= maxSentNote
}
