package worker

import (
	"cmp"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/gpu"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
	"github.com/promptmill/promptmill/worker/supervise"
)

// Config configures a [Worker]. [New] checks it.
type Config struct {
	// JS is the handle of the bus that has the runs. Required.
	JS jetstream.JetStream

	// Server is the model server that answers the requests. Required.
	Server *modelserver.Server

	// Limiter decides how many requests are at the model server at once. Required.
	Limiter *limit.Limiter

	// Run is the one run to work for. Defaults to all runs that need a model of the server.
	Run string

	// Name is the worker's name in results and in its announcement. Several workers may have the
	// same name. Defaults to "worker".
	Name string

	// Host and Version are the host and the version of the program in the worker's announcement.
	// Both default to empty.
	Host    string
	Version string

	// Attempts is the maximum number of attempts at a request. A refusal because of too many
	// requests (429, 503 or 529) counts as a quarter. Defaults to 5.
	Attempts int

	// Timeout bounds one attempt. Defaults to 30 minutes.
	Timeout time.Duration

	// Stall is the time without any progress after which the model server counts as hung.
	// Defaults to 5 minutes.
	Stall time.Duration

	// Grace is the time to finish the requests in flight after Run's context has ended. Defaults
	// to 30 seconds.
	Grace time.Duration

	// StopRefused lets Run return a [RefusedError] when the model server refuses all requests and
	// never accepted one. Defaults to false: the worker waits until the server accepts one.
	StopRefused bool

	// Samples are requests that a model server has answered before. With them a server that
	// refuses all requests can be distinguished from one that refuses the last few of a run.
	// Defaults to none.
	Samples []proto.Request

	// Memory keeps how many requests at once servers accepted before. Defaults to none: each
	// start searches from the beginning.
	Memory *limit.Memory

	// Process is the process of the model server, if this program supervises it. Defaults to
	// none.
	Process *supervise.Process

	// Cards returns the host's GPUs as they are now. Defaults to nil: unknown.
	Cards func() []gpu.Card

	// Notices are the messages that are logged only once for a model server. They are kept for
	// the next worker at the same server. Defaults to a new set.
	Notices *Notices

	// Observer follows the attempts and the ends of all requests, for telemetry. Defaults to nil:
	// none.
	Observer Observer

	// OnInfo is called with each description that the model server gives of itself, every few
	// seconds, never twice at a time. Defaults to nil.
	OnInfo func(modelserver.Info)

	// Log is the worker's log. Defaults to none.
	Log zerolog.Logger
}

// check returns an error that names the first field with a value that cannot work.
func (c *Config) check() error {
	switch {
	case c.JS == nil:
		return fmt.Errorf("worker: Config.JS is required")
	case c.Server == nil:
		return fmt.Errorf("worker: Config.Server is required")
	case c.Limiter == nil:
		return fmt.Errorf("worker: Config.Limiter is required")
	case len(c.Name) > proto.MaxWorkerName:
		return fmt.Errorf("worker: Config.Name has %d bytes, more than %d", len(c.Name), proto.MaxWorkerName)
	case c.Attempts < 0:
		return fmt.Errorf("worker: Config.Attempts is %d, below 0", c.Attempts)
	}

	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"Timeout", c.Timeout},
		{"Stall", c.Stall},
		{"Grace", c.Grace},
	} {
		if d.value < 0 {
			return fmt.Errorf("worker: Config.%s is %s, below 0", d.field, d.value)
		}
	}

	return nil
}

// withDefaults returns the configuration with its defaults filled in.
func (c Config) withDefaults() Config {
	c.Name = cmp.Or(c.Name, "worker")
	c.Attempts = cmp.Or(c.Attempts, 5)
	c.Timeout = cmp.Or(c.Timeout, 30*time.Minute)
	c.Stall = cmp.Or(c.Stall, 5*time.Minute)
	c.Grace = cmp.Or(c.Grace, 30*time.Second)

	if c.Notices == nil {
		c.Notices = &Notices{}
	}

	return c
}
