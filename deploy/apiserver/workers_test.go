package apiserver

import (
	"errors"
	"testing"

	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/proto/prototest"
)

// Without a connection, a list of workers fails at once, as one for which a client may ask again.
func TestListWorkersWithoutBus(t *testing.T) {
	t.Parallel()

	_, js := prototest.Server(t)
	link := &busconn.Connection{Conn: js.Conn(), JS: js}
	link.Conn.Close()

	if workers, err := listWorkers(link)(t.Context()); !errors.Is(err, batch.ErrUnavailable) {
		t.Errorf("workers %v, error %v", workers, err)
	}
}
