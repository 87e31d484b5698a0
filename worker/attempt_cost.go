package worker

import (
	"time"

	"github.com/promptmill/promptmill/proto"
)

// attemptCost is the cost of attempts that reached the model server.
type attemptCost struct {
	attempts int64
	time     time.Duration
	// tokens are those that were generated, as far as the answers report them. Nobody knows those
	// of an answer that did not come: its client has left before the count.
	tokens int64
}

// add adds the cost of an attempt.
func (c *attemptCost) add(other attemptCost) {
	c.attempts += other.attempts
	c.time += other.time
	c.tokens += other.tokens
}

// without returns the cost of all attempts but one.
func (c attemptCost) without(used attemptCost) attemptCost {
	return attemptCost{
		attempts: max(0, c.attempts-used.attempts),
		time:     max(0, c.time-used.time),
		tokens:   max(0, c.tokens-used.tokens),
	}
}

// discarded returns the cost as results report it.
func (c attemptCost) discarded() proto.Discarded {
	return proto.Discarded{Time: c.time, Tokens: c.tokens}
}

// costOf returns the cost of an attempt. One that did not reach the server, or that came while it
// was loading the model, is none: the request has only waited.
func costOf(c classification, took time.Duration) attemptCost {
	if c.verdict == unsent || c.outOfFiles || c.verdict == loading {
		return attemptCost{}
	}
	return attemptCost{attempts: 1, time: took, tokens: c.generated}
}
