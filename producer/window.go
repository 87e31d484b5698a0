package producer

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// The size of a window: as much memory as a producer may take, so that the window holds many
// requests of each beginning.
const (
	windowRequests = 64 << 10
	windowBytes    = 64 << 20
)

// window holds requests back and returns them in the order of their prompts, so that
// requests that begin alike meet in one shard, and so in the prefix cache of one model
// server. The input alone decides which requests a full window holds, and so the shards that
// are cut from it.
type window struct {
	maxRequests, maxBytes int

	scan     jsonscan.Scanner
	requests []promptedRequest
	bytes    int
}

func newWindow(requests, bytes int) *window {
	return &window{maxRequests: requests, maxBytes: bytes}
}

// promptedRequest is a request with its prompt.
type promptedRequest struct {
	proto.Request
	model  string
	prompt proto.Prompt
}

// add takes a request, whose memory it keeps.
func (w *window) add(r proto.Request, model string) {
	w.requests = append(w.requests, promptedRequest{r, model, proto.FindPrompt(&w.scan, r.Body)})
	w.bytes += len(r.CustomID) + len(r.Body)
}

// isFull reports whether the window is to be emptied before more is added.
func (w *window) isFull() bool { return len(w.requests) >= w.maxRequests || w.bytes >= w.maxBytes }

func (w *window) isEmpty() bool { return len(w.requests) == 0 }

// sorted returns all requests, valid until the window is reset. Texts with the same beginning are
// neighbours in the order of their bytes, however much of it they share.
func (w *window) sorted() []promptedRequest {
	slices.SortStableFunc(w.requests, func(a, b promptedRequest) int {
		return cmp.Or(
			bytes.Compare(a.prompt.Tools, b.prompt.Tools),
			bytes.Compare(a.prompt.Instructions, b.prompt.Instructions),
			bytes.Compare(a.prompt.Text, b.prompt.Text),
		)
	})

	return w.requests
}

// reset empties the window.
func (w *window) reset() {
	clear(w.requests) // the shards hold the memory that is still needed
	w.requests, w.bytes = w.requests[:0], 0
}
