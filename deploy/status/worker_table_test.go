package status

import (
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
		{proto.WorkerInfo{Problem: "loading"}, "waiting for its model server", "waiting"},
	} {
		w := Worker{WorkerInfo: tt.worker}
		if state, brief := formatWorkerState(w), formatBriefState(w); state != tt.state || brief != tt.brief {
			t.Errorf("ready %t, %q: it is %q, in brief %q", w.Ready, w.Problem, state, brief)
		}
	}
}
