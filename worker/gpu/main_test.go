package gpu

import (
	"context"
	"os"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

// commandVariable, in the environment, makes the test binary a program that only runs a watch
// of the nvidia-smi named there, so that a test can kill it.
const commandVariable = "GPU_TEST_RUN"

func TestMain(m *testing.M) {
	if command := os.Getenv(commandVariable); command != "" {
		w := New(zerolog.Nop())
		w.command = command
		w.Run(context.Background())
		return
	}
	goleak.VerifyTestMain(m)
}
