package bus

import (
	"slices"
	"testing"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// A worker that was killed and started again is one; clones that live are several.
func TestDropDead(t *testing.T) {
	t.Parallel()

	at := func(id string, seconds int) proto.WorkerInfo {
		return proto.WorkerInfo{ID: id, Name: "gpu1", Host: "h", Server: "s", ReceivedAt: time.Unix(int64(seconds), 0)}
	}

	other := at("other", 0)
	other.Server = "another"

	for _, tt := range []struct {
		name    string
		workers []proto.WorkerInfo
		want    []string
	}{
		{"killed and started again", []proto.WorkerInfo{at("dead", 0), at("live", 9)}, []string{"live"}},
		{"both live", []proto.WorkerInfo{at("a", 0), at("b", 3)}, []string{"a", "b"}},
		{"at another model server", []proto.WorkerInfo{other, at("b", 9)}, []string{"other", "b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var got []string
			for _, w := range dropDead(tt.workers) {
				got = append(got, w.ID)
			}

			if !slices.Equal(got, tt.want) {
				t.Errorf("%q are there, want %q", got, tt.want)
			}
		})
	}
}
