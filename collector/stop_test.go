package collector

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/proto/prototest"
)

// deafServer takes all messages, and answers none once it is deaf.
type deafServer struct {
	*server.Server
	deaf *atomic.Bool
}

func (s deafServer) InProcessConn() (net.Conn, error) {
	c, err := s.Server.InProcessConn()
	return deafConn{c, s.deaf}, err
}

type deafConn struct {
	net.Conn
	deaf *atomic.Bool
}

func (c deafConn) Write(p []byte) (int, error) {
	if c.deaf.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// A collector that is stopped ends soon, though the bus owes it an answer: one whose disk is
// full does not answer for as long as it is asked.
func TestStopWhileTheBusDoesNotAnswer(t *testing.T) {
	t.Parallel()

	b := newBench(t, 2, 16<<20)
	var deaf atomic.Bool
	nc, err := nats.Connect("", nats.InProcessServer(deafServer{b.Server, &deaf}))
	fixture.Must(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	fixture.Must(t, err)
	b.Publish("0-0", 0)
	c := b.start(func(cfg *Config) { cfg.JS = js })
	c.waitDurable(1)

	deaf.Store(true)
	prototest.Poll(t, testrun.Patience, "a question without an answer", func() bool {
		c.activity.mu.Lock()
		defer c.activity.mu.Unlock()

		return c.activity.isOverdue(time.Now())
	})

	c.cut()
	select {
	case <-c.ended:
	case <-time.After(8 * time.Second): // the question has 10 s and more
		t.Error("it has not ended")
	}
}
