package batchapi

import (
	"context"
	"net/http"
	"time"
)

const (
	// maxLarge is the most bodies with requests of more than maxJSON bytes that are read at once. A request
	// is in memory as a whole, of up to 64 MiB, in a buffer that doubles as it grows.
	maxLarge = 2
	// largeTime is the longest time for which such a body waits for the others.
	largeTime = 30 * time.Second
)

// largeTurn is the turn of a body to have large requests.
type largeTurn struct{ room chan struct{} }

// begin waits for room, and returns the error 503 if there is none in time.
func (t *largeTurn) begin(ctx context.Context, room chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, largeTime)
	defer cancel()

	select {
	case room <- struct{}{}:
		t.room = room
		return nil
	case <-ctx.Done():
		return newFailure(http.StatusServiceUnavailable, "requests", "",
			"The server is busy with other large requests: try again in a few seconds, or send the requests as a file.").
			with("Retry-After", "5")
	}
}

// end makes room for others.
func (t *largeTurn) end() {
	if t.room != nil {
		<-t.room
	}
}
