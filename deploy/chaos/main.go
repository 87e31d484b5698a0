// Command chaos runs a real deployment of promptmill and injects the faults of the real world
// does, by a plan that follows from a seed. Then it proves, with code of its own, that
// each request has exactly one line, with the right answer.
//
//	go run ./deploy/chaos --seed 1 --for 10m
//	go run ./deploy/chaos --seeds 1-60 --for 60s
//
// On a machine without Go, with the programs built before:
//
//	go run ./deploy/chaos --build programs
//	programs/chaos --bin programs/promptmill --seed 1
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
	"slices"
	"strings"
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

	os.Exit(runChaos(os.Args[1:], os.Stdout, os.Stderr))
}

// options are the command line's.
type options struct {
	shape       shape
	first, last uint64 // seeds, if there are several
	several     bool
	cluster     string
	dir         string // of all files
	keep        bool   // though all is well
	bin         string // promptmill, if it was built before
	build       string // folder of programs to build, and no more

	firstPort, lastPort uint64 // of servers
}

// withSeed are the options of one deployment.
func (o options) withSeed(seed uint64) options {
	o.shape.seed, o.shape.nodes = seed, 0
	if o.cluster == "yes" || o.cluster == "auto" && seed%3 == 0 {
		o.shape.nodes = 3
	}

	return o
}

// fewestPorts are enough for two deployments, one after the other.
const fewestPorts = 100

func parseOptions(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints the error
	flags.Uint64Var(&o.shape.seed, "seed", rand.Uint64N(1_000_000),
		"the `seed` of the plan and the input; by default any")
	seeds := flags.String("seeds", "", "several seeds, `A-B`, one after the other, with a line for each")
	flags.DurationVar(&o.shape.time, "for", time.Minute, "how long faults are injected")
	flags.IntVar(&o.shape.requests, "requests", 0, "of each of the two runs (default 40 a second)")
	flags.IntVar(&o.shape.workers, "workers", 3, "how many, each with a model server")
	flags.StringVar(&o.cluster, "cluster", "auto",
		"`yes`: a bus of three nodes, no: that of serve, auto: as the seed says")
	only := flags.String("only", "", "kinds of events, `NAME,...`; by default all")
	flags.StringVar(&o.dir, "dir", "", "`folder` of all files and logs; kept in any case (default a temporary one)")
	flags.StringVar(&o.bin, "bin", "", "the promptmill to test, a `file` (default one that is built)")
	flags.StringVar(&o.build, "build", "",
		"only build promptmill and chaos into a `folder`, for --bin on a machine without Go")
	within := flags.String("ports", "20000-29999",
		"`A-B`: port numbers of servers; chaos that runs several times at once needs others each time")
	flags.BoolVar(&o.keep, "keep", false, "keep the files though all is well")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(stderr)
			flags.PrintDefaults()
		}
		return o, err
	}

	if !slices.Contains([]string{"yes", "no", "auto"}, o.cluster) {
		return o, fmt.Errorf("--cluster %s: want yes, no or auto", o.cluster)
	}

	o.first, o.last, o.several = o.shape.seed, o.shape.seed, *seeds != ""
	if o.several {
		if n, err := fmt.Sscanf(*seeds+"\n", "%d-%d\n", &o.first, &o.last); err != nil || n != 2 || o.first > o.last {
			return o, fmt.Errorf("--seeds %s: want two numbers, the smaller one first, such as 1-60", *seeds)
		}
	}

	if n, err := fmt.Sscanf(*within+"\n", "%d-%d\n", &o.firstPort, &o.lastPort); err != nil || n != 2 ||
		o.firstPort < 1024 || o.lastPort > 65_535 || o.firstPort+fewestPorts > o.lastPort+1 {
		return o, fmt.Errorf("--ports %s: want two port numbers, at least %d in all, such as 20000-20999", *within,
			fewestPorts)
	}

	if *only != "" {
		o.shape.only = strings.Split(*only, ",")
	}

	for _, name := range o.shape.only {
		if i := slices.IndexFunc(faultKinds, func(d *faultKind) bool { return d.name == name }); i < 0 ||
			faultKinds[i].weight == 0 {
			return o, fmt.Errorf("--only %s: there is no such kind of event", name)
		}
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
func makeEmpty(flag, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}

	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s %s: it is not empty; name another folder", flag, dir)
	}

	return err
}

// runChaos returns the exit code: 0 if all promises were kept, 1 if not, 2 for usage.
func runChaos(args []string, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "chaos:", err)
		return 2
	}

	if o.build != "" {
		return buildOnly(o.build, stdout, stderr)
	}

	if os.Getenv(namespaceEnv) == "" {
		// The seed is drawn by the one who works.
		code, err := runInNamespace()
		if err == nil {
			return code
		}
		fmt.Fprintf(stdout, "skipped: full and read-only disks, since no mount namespace can be made here: %v\n", err)
	}

	if o.dir, err = o.makeDir(); err != nil {
		fmt.Fprintln(stderr, err)
		return 2
	}

	ports.set(o.firstPort, o.lastPort)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	built, err := o.makePrograms(ctx)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}

	if built.clockSkipped != nil {
		fmt.Fprintln(stdout, built.clockSkipped)
	}

	code := o.runSeeds(ctx, built, stdout)
	if code == 0 && !o.keep {
		os.RemoveAll(o.dir)
	}

	return code
}

// makeDir makes the folder of all files. It refuses one that was named and is not empty.
func (o options) makeDir() (string, error) {
	if o.dir == "" {
		return os.MkdirTemp("", "promptmill-chaos-")
	}

	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return "", err
	}

	return dir, makeEmpty("--dir", dir)
}

// makePrograms builds the programs, or copies those that were named.
func (o options) makePrograms(ctx context.Context) (programs, error) {
	bin := filepath.Join(o.dir, "bin")
	if o.bin != "" {
		return copyPrograms(ctx, o.bin, bin)
	}
	return buildPrograms(ctx, bin)
}

// runSeeds runs one seed after the other. It returns the exit code: 1 if one of them broke a promise.
func (o options) runSeeds(ctx context.Context, built programs, stdout io.Writer) (code int) {
	for seed := o.first; seed <= o.last && ctx.Err() == nil; seed++ {
		one := o.withSeed(seed)
		if !o.several {
			if _, found := one.runSeed(ctx, built, stdout); len(found) > 0 {
				return 1
			}
			break
		}

		one.dir = filepath.Join(o.dir, fmt.Sprintf("seed-%d", seed))
		text, ok := one.runSeedToFile(ctx, built)
		if !ok {
			code = 1
		}

		fmt.Fprintf(stdout, "seed %d: %s\n", seed, text)
	}

	return code
}

// buildOnly builds the programs into a folder, and nothing else there.
func buildOnly(dir string, stdout, stderr io.Writer) (code int) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = makeEmpty("--build", dir)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 2
	}

	built, err := buildPrograms(context.Background(), dir)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}

	if built.clockSkipped != nil {
		fmt.Fprintln(stdout, built.clockSkipped)
	}

	os.RemoveAll(filepath.Join(dir, "overlay")) // it has served

	return 0
}

// runSeedToFile runs a deployment with its history in a file, and returns its result in one line.
func (o options) runSeedToFile(ctx context.Context, built programs) (text string, ok bool) {
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err.Error(), false
	}

	path := o.dir + ".txt"
	history, err := os.Create(path)
	if err != nil {
		return err.Error(), false
	}
	defer history.Close()

	begin := time.Now()
	text, found := o.runSeed(ctx, built, history)
	if len(found) > 0 {
		return fmt.Sprintf("FAILED after %.0fs, %d findings, in %s; the first: %s",
			time.Since(begin).Seconds(), len(found), path, found[0]), false
	}

	return fmt.Sprintf("ok after %.0fs: %s", time.Since(begin).Seconds(), text), true
}

// runSeed runs one deployment and writes its history. It returns the figures in one line, and
// the findings.
func (o options) runSeed(ctx context.Context, built programs, history io.Writer) (figures string, found findings) {
	bus := "the bus of serve"
	if o.shape.nodes > 0 {
		bus = fmt.Sprintf("a bus of %d nodes", o.shape.nodes)
	}

	fmt.Fprintf(history,
		"seed %d: %s, %d workers and model servers, 2 runs of %d requests, faults for %s; files in %s\n",
		o.shape.seed, bus, o.shape.workers, o.shape.requests, o.shape.time, o.dir)

	events := makePlan(o.shape)
	figures, found = runDeployment(ctx, o, built, events, history)
	if len(found) == 0 {
		if !o.keep {
			os.RemoveAll(o.dir)
		}
		return figures, nil
	}

	fmt.Fprintf(history, "\nFAILED, seed %d:\n", o.shape.seed)
	for _, text := range found {
		fmt.Fprintln(history, "  "+text)
	}

	fmt.Fprintf(history,
		"the plan was:\n%sthe logs are in %s\nonce more: go run ./deploy/chaos --seed %d --for %s --requests %d --workers %d --cluster %s%s\n",
		formatPlan(events), filepath.Join(o.dir, "logs"), o.shape.seed, o.shape.time, o.shape.requests, o.shape.workers,
		map[bool]string{true: "yes", false: "no"}[o.shape.nodes > 0], onlyFlag(o.shape.only))

	return figures, found
}

func onlyFlag(kinds []string) string {
	if len(kinds) == 0 {
		return ""
	}

	return fmt.Sprintf(" --only %q", strings.Join(kinds, ","))
}
