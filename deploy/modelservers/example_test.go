package modelservers_test

import (
	"context"
	"fmt"
	"os"

	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/worker/sim"
)

func ExampleOpen() {
	ctx := context.Background()

	state, err := os.MkdirTemp("", "modelservers")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(state)

	set, err := modelservers.Open(ctx, modelservers.Config{
		Sim:      &sim.Config{Models: []string{"qwen3-4b"}},
		StateDir: state,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer set.Close()

	info, err := set.AwaitReady(ctx, nil)
	if err != nil {
		fmt.Println(err)
		return
	}

	fmt.Println(len(set.Servers), "server:", info.ModelNames())

	// Output:
	// 1 server: [qwen3-4b]
}
