package worker

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

func TestParseGPUs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       []proto.GPU
		bad        bool
	}{
		{name: "two", text: "NVIDIA H200, 143771\nNVIDIA GeForce RTX 4080, 16376\n", want: []proto.GPU{
			{Name: "NVIDIA H200", MemoryBytes: 143771 << 20}, {Name: "NVIDIA GeForce RTX 4080", MemoryBytes: 16376 << 20},
		}},
		{name: "memory of the machine", text: "NVIDIA GB10, [N/A]\n", want: []proto.GPU{{Name: "NVIDIA GB10"}}},
		{name: "none", text: ""},
		{name: "a message instead", text: "No devices were found\n", bad: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseGPUs(tt.text)
			if (err != nil) != tt.bad {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("GPUs (-want +got):\n%s", diff)
			}
		})
	}
}
