package status

import (
	"bytes"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/proto"
)

// A worker whose server fails all requests is no ready one, though it is sent requests.
func TestFormatWorkerState(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		worker       proto.WorkerInfo
		state, brief string
	}{
		{proto.WorkerInfo{Ready: true}, "ready", "ready"},
		{proto.WorkerInfo{Ready: true, Problem: "the model server answers no request"}, "has a problem", "problem"},
		{proto.WorkerInfo{Ready: true, Departure: &proto.Departure{}}, "leaving", "leaving"},
		{proto.WorkerInfo{Problem: "loading"}, "waiting for its model server", "waiting"},
	} {
		w := Worker{WorkerInfo: tt.worker}
		if state, brief := formatWorkerState(w), formatBriefState(w); state != tt.state || brief != tt.brief {
			t.Errorf("ready %t, %q: it is %q, in brief %q", w.Ready, w.Problem, state, brief)
		}
	}
}

// The engines have a column where a server has several.
func TestPrintWorkersOfSeveralEngines(t *testing.T) {
	t.Parallel()

	several := Worker{WorkerInfo: proto.WorkerInfo{Name: "several", Engines: 8}}
	one := Worker{WorkerInfo: proto.WorkerInfo{Name: "one", Engines: 1}}
	unknown := Worker{WorkerInfo: proto.WorkerInfo{Name: "unknown"}}

	var out bytes.Buffer
	if err := PrintWorkers(&out, []Worker{several, one, unknown}, 0); err != nil {
		t.Fatal(err)
	}

	var ends []string
	for line := range strings.Lines(out.String()) {
		fields := strings.Fields(line)
		ends = append(ends, fields[len(fields)-1])
	}
	if got := strings.Join(ends, " "); got != "ENGINES 8 1 -" {
		t.Errorf("the last column has %s:\n%s", got, &out)
	}

	out.Reset()
	if err := PrintWorkers(&out, []Worker{one, unknown}, 0); err != nil || strings.Contains(out.String(), "ENGINES") {
		t.Errorf("no server has several engines: %v\n%s", err, &out)
	}
}
