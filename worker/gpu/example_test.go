package gpu_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/worker/gpu"
)

// A watch runs beside the work, and Now may be called at any time. It returns nil until there
// is a reading.
func ExampleWatch() {
	watch := gpu.New(zerolog.Nop())
	fmt.Println(len(watch.Now()))

	ctx, stop := context.WithCancel(context.Background())
	stop()

	if err := watch.Run(ctx); err != nil && !errors.Is(err, gpu.ErrNone) {
		fmt.Println(err)
	}
	// Output: 0
}
