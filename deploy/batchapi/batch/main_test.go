package batch

import (
	"testing"

	"go.uber.org/goleak"
)

// All goroutines of a service have ended when Run returns. Some of others are let be: that of
// the object store of nats.go (see prototest.Main), and those of a stream that the NATS server
// makes while it stops.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}
