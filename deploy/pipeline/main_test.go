package pipeline

import (
	"testing"

	"go.uber.org/goleak"
)

// All goroutines of a run have ended when it returns.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
