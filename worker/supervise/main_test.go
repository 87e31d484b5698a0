package supervise

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

// supervisorVariable makes the test binary a supervisor of this command until stdin ends, which
// a test can kill.
const supervisorVariable = "SUPERVISE_COMMAND"

func TestMain(m *testing.M) {
	if command := os.Getenv(supervisorVariable); command != "" {
		os.Exit(superviseUntilEOF(command))
	}
	goleak.VerifyTestMain(m)
}

func superviseUntilEOF(command string) int {
	adoptOrphans()

	ctx, stop := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()

	p, err := New(Config{
		Command: command, LogFile: "server.log", Ready: fileExists("up"),
		Grace: 50 * time.Millisecond, Log: zerolog.New(os.Stderr),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}

	p.tuning = quickTuning
	go func() {
		for {
			changed := p.Changed()
			if p.Status().Phase == Ready {
				fmt.Println("ready")
			}
			<-changed
		}
	}()

	if err := p.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}

	return 0
}
