package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/worker/sim"
)

// simDefaults are the defaults of the simulated server: about 4 answers a second from each of
// its 64 slots, so that a small file is done in seconds and a large one can be interrupted.
var simDefaults = sim.Config{
	Slots:    64,
	TTFT:     80 * time.Millisecond,
	TPOT:     4 * time.Millisecond,
	Spread:   0.3,
	Tokens:   40,
	SwapTime: 5 * time.Second,
	Seed:     1,
}

func simFlags() []cli.Flag {
	d := simDefaults

	return []cli.Flag{
		&cli.StringFlag{
			Name:     "sim-flavour",
			Category: groupSim,
			Value:    string(sim.VLLM),
			Usage:    "`FLAVOUR`: kind of server to simulate: " + flavourList(),
		},
		&cli.IntFlag{
			Name:     "sim-slots",
			Category: groupSim,
			Value:    d.Slots,
			Usage:    "`N`: requests that run at once; more of them wait",
		},
		&cli.IntFlag{
			Name:        "sim-knee",
			Category:    groupSim,
			Usage:       "`N`: requests that run at full speed; more of them share it",
			DefaultText: "all slots",
		},
		&cli.IntFlag{
			Name:        "sim-kv",
			Category:    groupSim,
			Usage:       "`N`: tokens that the KV cache holds; when it is full, the newest request loses its tokens and starts again",
			DefaultText: "no bound",
		},
		&cli.FloatFlag{
			Name:        "sim-rate",
			Category:    groupSim,
			Usage:       "`N`: requests a second that a proxy in front of the server accepts; it refuses more with 429",
			DefaultText: "any number",
		},
		&cli.IntFlag{
			Name:        "sim-queue",
			Category:    groupSim,
			Usage:       "`N`: requests that may wait; more are refused",
			DefaultText: "no bound",
		},
		&cli.IntFlag{
			Name:        "sim-prefix-cache",
			Category:    groupSim,
			Usage:       "`N`: prompt tokens that the prefix cache holds, so that a prompt with a cached beginning has a shorter time to its first token; shared blocks (vllm, sglang), or the last prompt of each slot (ollama), and as many tokens in the host's memory (llama.cpp)",
			DefaultText: "none",
		},
		&cli.DurationFlag{
			Name:     "sim-ttft",
			Category: groupSim,
			Value:    d.TTFT,
			Usage:    "`DURATION`: mean time to the first token",
		},
		&cli.DurationFlag{
			Name:     "sim-tpot",
			Category: groupSim,
			Value:    d.TPOT,
			Usage:    "`DURATION`: mean time for each further token",
		},
		&cli.FloatFlag{
			Name:     "sim-spread",
			Category: groupSim,
			Value:    d.Spread,
			Usage:    "`X`: spread of these times; 0.3 means up to 30% more or less",
		},
		&cli.IntFlag{
			Name:     "sim-tokens",
			Category: groupSim,
			Value:    d.Tokens,
			Usage:    "`N`: mean length of an answer, in tokens",
		},
		&cli.IntFlag{
			Name:        "sim-hold",
			Category:    groupSim,
			Usage:       "`N`: models that fit in memory at once (llama.cpp, ollama, lmstudio); the server unloads one to load another",
			DefaultText: "all",
		},
		&cli.DurationFlag{
			Name:     "sim-swap",
			Category: groupSim,
			Value:    d.SwapTime,
			Usage:    "`DURATION`: time to load another model, with --sim-hold",
		},
		&cli.StringFlag{
			Name:     "sim-faults",
			Category: groupSim,
			Usage: "`NAME=RATE,...`: rates of faults, such as 500=0.01,hang=0.001; names: all, " +
				strings.Join(sim.FaultNames, ", "),
		},
		&cli.Uint64Flag{
			Name:     "sim-seed",
			Category: groupSim,
			Value:    d.Seed,
			Usage:    "`N`: seed of the answers and faults",
		},
	}
}

// flavourList returns the flavours for a text.
func flavourList() string { return strings.Join(flavourNames(), ", ") }

// flavourNames returns the kinds of servers that the simulator can be.
func flavourNames() []string {
	names := make([]string, len(sim.Flavours))
	for i, f := range sim.Flavours {
		names[i] = string(f)
	}
	return names
}

// parseSim reads and checks the flags of the simulated model server.
func parseSim(c *cli.Command) (sim.Config, error) {
	flavour := sim.Flavour(c.String("sim-flavour"))
	if !slices.Contains(sim.Flavours, flavour) {
		return sim.Config{}, exit.Usage("", "--sim-flavour %q: must be one of %s", flavour, flavourList())
	}

	for _, name := range []string{"sim-slots", "sim-tokens"} {
		if c.Int(name) < 1 {
			return sim.Config{}, exit.Usage("", "--%s %d: must be at least 1", name, c.Int(name))
		}
	}

	if rate := c.Float("sim-rate"); !(rate >= 0) {
		return sim.Config{}, exit.Usage("", "--sim-rate %g: must be at least 0", rate)
	}

	switch hold := c.Int("sim-hold"); {
	case hold < 0:
		return sim.Config{}, exit.Usage("", "--sim-hold %d: must be at least 1", hold)
	case hold > 0 && !flavour.SwapsModels():
		return sim.Config{}, exit.Usage("choose --sim-flavour llama.cpp, ollama or lmstudio",
			"--sim-hold: %s has all of its models loaded", flavour)
	}

	faults, err := sim.ParseFaults(c.String("sim-faults"))
	if err != nil {
		return sim.Config{}, exit.Usage("", "--sim-faults: %w", err)
	}

	return sim.Config{
		Flavour:   flavour,
		Slots:     c.Int("sim-slots"),
		Knee:      c.Int("sim-knee"),
		KV:        c.Int("sim-kv"),
		Queue:     c.Int("sim-queue"),
		Rate:      c.Float("sim-rate"),
		Prefix:    c.Int("sim-prefix-cache"),
		TTFT:      c.Duration("sim-ttft"),
		TPOT:      c.Duration("sim-tpot"),
		Spread:    c.Float("sim-spread"),
		Tokens:    c.Int("sim-tokens"),
		MaxLoaded: c.Int("sim-hold"),
		SwapTime:  c.Duration("sim-swap"),
		Metrics:   true,
		Pooling:   true,
		Seed:      c.Uint64("sim-seed"),
		Faults:    faults,
	}, nil
}

// checkHold refuses a number of loaded models for a server that has no models of its own.
func checkHold(cfg sim.Config) error {
	if cfg.MaxLoaded > 0 && len(cfg.Models) == 0 {
		return exit.Usage("name them with --model", "--sim-hold: the server has no models of its own")
	}
	return nil
}

// exitKilled is the exit code that a shell reports for kill -9.
const exitKilled = 137

func simCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "sim",
		Usage: "simulate a model server, for a first try and for tests",
		Flags: append(simFlags(),
			// Only a separate process can be absent and die.
			&cli.DurationFlag{
				Name:     "sim-load",
				Category: groupSim,
				Usage:    "`DURATION`: time to load the model before the server answers",
			},
			&cli.StringFlag{
				Name:     "sim-poison",
				Category: groupSim,
				Usage:    "`TEXT`: a prompt that contains it kills the server",
			},
			&cli.StringFlag{
				Name:        "sim-log",
				Category:    groupSim,
				Usage:       "`FILE`: append a line of JSON for each request: its times, status, fault, and tokens",
				DefaultText: "none",
			},
			&cli.StringFlag{
				Name:     "listen",
				Category: groupSim,
				Value:    "127.0.0.1:8000",
				Usage:    "`HOST:PORT`: address to listen on",
			},
			&cli.StringSliceFlag{
				Name:        "model",
				Category:    groupSim,
				Usage:       "`NAME`: model to serve",
				DefaultText: "any",
			},
		),
		Action: func(ctx context.Context, c *cli.Command) error {
			cfg, err := parseSimServer(env, c)
			if err != nil {
				return err
			}

			closeLog, err := openSimLog(env, &cfg, c.String("sim-log"))
			if err != nil {
				return err
			}
			defer closeLog()

			return serveSim(ctx, env, cfg, c.String("listen"))
		},
	}
}

// parseSimServer reads the flags of sim.
func parseSimServer(env environment, c *cli.Command) (sim.Config, error) {
	cfg, err := parseSim(c)
	if err != nil {
		return cfg, err
	}

	cfg.Models = c.StringSlice("model")
	if err := checkHold(cfg); err != nil {
		return cfg, err
	}

	cfg.Load, cfg.Poison = c.Duration("sim-load"), c.String("sim-poison")
	cfg.OnDeath = func() {
		fmt.Fprintln(env.stderr, "simulated model server: killed by a prompt")
		env.exit(exitKilled)
	}

	return cfg, nil
}

// openSimLog opens the file that gets a line for each request; "": none.
func openSimLog(env environment, cfg *sim.Config, path string) (closeLog func(), err error) {
	if path == "" {
		return func() {}, nil
	}

	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, exit.Usage("name another file with --sim-log",
			"--sim-log %s: the file cannot be written: %w", path, faultOf(err))
	}

	cfg.OnExchange = sim.WriteExchanges(file, func(err error) {
		fmt.Fprintf(env.stderr, "warning: %v; it has no more lines\n", err)
	})

	return func() { file.Close() }, nil
}

// serveSim runs a simulated model server until a signal. One of a kind that does not listen
// while it loads its model listens only then.
func serveSim(ctx context.Context, env environment, cfg sim.Config, address string) error {
	server, loading := sim.New(cfg), time.Duration(0)
	if !cfg.Flavour.ListensWhileLoading() {
		loading = cfg.Load
	}

	select {
	case <-time.After(loading):
	case <-env.signals:
		return nil
	case <-ctx.Done():
		return nil
	}

	s, err := modelservers.StartSim(address, server)
	if err != nil {
		return err
	}
	defer s.Stop()

	fmt.Fprintf(env.stderr, "simulated model server on %s, %d slots; stop it with Ctrl-C\n", s.URL, cfg.Slots)

	select {
	case <-env.signals:
	case <-ctx.Done():
	}

	return nil
}
