package worker

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/worker/supervise"
)

// A model server that the worker has just started takes no requests yet, which needs no warning; one that another
// program runs should be there.
func TestWarningOfModelServer(t *testing.T) {
	t.Parallel()

	process, err := supervise.New(supervise.Config{
		Command: "vllm serve m",
		LogFile: "log",
		Ready:   func(context.Context) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}

	for _, tt := range []struct {
		name    string
		process *supervise.Process
		level   string
	}{
		{"started", process, "debug"},
		{"of another program", nil, "warn"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var logged bytes.Buffer
			s := newStreakWorker(t).server.state
			s.process, s.log = tt.process, zerolog.New(&logged)

			s.markDown("waiting", errors.New("refused"))
			s.markUp()

			for _, message := range []string{"waiting", "the model server answers"} {
				line, err := logged.ReadString('\n')
				if err != nil || !strings.HasPrefix(line, `{"level":"`+tt.level+`"`) || !strings.Contains(line, message) {
					t.Errorf("the log has %q (%v), want %q with the level %s", line, err, message, tt.level)
				}
			}
		})
	}
}
