package collector

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

// The collector's consumer lives on one server, and is gone when that is.
func TestSourceLosesItsConsumer(t *testing.T) {
	t.Parallel()

	b := newBench(t, 8, 16<<20)
	b.Publish("0-0", 0, 1, 2)
	c := b.start()
	c.waitDurable(3)
	fixture.Must(t, b.JS.DeleteConsumer(t.Context(), proto.ResultsStream("r"), proto.CollectorConsumer))
	b.Publish("0-1", 3, 4)
	b.Publish("0-1", 5)
	c.waitDurable(6)
	b.Publish("0-1", 6, 7)
	if meta := b.waitCompleted(c); meta.Results.DuplicatesDropped != 0 {
		t.Errorf("%d messages were read twice", meta.Results.DuplicatesDropped)
	}
}

// For the server, messages that it sent into a broken connection are delivered.
// If nothing comes behind that, there is no gap to be seen.
func TestSourceMissesTheLast(t *testing.T) {
	t.Parallel()

	b := newBench(t, 200, 16<<20)
	c := b.start()
	var consumer jetstream.Consumer
	prototest.Poll(t, testrun.Patience, "the collector's consumer", func() (ok bool) {
		var err error
		consumer, err = b.JS.Consumer(t.Context(), proto.ResultsStream("r"), proto.CollectorConsumer)
		return err == nil
	})

	// Another client that pulls from the consumer takes a message away from the collector.
	thief, err := consumer.Fetch(1, jetstream.FetchMaxWait(testrun.Patience))
	fixture.Must(t, err)

	sent := 0
	for stolen := false; !stolen; {
		b.Publish("0-0", uint32(sent))
		sent++
		prototest.Poll(t, testrun.Patience, "the message", func() bool {
			select {
			case <-thief.Messages():
				stolen = true
			default:
			}
			return stolen || c.Progress().Received.Done == sent
		})
	}

	c.waitDurable(sent)
}
