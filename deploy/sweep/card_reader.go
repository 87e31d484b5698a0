package sweep

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/worker/gpu"
)

const (
	// cardTime is the longest wait for the memory of the cards after a server has stopped. The driver frees the
	// memory of a process after the process is gone, in some seconds where it is 80 GB.
	cardTime = time.Minute
	// cardSlack is what the memory in use may have grown by for other reasons: a desktop, another container.
	cardSlack = 512 << 20
)

// cardReader reads the memory of the cards of this host.
type cardReader struct {
	query func(context.Context) ([]gpu.Reading, string, error)
	log   zerolog.Logger
}

// memoryInUse is the memory in use by card, in bytes, as of a moment; nil: unknown.
type memoryInUse map[string]int64

// read reads the memory in use. It is unknown on a host without cards.
func (r cardReader) read(ctx context.Context) memoryInUse {
	cards, _, err := r.query(ctx)
	if err != nil {
		if !errors.Is(err, gpu.ErrNone) && ctx.Err() == nil {
			r.log.Warn().Err(err).Msg("failed to read the memory of the cards; the next server starts without a wait for it")
		}
		return nil
	}

	used := memoryInUse{}
	for _, card := range cards {
		used[fmt.Sprintf("%d %s", card.Index, card.UUID)] = card.MemoryUsedBytes
	}

	return used
}

// awaitFree waits until each card has about as much memory in use as before a server started, at most cardTime.
func (r cardReader) awaitFree(ctx context.Context, before memoryInUse) {
	if len(before) == 0 {
		return
	}

	timeout := time.NewTimer(cardTime)
	defer timeout.Stop()

	for {
		card, more := before.findGrown(r.read(ctx))
		if more == 0 {
			return
		}

		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		case <-timeout.C:
			r.log.Warn().Str("card", card).Int64("bytes", more).Dur("wait_ms", cardTime).
				Msg("the memory of the stopped server is still in use; starting the next one")
			return
		}
	}
}

// findGrown returns a card that has more memory in use now than before, and how much more; 0: there is none.
func (before memoryInUse) findGrown(now memoryInUse) (card string, more int64) {
	for card, used := range now {
		was, known := before[card]
		if known && used > was+cardSlack {
			return card, used - was
		}
	}
	return "", 0
}
