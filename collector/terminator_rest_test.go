package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/proto"
)

// longInput gives requests custom_ids of this many letters.
type longInput int

func (n longInput) Requests(_ context.Context, wanted *roaring.Bitmap) iter.Seq2[proto.Request, error] {
	return func(yield func(proto.Request, error) bool) {
		for it := wanted.Iterator(); it.HasNext(); {
			index := it.Next()
			id := fmt.Appendf(nil, `"%0*d"`, int(n), index)
			if !yield(proto.Request{Index: index, CustomID: id}, nil) {
				return
			}
		}
	}
}

// errorLine has the fields of a failed request's line.
type errorLine struct {
	ID       string `json:"id"`
	CustomID string `json:"custom_id"`
	Response *struct {
		Status int `json:"status_code"`
	} `json:"response"`
	Error *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
	Extras struct {
		Index    uint32 `json:"index"`
		Attempts int    `json:"attempts"`
	} `json:"promptmill"`
}

// errorLines are the lines of the requests that failed, by number.
func (b *bench) errorLines() map[uint32]errorLine {
	b.T.Helper()

	lines := map[uint32]errorLine{}
	for text := range strings.Lines(fixture.Unpack(b.T, b.out.Errors())) {
		var line errorLine
		fixture.Must(b.T, json.Unmarshal([]byte(text), &line))
		lines[line.Extras.Index] = line
	}

	return lines
}

// checkNotRun checks that those requests that want is true for were not run, for a
// reason with a code, and no others.
func (b *bench) checkNotRun(code string, want func(index uint32) bool) {
	b.T.Helper()

	lines := b.errorLines()
	for index := range uint32(b.Manifest.Input.Requests) {
		line, failed := lines[index]
		if failed != (want(index) || fixture.Failed(index)) {
			b.T.Errorf("request %d is among the failed: %v", index, failed)
			continue
		}

		notRun := failed && line.Response == nil
		if notRun != want(index) {
			b.T.Errorf("request %d was not run: %v, want %v", index, notRun, want(index))
		}

		if notRun && (line.Error == nil || line.Error.Code != code || line.Error.Message == "" ||
			line.Extras.Attempts != 0) {
			b.T.Errorf("request %d has the line %+v, want one with the code %s", index, line, code)
		}
	}
}

// fillWork stores shards that no worker takes.
func (b *bench) fillWork() {
	b.T.Helper()
	for _, shard := range []string{"0-0", "0-1", "0-2"} {
		if _, err := b.JS.Publish(b.T.Context(), proto.WorkSubject("r", "m", shard), []byte("shard")); err != nil {
			b.T.Fatal(err)
		}
	}
}

// noWork returns an error if there are shards for workers.
func (b *bench) noWork() error {
	s, err := b.JS.Stream(b.T.Context(), proto.WorkStream("r"))
	if err == nil && s.CachedInfo().State.Msgs > 0 {
		err = errors.New("shards are left to workers")
	}
	return err
}
