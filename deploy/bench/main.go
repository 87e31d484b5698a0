// Command bench measures promptmill on this machine: against a bare Go client and a
// plain Python script at the same simulated model server, part by part, and as boxes,
// requests and files grow. It prints a table and can write JSON.
//
//	go run ./deploy/bench --quick
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := runBench(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options is the command line.
type options struct {
	quick      bool
	repeat     int
	only       []string
	json       string // file
	promptmill string // the program
	dir        string // for everything that is written meanwhile
}

// runBench executes a command line and returns the exit code.
func runBench(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && children[args[0]] != nil {
		if err := children[args[0]](ctx, args[1:], stdout); err != nil {
			fmt.Fprintln(stderr, err)
			return 1
		}
		return 0
	}

	o, err := parseOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}

	if err := measureAll(ctx, o, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}

	return 0
}

// children run as separate processes, so that their CPU time and
// memory are measured apart.
var children = map[string]func(ctx context.Context, args []string, stdout io.Writer) error{
	"client": runClient,
	"broker": runBroker,
	"files":  runBareServer,
	"export": runExport,
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints the error
	flags.BoolVar(&o.quick, "quick", false, "a look of about a minute, in small numbers and one round")
	flags.IntVar(&o.repeat, "repeat", 0, "rounds of each section; by default 3, or 1 with --quick")
	only := flags.String("only", "", "sections, with commas between: "+strings.Join(sectionNames(), ", "))
	flags.StringVar(&o.json, "json", "", "write the figures to this file, too")
	flags.StringVar(&o.promptmill, "promptmill", "", "the promptmill to measure; by default it is built")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(stderr)
			flags.PrintDefaults()
		}
		return o, err
	}

	if flags.NArg() > 0 {
		return o, fmt.Errorf("there is no argument %q", flags.Arg(0))
	}

	switch {
	case o.repeat < 0:
		return o, fmt.Errorf("--repeat %d: must be at least 1", o.repeat)
	case o.repeat == 0 && o.quick:
		o.repeat = 1
	case o.repeat == 0:
		o.repeat = 3
	}

	if *only != "" {
		o.only = strings.Split(*only, ",")
	}

	for _, name := range o.only {
		if !slices.Contains(sectionNames(), name) {
			return o, fmt.Errorf("--only %s: must be of %s", name, strings.Join(sectionNames(), ", "))
		}
	}

	return o, nil
}

// measureAll measures the sections asked for, prints each as it is done, and writes the
// file at the end, be it too early.
func measureAll(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	if o.dir, err = os.MkdirTemp("", "promptmill-bench-"); err != nil {
		return fmt.Errorf("make a folder to work in: %w", err)
	}
	defer os.RemoveAll(o.dir)

	if o.promptmill == "" {
		if o.promptmill, err = buildPromptmill(ctx, o.dir); err != nil {
			return err
		}
	}

	b := &bench{options: o, stderr: stderr}
	if b.self, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}

	report := Report{
		Schema:     ReportSchema,
		Machine:    thisMachine(),
		Promptmill: b.readVersion(ctx),
		Quick:      o.quick,
		Rounds:     o.repeat,
	}

	err = b.measureSections(ctx, &report, stdout)
	if o.json != "" {
		err = errors.Join(err, report.writeFile(o.json))
	}

	return err
}

func (b *bench) measureSections(ctx context.Context, report *Report, stdout io.Writer) error {
	if err := report.printHead(stdout); err != nil {
		return err
	}

	for _, s := range sections {
		if len(b.only) > 0 && !slices.Contains(b.only, s.name) {
			continue
		}

		t, err := b.measureSection(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}

		report.Tables = append(report.Tables, t)
		if err := t.printText(stdout); err != nil {
			return err
		}
	}

	return nil
}

// buildPromptmill builds the promptmill of this source tree.
func buildPromptmill(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "promptmill")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/promptmill/promptmill/deploy/promptmill")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build promptmill (run this in its source tree, or give --promptmill PATH): %w\n%s",
			err, out)
	}
	return path, nil
}
