package metadata_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/promptmill/promptmill/collector/metadata"
)

// Requests that were never sent are no failures of a model server, whichever version wrote the metadata.
func TestCountsOfWhatWasSent(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		counts, rest          string
		sent, failed, notSent int // sent is 0: refused
	}{
		"cancelled": {
			`"success_count":390,"failure_count":3610,"not_sent_count":3600`, `"manifest":null`, 400, 10, 3600,
		},
		"of an older version": {
			`"success_count":390,"failure_count":3610`, `"manifest":{"counts":{"skipped":3600}}`, 400, 10, 3600,
		},
		"of an older version, without its manifest": {
			`"success_count":390,"failure_count":3610,"failures":{"batch_cancelled":3500,"batch_expired":100}`,
			`"manifest":null`, 400, 10, 3600,
		},
		"of another tool": {`"success_count":390,"failure_count":10`, `"manifest":null`, 400, 10, 0},
		"a manifest with too many": {
			`"success_count":390,"failure_count":10`, `"manifest":{"counts":{"skipped":11}}`, 390, 0, 10,
		},
		"more than have failed": {
			`"success_count":390,"failure_count":10,"not_sent_count":11`, `"manifest":null`, 0, 0, 0,
		},
		"fewer than none": {`"success_count":390,"failure_count":10,"not_sent_count":-1`, `"manifest":null`, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			run, err := metadata.Parse(fmt.Appendf(nil, `{"results":{%s,"inference_time_seconds":200},%s}`,
				tt.counts, tt.rest))
			if tt.sent == 0 {
				if !errors.Is(err, metadata.ErrFormat) {
					t.Fatalf("read with error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}

			r := run.Results
			if r.CountSent() != tt.sent || r.CountFailed() != tt.failed || r.NotSentCount != tt.notSent {
				t.Errorf("%d sent, %d of them failed, %d not sent; want %d, %d, %d", r.CountSent(), r.CountFailed(),
					r.NotSentCount, tt.sent, tt.failed, tt.notSent)
			}
			if rate := *r.ThroughputRequestsPerSec; rate != float64(tt.sent)/200 {
				t.Errorf("%v requests/s of %d", rate, tt.sent)
			}
		})
	}
}
