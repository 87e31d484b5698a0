package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/worker/sim"
)

// simDefaults is the server that --sim starts: about 4 answers a second from each of
// its 64 slots, so that a small file is done in seconds and a large one can be
// interrupted.
var simDefaults = sim.Config{Slots: 64, TTFT: 80 * time.Millisecond, TPOT: 4 * time.Millisecond, Spread: 0.3, Tokens: 40, Seed: 1}

func simFlags() []cli.Flag {
	d := simDefaults
	return []cli.Flag{
		&cli.IntFlag{Name: "sim-slots", Value: d.Slots, Usage: "requests the simulated server answers at once", Sources: flagEnv("sim-slots")},
		&cli.DurationFlag{Name: "sim-ttft", Value: d.TTFT, Usage: "its mean time to the first token", Sources: flagEnv("sim-ttft")},
		&cli.DurationFlag{Name: "sim-tpot", Value: d.TPOT, Usage: "its mean time for each further token", Sources: flagEnv("sim-tpot")},
		&cli.FloatFlag{Name: "sim-spread", Value: d.Spread, Usage: "spread of these times: 0.3 is 30% more or less at most", Sources: flagEnv("sim-spread")},
		&cli.IntFlag{Name: "sim-tokens", Value: d.Tokens, Usage: "its mean answer in tokens", Sources: flagEnv("sim-tokens")},
		&cli.StringFlag{Name: "sim-faults", Usage: "its faults as NAME=RATE,...: all, 429, 500, 503, reset, truncated, hang, html, garbage, context", Sources: flagEnv("sim-faults")},
		&cli.Uint64Flag{Name: "sim-seed", Value: d.Seed, Usage: "seed of its answers and faults", Sources: flagEnv("sim-seed")},
	}
}

func simConfig(c *cli.Command, models []string) (sim.Config, error) {
	faults, err := sim.ParseFaults(c.String("sim-faults"))
	if err != nil {
		return sim.Config{}, usage("", "--sim-faults: %w", err)
	}
	return sim.Config{
		Models: models, Slots: c.Int("sim-slots"), TTFT: c.Duration("sim-ttft"), TPOT: c.Duration("sim-tpot"),
		Spread: c.Float("sim-spread"), Tokens: c.Int("sim-tokens"), Seed: c.Uint64("sim-seed"), Faults: faults,
	}, nil
}

func simCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "sim",
		Usage: "a simulated OpenAI-compatible model server, for trying things out",
		Flags: append(simFlags(),
			&cli.StringFlag{Name: "listen", Value: "127.0.0.1:8000", Usage: "address to listen on", Sources: flagEnv("listen")},
			&cli.StringSliceFlag{Name: "model", Usage: "model to serve (repeatable); any if not given", Sources: flagEnv("model")},
		),
		Action: func(ctx context.Context, c *cli.Command) error {
			cfg, err := simConfig(c, c.StringSlice("model"))
			if err != nil {
				return err
			}
			s, err := startSim(c.String("listen"), cfg)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.stderr, "simulated model server on %s, %d slots; stop it with Ctrl-C\n", s.url, cfg.Slots)
			select {
			case <-env.signals:
			case <-ctx.Done():
			}
			s.stop()
			return nil
		},
	}
}

// simServer is a simulated model server that listens.
type simServer struct {
	url  string
	http *http.Server
}

func startSim(addr string, cfg sim.Config) (*simServer, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("start the simulated model server: %w", err)
	}
	s := &simServer{url: "http://" + listener.Addr().String(), http: &http.Server{Handler: sim.New(cfg)}}
	go func() {
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			panic(err) // the listener is ours alone
		}
	}()
	return s, nil
}

func (s *simServer) stop() { s.http.Close() }
