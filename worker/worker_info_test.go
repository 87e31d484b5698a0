package worker

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/supervise"
)

// The parts of a load time are announced with the whole, once the server is ready.
func TestAnnouncedModelLoad(t *testing.T) {
	t.Parallel()

	phases := supervise.Load{Download: new(time.Duration(0)), Weights: new(1500 * time.Millisecond)}
	for _, tt := range []struct {
		name   string
		status supervise.Status
		want   *proto.ModelLoad
	}{
		{"loading", supervise.Status{Load: phases}, nil},
		{"ready", supervise.Status{Load: phases, LoadTime: time.Minute},
			&proto.ModelLoad{DownloadSeconds: new(0.0), WeightsSeconds: new(1.5)}},
		{"nothing in the log", supervise.Status{LoadTime: time.Minute}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var info proto.WorkerInfo
			addProcess(&info, tt.status)
			if diff := cmp.Diff(tt.want, info.ModelLoad); diff != "" {
				t.Errorf("load (-want +got):\n%s", diff)
			}
		})
	}
}
