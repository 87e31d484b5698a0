package producer

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// A window is as large as the memory that a producer may take, so that it holds many
// requests of each beginning.
const (
	groupRequests = 64 << 10
	groupBytes    = 64 << 20
)

// window holds requests back and gives them out in the order of their prompts, so that
// those that begin alike meet in one shard, and so in the prefix cache of one model
// server. What it holds when it is full follows from the input alone, and so do the
// shards cut from it.
type window struct {
	mostRequests, mostBytes int

	scan     jsonscan.Scanner
	requests []prompted
	bytes    int
}

func newWindow(requests, bytes int) *window {
	return &window{mostRequests: requests, mostBytes: bytes}
}

// prompted is a request with its prompt.
type prompted struct {
	proto.Request
	model  string
	prompt proto.Prompt
}

// add takes a request, whose memory it keeps.
func (w *window) add(r proto.Request, model string) {
	w.requests = append(w.requests, prompted{r, model, proto.FindPrompt(&w.scan, r.Body)})
	w.bytes += len(r.CustomID) + len(r.Body)
}

// full reports whether the window is to be emptied before more is added.
func (w *window) full() bool { return len(w.requests) >= w.mostRequests || w.bytes >= w.mostBytes }

func (w *window) empty() bool { return len(w.requests) == 0 }

// drain gives out all requests and empties the window. Texts with the same beginning
// are neighbours in the order of their bytes, however much of it they share.
func (w *window) drain(take func(r proto.Request, model string) error) error {
	slices.SortStableFunc(w.requests, func(a, b prompted) int {
		return cmp.Or(
			bytes.Compare(a.prompt.Tools, b.prompt.Tools),
			bytes.Compare(a.prompt.Instructions, b.prompt.Instructions),
			bytes.Compare(a.prompt.Text, b.prompt.Text),
		)
	})

	for _, p := range w.requests {
		if err := take(p.Request, p.model); err != nil {
			return err
		}
	}

	clear(w.requests) // the shards hold what is still needed
	w.requests, w.bytes = w.requests[:0], 0

	return nil
}
