package batchapi

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/promptmill/promptmill/proto"
)

// TestModels lists the models of several workers, without patterns and without workers that are not
// ready.
func TestModels(t *testing.T) {
	loading := workerOf("vLLM", 1, "later")
	loading.Ready = false

	f := start(t, func(f *fixture) {
		f.workers = []proto.WorkerInfo{
			workerOf("vLLM", 20, "org/b", "c"),
			workerOf("", 10, "org/b", "a", "gateway/*"),
			{Ready: true},
			loading,
		}
	})

	const want = `{"object":"list","data":[{"id":"a","object":"model","created":10,"owned_by":"unknown"},` +
		`{"id":"c","object":"model","created":20,"owned_by":"vllm"},` +
		`{"id":"org/b","object":"model","created":10,"owned_by":"unknown"}]}`
	if got := strings.TrimSpace(f.get("/v1/models").body); got != want {
		t.Error(got)
	}

	for _, path := range []string{"/v1/models/org/b", "/v1/models/org%2Fb"} {
		if m := decode[modelObject](t, f.get(path)); m.ID != "org/b" {
			t.Errorf("%+v", m)
		}
	}

	f.busErr = nats.ErrTimeout
	f.get("/v1/models").checkError(t, 503, "", "bus_unavailable",
		"The message bus does not answer now: try again in a few seconds.")
}
