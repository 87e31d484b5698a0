package trial

import (
	"testing"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// A variant that was ended early has no failures for the requests that it did not run.
func TestSuccessOfWhatWasTried(t *testing.T) {
	t.Parallel()

	run := &metadata.Run{Manifest: &proto.Manifest{}}
	run.Results.SuccessCount, run.Results.FailureCount = 973, 19_027
	run.Results.NotSentCount = 19_017

	row := measureVariant(Variant{Run: run}, Options{})
	if row.Requests != 983 || row.Success.Count != 973 || row.Success.Of != 983 {
		t.Errorf("%d requests, success %+v; want 973 of 983", row.Requests, row.Success)
	}
}
