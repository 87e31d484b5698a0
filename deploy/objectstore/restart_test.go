package objectstore

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
)

// A store that has answered before is waited for when it refuses connections; another one is not.
func TestRetryOfStoreThatAnswered(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		log := zerolog.Nop()
		r := newRetrier(&log)
		if err := r.retry(t.Context(), "s3://there/a", func() error { return nil }); err != nil {
			t.Fatal(err)
		}

		for name, want := range map[string]int{"s3://there/b": 10, "s3://other/b": unansweredAttempts} {
			attempts := 0
			err := r.retry(t.Context(), name, func() error {
				attempts++
				return &temporaryError{
					err:        errors.New("connection refused"),
					attempts:   unansweredAttempts,
					unanswered: true,
				}
			})
			if err == nil || attempts != want {
				t.Errorf("%s: %d attempts, want %d: %v", name, attempts, want, err)
			}
		}
	})
}

// A name of Amazon's that has no address has the hint for other stores.
func TestHintForOtherStores(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		log := zerolog.Nop()
		err := newRetrier(&log).retry(t.Context(), "s3://b/a", func() error {
			return connectionFailure(&net.DNSError{Name: "b.s3.us-east-1.amazonaws.com", IsNotFound: true})
		})
		want := "for another store than Amazon's set --s3-endpoint or AWS_ENDPOINT_URL"
		if exit.Hint(err) != want || exit.Code(err) != exit.CodeUnreachable {
			t.Errorf("%v: exit code %d, hint %q, want %q", err, exit.Code(err), exit.Hint(err), want)
		}
	})
}
