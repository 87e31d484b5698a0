package verify

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
)

// An input may name more models than a run can have, and each keeps its index.
func TestManyModels(t *testing.T) {
	t.Parallel()

	v, err := newVerifier(Config{Output: "out"})
	if err != nil {
		t.Fatal(err)
	}

	for range 2 {
		for i := range 1000 {
			name := fmt.Sprintf("m%d", i)
			if got := v.names[v.modelIndex(name)]; got != name {
				t.Fatalf("model %s counts as %s", name, got)
			}
		}
	}
}

// A response that was swapped between two lines after the run is found by its id, unless the model
// server chose the id.
func TestSwappedResponse(t *testing.T) {
	t.Parallel()

	line := func(seq int, custom, requestID string) string {
		return fmt.Sprintf(`{"id":"batch_req_r_%d","custom_id":"%s","response":{"status_code":200,"request_id":%q,"body":{}},"error":null}`+
			"\n",
			seq, custom, requestID)
	}
	for _, tt := range []struct {
		name    string
		lines   string
		swapped int
	}{
		{"as it was written", line(0, "a", "req_r_0") + line(1, "b", "req_r_1"), 0},
		{"swapped", line(0, "a", "req_r_1") + line(1, "b", "req_r_0"), 2},
		{"one is there twice", line(0, "a", "req_r_1") + line(1, "b", "req_r_1"), 1},
		{"the server's names", line(0, "a", "req_011CRx") + line(1, "b", "chatcmpl-1"), 0},
		{"names of another run", line(0, "a", "req_other_1") + line(1, "b", "req_r_1"), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			dir := t.TempDir()
			in, out := filepath.Join(dir, "in.jsonl"), output.Prefix(filepath.Join(dir, "out"))
			must(t, os.WriteFile(in, []byte(`{"custom_id":"a","prompt":"1"}`+"\n"+
				`{"custom_id":"b","prompt":"2"}`+"\n"), 0o644))
			must(t, os.WriteFile(out.Results(), []byte(tt.lines), 0o644))
			p, err := Run(t.Context(), Config{Inputs: []string{in}, Output: out})
			must(t, err)
			if p.Swapped != tt.swapped || p.Complete != (tt.swapped == 0) || (p.Err() == nil) != (tt.swapped == 0) ||
				len(p.Examples) != tt.swapped {
				t.Errorf("%+v, %v; want %d swapped", p, p.Err(), tt.swapped)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The journal of a run that is not finished is named, and so is the run.
func TestUnfinishedRun(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.jsonl"), output.Prefix(filepath.Join(dir, "out"))
	must(t, os.WriteFile(in, []byte(`{"custom_id":"a","prompt":"1"}`+"\n"), 0o644))

	j, err := journal.Create(out.Journal(), proto.Manifest{Schema: proto.ManifestSchema, Run: "night-3"})
	must(t, err)
	must(t, j.Close())

	p, err := Run(t.Context(), Config{Inputs: []string{in}, Output: out})
	must(t, err)

	var text strings.Builder
	p.Print(&text)
	if want := "these lines are in the journal of the run, " + out.Journal(); !strings.Contains(text.String(), want) {
		t.Errorf("printed %q, want %q", text.String(), want)
	}

	if err, want := p.Err(), "the run night-3 is not finished: 1 request has no line"; err == nil || err.Error() != want ||
		exit.Hint(err) != "let it end, or run the same command again to continue it" {
		t.Errorf("%v (hint %q), want %s", err, exit.Hint(err), want)
	}
}
