package quality

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"go.uber.org/goleak"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// input has the requests of the fixtures.
type input struct{}

// Requests implements [collector.Input].
func (input) Requests(_ context.Context, wanted *roaring.Bitmap) iter.Seq2[proto.Request, error] {
	return func(yield func(proto.Request, error) bool) {
		for it := wanted.Iterator(); it.HasNext(); {
			if !yield(fixture.Request(it.Next()), nil) {
				return
			}
		}
	}
}

// result changes the result of a request; nil: the request has not run when the run is cancelled.
type result func(*proto.Result)

// chat is the answer of a chat model.
func chat(text string) result {
	return func(r *proto.Result) {
		r.Body = fmt.Appendf(nil, `{"choices":[{"message":{"content":%s},"finish_reason":"stop"}]}`, jsonscan.Quote(text))
	}
}

// after is a result after failed attempts.
func after(res result, reasons ...string) result {
	return func(r *proto.Result) {
		res(r)
		r.Attempts, r.Reasons = 1+len(reasons), reasons
	}
}

// mismatch is an answer that does not match the schema.
func mismatch(text string) result {
	return func(r *proto.Result) {
		after(chat(text), proto.CodeSchemaMismatch)(r)
		r.Err = &proto.ResultError{Code: proto.CodeSchemaMismatch, Message: "missing properties"}
	}
}

// endRun has a real collector write the output of a run with these results, in another order than that of the
// requests. It returns the configuration that judges it.
func endRun(t *testing.T, results []result, change ...func(*proto.Manifest)) Config {
	t.Helper()

	r := testrun.New(t, len(results), 16<<20, change...)
	out := output.Prefix(filepath.Join(t.TempDir(), "out"))
	j, err := journal.Create(out.Journal(), r.Manifest)
	fixture.Must(t, err)
	defer j.Close()

	isCancelled := false
	for i := len(results) - 1; i >= 0; i-- {
		if results[i] == nil {
			isCancelled = true
			continue
		}

		line := fixture.ResultLine(uint32(i), results[i])
		r.PublishMsg(proto.EncodeResults("r", fmt.Sprintf("%d-0", i/8), []uint32{uint32(i)}, line))
	}

	if isCancelled {
		fixture.Must(t, r.Bus.Runs.Cancel(t.Context(), "r"))
	}

	c, err := collector.New(collector.Config{
		JS:      r.JS,
		Journal: j,
		Output:  out,
		Input:   input{},
		Limits:  r.Limits,
	})
	fixture.Must(t, err)
	fixture.Must(t, c.Run(t.Context()))

	return Config{Output: out, Sample: writeSample(t, len(results)), Verdicts: string(out) + ".verdicts"}
}

// writeSample writes the requests of the fixtures as a sample, and returns its path.
func writeSample(t *testing.T, n int) string {
	t.Helper()

	var text strings.Builder
	for _, index := range fixture.Indexes(uint32(n)) {
		r := fixture.Request(index)
		fmt.Fprintf(&text, `{"custom_id":%s,"method":"POST","url":%q,"body":%s}`+"\n", r.CustomID, r.URL, r.Body)
	}

	path := filepath.Join(t.TempDir(), "sample.jsonl")
	fixture.Must(t, os.WriteFile(path, []byte(text.String()), 0o666))

	return path
}

// writeExpected writes expected answers, texts and nils, and returns the path of their file.
func writeExpected(t *testing.T, answers ...any) string {
	t.Helper()

	var text strings.Builder
	for _, a := range answers {
		line, err := json.Marshal(a)
		fixture.Must(t, err)
		text.Write(append(line, '\n'))
	}

	path := filepath.Join(t.TempDir(), "expected.jsonl")
	fixture.Must(t, os.WriteFile(path, []byte(text.String()), 0o666))

	return path
}

// setSchema gives a run a schema.
func setSchema(m *proto.Manifest) { m.Settings.Schema = json.RawMessage(`{"type":"object"}`) }
