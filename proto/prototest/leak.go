package prototest

import (
	"testing"

	"go.uber.org/goleak"
)

// Main runs a package's tests and fails if a goroutine outlives them.
//
// One is let be: nats.go's object store makes a publisher for each object, whose
// goroutine looks for the channel that ends it only once it is scheduled. If the object
// is stored by then, the channel is gone, and the goroutine waits for ever
// (jetstream/publish.go resetPendingAcksOnReconnect, object.go Put; v1.55.0).
func Main(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction(
		"github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect",
	))
}
