package objectstore

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/rs/zerolog"
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
