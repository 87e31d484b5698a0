// Command chaos runs a real deployment of promptmill and does to it what the world
// does, by a plan that follows from a seed. Then it proves, with code of its own, that
// each request has exactly one line, with the right answer.
//
//	go run ./deploy/chaos --seed 1 --for 10m
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 { // its own children
		roles := map[string]func([]string) error{"model-server": serveModel, "nats-server": serveNATS}
		if serve, ok := roles[os.Args[1]]; ok {
			if err := serve(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	os.Exit(chaos(os.Args[1:], os.Stdout, os.Stderr))
}

// options are what the command line says.
type options struct {
	shape shape
	dir   string // of all files
	keep  bool   // though all is well
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // an error is said once, by who gets it
	flags.Uint64Var(&o.shape.seed, "seed", rand.Uint64N(1_000_000), "the `seed` of the plan and the input; by default any")
	flags.DurationVar(&o.shape.time, "for", time.Minute, "how long the deployment is hurt")
	flags.IntVar(&o.shape.requests, "requests", 0, "of each of the two runs (default 40 a second)")
	flags.IntVar(&o.shape.workers, "workers", 3, "how many, each with a model server")
	cluster := flags.String("cluster", "auto", "`yes`: a bus of three nodes, no: that of serve, auto: as the seed says")
	flags.StringVar(&o.dir, "dir", "", "`folder` of all files and logs; kept in any case (default a temporary one)")
	flags.BoolVar(&o.keep, "keep", false, "keep the files though all is well")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(stderr)
			flags.PrintDefaults()
		}
		return o, err
	}
	switch {
	case *cluster == "yes", *cluster == "auto" && o.shape.seed%3 == 0:
		o.shape.nodes = 3
	case *cluster != "no" && *cluster != "auto":
		return o, fmt.Errorf("--cluster %s: want yes, no or auto", *cluster)
	}
	if o.shape.time < time.Second || o.shape.workers < 1 || o.shape.requests < 0 {
		return o, fmt.Errorf("want --for 1s or more, and at least one worker")
	}
	if o.shape.requests == 0 {
		o.shape.requests = max(200, int(40*o.shape.time.Seconds()))
	}
	o.keep = o.keep || o.dir != ""
	return o, nil
}

// makeEmpty makes a folder, and refuses one that holds anything: what is left of another
// deployment would be taken for this one's.
func makeEmpty(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("--dir %s: it is not empty; name another folder", dir)
	}
	return err
}

// chaos returns the exit code: 0 if all promises were kept, 1 if not, 2 for usage.
func chaos(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "chaos:", err)
		return 2
	}
	if os.Getenv(namespaceEnv) == "" {
		// The seed is drawn by the one who works.
		code, err := reexec()
		if err == nil {
			return code
		}
		fmt.Fprintf(stdout, "skipped: full and read-only disks, since no mount namespace can be made here: %v\n", err)
	}
	if o.dir == "" {
		o.dir, err = os.MkdirTemp("", "promptmill-chaos-")
	} else if o.dir, err = filepath.Abs(o.dir); err == nil {
		err = makeEmpty(o.dir)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	bus := "the bus of serve"
	if o.shape.nodes > 0 {
		bus = fmt.Sprintf("a bus of %d nodes", o.shape.nodes)
	}
	fmt.Fprintf(stdout, "seed %d: %s, %d workers and model servers, 2 runs of %d requests, hurt for %s; files in %s\n",
		o.shape.seed, bus, o.shape.workers, o.shape.requests, o.shape.time, o.dir)
	events := plan(o.shape)
	found := run(ctx, o, events, stdout)
	if len(found) == 0 {
		if !o.keep {
			os.RemoveAll(o.dir)
		}
		return 0
	}
	fmt.Fprintf(stdout, "\nFAILED, seed %d:\n", o.shape.seed)
	for _, text := range found {
		fmt.Fprintln(stdout, "  "+text)
	}
	fmt.Fprintf(stdout, "the plan was:\n%sthe logs are in %s\nonce more: go run ./deploy/chaos --seed %d --for %s --requests %d --workers %d --cluster %s\n",
		text(events), filepath.Join(o.dir, "logs"), o.shape.seed, o.shape.time, o.shape.requests, o.shape.workers, map[bool]string{true: "yes", false: "no"}[o.shape.nodes > 0])
	return 1
}
