package supervise_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/worker/supervise"
)

// A process runs until its context ends. Here the server is a shell script that is ready once
// it has made a file.
func ExampleProcess() {
	dir, err := os.MkdirTemp("", "supervise")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	up := filepath.Join(dir, "up")
	process, err := supervise.New(supervise.Config{
		Command: "sh -c 'touch " + up + "; sleep 60'",
		LogFile: filepath.Join(dir, "server.log"),
		Log:     zerolog.Nop(),
		Ready: func(context.Context) error {
			_, err := os.Stat(up)
			return err
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- process.Run(ctx) }()

	for {
		changed := process.Changed()
		if process.Status().Phase == supervise.Ready {
			break
		}
		<-changed
	}

	fmt.Println("ready after", process.Status().Starts, "start")

	stop()
	fmt.Println(<-ended, process.Status().Phase)
	// Output:
	// ready after 1 start
	// <nil> stopped
}
