package collector

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

// foreignLine is the line of a request with something that is another's.
func foreignLine(index uint32, own, foreign string) []byte {
	return bytes.Replace(fixture.Line(index, 0), []byte(own), []byte(foreign), 1)
}

// A line that answers another request than the one with its number does not complete that
// request, whichever part of it is the other's. It is run again, and the rest is kept.
func TestForeignLinesAreRunAgain(t *testing.T) {
	t.Parallel()

	hash := proto.FormatHash(fixture.Request(4).Hash())
	for _, tt := range []struct {
		name string
		line []byte // of request 4
	}{
		{"the answer to another text", foreignLine(4, hash, proto.FormatHash(fixture.Request(5).Hash()))},
		{"another custom_id", foreignLine(4, `"custom_id":"c-4"`, `"custom_id":"c-5"`)},
		{"both of another request", bytes.Replace(foreignLine(4, hash, proto.FormatHash(fixture.Request(5).Hash())),
			[]byte(`:"c-4"`), []byte(`:"c-5"`), 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 9, 16<<20)
			b.Update(func(m *proto.Manifest) { m.Publish.Done = true })
			b.Publish("0-0", 0, 1, 2, 3)
			b.PublishMsg(proto.EncodeResults("r", "0-1", []uint32{4}, tt.line))
			b.Publish("0-2", 5, 6, 7, 8)

			c := b.start()
			prototest.Poll(t, testrun.Patience, "a round for the request", func() bool {
				m, err := b.Bus.Runs.Get(t.Context(), "r")
				return err == nil && m.Publish.Round == 1
			})

			b.Update(func(m *proto.Manifest) { m.Publish.Done = true })
			b.Publish("1-0", 4)
			meta := b.waitCompleted(c)

			if got := fixture.Unpack(t, b.out.Results()); strings.Count(got, string(fixture.Line(4, 0))) != 1 {
				t.Errorf("the output lacks the line of request 4:\n%s", got)
			}

			if meta.Results.SuccessCount+meta.Results.FailureCount != 9 || meta.Results.FailureCount != 3 {
				t.Errorf("%d answered, %d failed; want 6 and 3", meta.Results.SuccessCount, meta.Results.FailureCount)
			}
		})
	}
}

// A line without a hash answers no request.
func TestLineWithoutHash(t *testing.T) {
	t.Parallel()

	b := newBench(t, 2, 16<<20)
	b.PublishMsg(proto.EncodeResults("r", "0-0", []uint32{0}, foreignLine(0, `"request_hash":`, `"hash":`)))
	b.Publish("0-1", 1)
	c := b.start()
	c.waitDurable(1)
	b.Publish("0-2", 0)
	b.waitCompleted(c)
}

// otherInput is an input with other requests than those that were validated.
type otherInput struct{}

func (otherInput) Requests(context.Context, *roaring.Bitmap) iter.Seq2[proto.Request, error] {
	return func(yield func(proto.Request, error) bool) {
		yield(proto.Request{CustomID: []byte(`"c-0"`), URL: "/v1/completions", Body: []byte(`{}`)}, nil)
	}
}

// Without the original input the wrong lines cannot be found. Nothing final is written.
func TestForeignLinesOfAChangedInput(t *testing.T) {
	t.Parallel()

	b := newBench(t, 1, 16<<20)
	b.PublishMsg(proto.EncodeResults("r", "0-0", []uint32{0}, foreignLine(0, `"c-0"`, `"c-1"`)))

	c := b.start(func(cfg *Config) { cfg.Input = otherInput{} })
	if err := c.wait(); !errors.Is(err, proto.ErrInputChanged) {
		t.Errorf("Run: %v, want ErrInputChanged", err)
	}

	fixture.CheckAbsent(t, b.out.Results())
	fixture.CheckAbsent(t, b.out.Meta())
}
