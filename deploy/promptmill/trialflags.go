package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/cmdline"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/score"
	"github.com/promptmill/promptmill/deploy/sweep"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/deploy/tune"
	"github.com/promptmill/promptmill/deploy/variants"
	"github.com/promptmill/promptmill/proto"
)

// goals and matches are the values of --for and --match.
var (
	goals   = []string{string(trial.Throughput), string(trial.Cost), string(trial.Best)}
	matches = []string{string(quality.Exact), string(quality.Number)}
)

// trialFlags returns the flags that only the trial command has.
func trialFlags() []cli.Flag {
	return slices.Concat(variantFlags(), measuringFlags(), qualityFlags(), []cli.Flag{
		&cli.StringFlag{
			Name:        "output",
			Category:    groupOutput,
			Aliases:     []string{"o"},
			Usage:       "`NAME`: the page is NAME.trial.html, and all else lies in the folder NAME.trial",
			DefaultText: "the input's name",
		},
		&wholeTextsFlag{
			Name:     "with",
			Category: groupTrial,
			Usage:    "`FILE`: put another trial (.trial.json) or run (.meta.json) beside the variants; without INPUT, the page has these alone",
		},
		&cli.StringFlag{
			Name:     "progress",
			Category: groupOutput,
			Value:    "auto",
			Usage:    "`MODE`: how to show the progress: auto, bar, plain, json or none",
		},
		&cli.BoolFlag{
			Name:     "json",
			Category: groupOutput,
			Usage:    "print the result as JSON on standard output at the end",
		},
		&wholeTextsFlag{
			Name:     "price-hour",
			Category: groupReport,
			Usage:    "`[VARIANT=]PRICE`: price of an hour of the machine; VARIANT may also be a model, a server or a program",
		},
	})
}

// variantFlags returns the flags that name variants.
func variantFlags() []cli.Flag {
	return []cli.Flag{
		&wholeTextsFlag{
			Name:     "model",
			Category: groupTrial,
			Usage:    "`NAME`: model to try; it stands for {model} in --exec, or is asked for at each --url",
		},
		&wholeTextsFlag{
			Name:     "exec",
			Category: groupTrial,
			Usage:    "`COMMAND`: start a model server with this command; {model}, {port} and the names of --vary stand for their values",
		},
		&wholeTextsFlag{
			Name:     "vary",
			Category: groupTrial,
			Usage:    "`NAME=VALUE,...`: values to try for {NAME} in --exec; several --vary are combined",
		},
		&cli.BoolFlag{
			Name:     "tune",
			Category: groupTrial,
			Usage:    "find settings of the model server in --exec (vLLM, SGLang or llama.cpp) that are faster",
		},
		&wholeTextsFlag{
			Name:     "url",
			Category: groupTrial,
			Usage:    "`[NAME=]URL`: model server that runs already",
		},
		&cli.BoolFlag{
			Name:     "side-by-side",
			Category: groupTrial,
			Usage:    "start all servers of --exec at once and let them take turns",
		},
	}
}

// measuringFlags returns the flags of how long variants run.
func measuringFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{
			Name:     "sample",
			Category: groupTrial,
			Value:    sweep.DefaultSample,
			Usage:    "`N`: draw N requests of the input, the same for all variants",
		},
		&cli.StringFlag{
			Name:     "precision",
			Category: groupTrial,
			Value:    "5%",
			Usage:    "`SHARE`: a variant ends once the 90% interval of its speed is narrower than this part of it",
		},
		&cli.DurationFlag{
			Name:     "budget",
			Category: groupTrial,
			Value:    sweep.DefaultBudget,
			Usage:    "`DURATION`: longest time of measuring for each variant, loading apart",
		},
		&cli.DurationFlag{
			Name:        "within",
			Category:    groupTrial,
			Usage:       "`DURATION`: end the trial after this time, with what the variants have by then",
			DefaultText: "no limit",
		},
		&cli.BoolFlag{
			Name:     "retry",
			Category: groupTrial,
			Usage:    "run variants again that failed or were left out",
		},
	}
}

// qualityFlags returns the flags of what the best variant is.
func qualityFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:     "for",
			Category: groupTrial,
			Value:    string(trial.Throughput),
			Usage:    "`GOAL`: rank the variants by throughput, cost or quality",
		},
		&cli.StringFlag{
			Name:     "expect",
			Category: groupTrial,
			Usage:    "`COLUMN`: column or field of the input that has the expected answer",
		},
		&cli.StringFlag{
			Name:     "match",
			Category: groupTrial,
			Value:    string(quality.Exact),
			Usage:    "`HOW`: an answer is right if it is the same text (exact) or ends in the same number (number)",
		},
		&cli.StringFlag{
			Name:     "score",
			Category: groupTrial,
			Usage:    "`COMMAND`: command that reads answers as JSON lines and prints a score from 0 to 1 for each",
		},
	}
}

// trialOptions are the flags of the trial command.
type trialOptions struct {
	common commonOptions
	sweep  sweep.Config
	specs  []sweep.Spec // of --tune: where it begins
	tuning *tune.Search // nil: without --tune
	json   bool
	dryRun bool
	inputs []string // as they were named
	places *objectstore.Client
}

// hasOnlyBeside reports whether the trial runs nothing, and has other trials and runs alone.
func (o trialOptions) hasOnlyBeside() bool { return len(o.inputs) == 0 && len(o.sweep.Beside) > 0 }

// parseTrial reads and checks the flags of the trial command.
func parseTrial(
	ctx context.Context, env environment, c *cli.Command, places *objectstore.Client,
) (o trialOptions, err error) {
	o = trialOptions{
		common: parseCommon(c, c.String("progress")),
		json:   c.Bool("json"),
		dryRun: c.Bool("dry-run"),
		inputs: c.Args().Slice(),
		places: places,
	}

	cfg := &o.sweep
	*cfg = sweep.Config{
		Opener:     places,
		Stdin:      env.stdin,
		SideBySide: c.Bool("side-by-side"),
		Retry:      c.Bool("retry"),
		Expect:     c.String("expect"),
		Version:    versionText(),
	}

	if cfg.Report, err = parseEstimateFlags(c); err != nil {
		return o, err
	}

	if cfg.Beside, err = readBeside(textsOf(c, "with")); err != nil {
		return o, err
	}

	if !o.hasOnlyBeside() {
		if err := parseVariants(c, &o); err != nil {
			return o, err
		}
	}

	if err := parseMeasuring(c, cfg); err != nil {
		return o, err
	}

	if err := parseGoal(ctx, env, c, &o); err != nil {
		return o, err
	}

	if cfg.Settings, err = parseTrialSettings(c); err != nil {
		return o, err
	}

	err = readPlaces(ctx, env, o.common, places, func(ctx context.Context) error {
		return parseTrialPaths(ctx, c, places, &o)
	})
	if err != nil {
		return o, err
	}

	cfg.RealRun = realRun{inputs: o.inputs, words: sharedWords(c)}.command
	cfg.State, err = stateOf(env, c)

	return o, err
}

// parseVariants reads the flags that name variants, and those of how requests are run there.
func parseVariants(c *cli.Command, o *trialOptions) (err error) {
	g := variants.Grid{
		Models:     textsOf(c, "model"),
		Commands:   textsOf(c, "exec"),
		SideBySide: c.Bool("side-by-side"),
	}

	if g.Axes, err = variants.ParseAxes(textsOf(c, "vary")); err != nil {
		return err
	}

	if g.Servers, err = variants.ParseServers(textsOf(c, "url")); err != nil {
		return err
	}

	if g.Prices, err = variants.ParsePrices(textsOf(c, "price-hour")); err != nil {
		return err
	}

	list, err := g.Specs()
	if err != nil {
		return err
	}

	o.specs, o.sweep.Strategy = list, list
	if c.Bool("tune") {
		if err := tuneServer(o); err != nil {
			return err
		}
	}

	if o.sweep.Servers, err = parseAccess(c); err != nil {
		return err
	}

	o.sweep.Workers, err = parseWorkers(c)

	return err
}

// tuneServer has the trial search for the settings of the only variant.
func tuneServer(o *trialOptions) (err error) {
	if len(o.specs) > 1 {
		return exit.Usage("give one --model and one --exec, without --vary and --url", "--tune has one command to begin with, and here are %s",
			terminal.CountOf(len(o.specs), "variant"))
	}

	base := o.specs[0]
	base.Name = "" // the name of the command as it is
	if o.tuning, err = tune.New(base, 0); err != nil {
		return exit.Usage("try values of its flags with --vary", "--tune: %w", err)
	}
	o.sweep.Strategy = o.tuning

	return nil
}

// parseMeasuring reads the flags of how long variants run.
func parseMeasuring(c *cli.Command, cfg *sweep.Config) (err error) {
	cfg.Sample, cfg.Budget, cfg.Within = c.Int("sample"), c.Duration("budget"), c.Duration("within")
	if cfg.Sample < 1 {
		return exit.Usage("", "--sample %d: must be at least 1", cfg.Sample)
	}

	for _, name := range []string{"budget", "within"} {
		if c.Duration(name) <= 0 && (name != "within" || c.IsSet(name)) {
			return exit.Usage("for example --"+name+" 10m", "--%s %s: must be more than 0", name, c.Duration(name))
		}
	}

	cfg.Precision, err = parseShare(c.String("precision"))

	return err
}

// parseShare reads a part of something: 5% or 0.05.
func parseShare(text string) (float64, error) {
	number, isPercent := strings.CutSuffix(strings.TrimSpace(text), "%")
	share, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if isPercent {
		share /= 100
	}

	if err != nil || !(share > 0 && share < 1) {
		return 0, exit.Usage("for example --precision 5% or --precision 0.05",
			"--precision %s: must be more than 0 and less than 100%%", report.ShellWords(text))
	}

	return share, nil
}

// parseGoal reads the flags of what the best variant is.
func parseGoal(ctx context.Context, env environment, c *cli.Command, o *trialOptions) error {
	cfg := &o.sweep
	cfg.Goal, cfg.Match = trial.Goal(c.String("for")), quality.Match(c.String("match"))
	switch {
	case !slices.Contains(goals, string(cfg.Goal)):
		return exit.Usage("want "+joinWords(goals), "--for %s: there is no such goal", report.ShellWords(string(cfg.Goal)))
	case !slices.Contains(matches, string(cfg.Match)):
		return exit.Usage("want "+joinWords(matches), "--match %s: there is no such way to compare",
			report.ShellWords(string(cfg.Match)))
	}

	if script := c.String("score"); c.IsSet("score") {
		command := score.Command{Script: script}
		if err := checkScorer(ctx, env, command, cfg.Expect != ""); err != nil {
			return err
		}
		cfg.Scorer = command
	}

	if o.hasOnlyBeside() {
		return nil
	}

	if o.tuning != nil && cfg.Goal == trial.Best {
		return exit.Usage("leave out --for: with --expect, --score or --schema, a setting with worse answers is not kept",
			"--for quality: --tune finds faster settings, not better answers")
	}

	isJudged := cfg.Scorer != nil || cfg.Expect != "" || c.String("schema") != ""
	if cfg.Goal == trial.Best && !isJudged {
		return exit.Usage("give --expect COLUMN, --score COMMAND or --schema FILE",
			"--for quality: nothing says which answers are good")
	}

	for _, s := range o.specs {
		if cfg.Goal == trial.Cost && s.PricePerHour == nil && cfg.Report.Prices.KWh == nil {
			return exit.Usage("give --price-hour PRICE, or --price-kwh PRICE for the energy alone",
				"--for cost: there is no price for %s", report.ShellWords(s.Name))
		}
	}

	return nil
}

// checkScorer tries a command of --score, which may take long. A signal ends that.
func checkScorer(ctx context.Context, env environment, command score.Command, isExpected bool) error {
	checking, signalsToNext := untilSignal(ctx, env)
	err := command.Check(checking, isExpected)
	signalsToNext()

	switch {
	case errors.Is(err, pipeline.ErrInterrupted):
		return exit.Interrupted(pipeline.ErrInterrupted, "")
	case err != nil:
		return exit.Usage("", "--score: %w", err)
	}

	return nil
}

// parseTrialSettings reads the flags of the requests.
func parseTrialSettings(c *cli.Command) (s proto.Settings, err error) {
	s.SkipInvalid = c.Bool("skip-invalid")
	if s.Schema, err = parseSchema(c.String("schema")); err != nil {
		return s, err
	}

	if s.Rows, err = parseRows(c); err != nil {
		return s, err
	}

	if err := parseEndpoint(c, &s); err != nil {
		return s, err
	}

	s.Set, err = parseSet(textsOf(c, "set"), s.Rows != nil)

	return s, err
}

// parseTrialPaths reads the paths of the inputs and of the output.
func parseTrialPaths(ctx context.Context, c *cli.Command, places *objectstore.Client, o *trialOptions) error {
	if o.hasOnlyBeside() {
		for _, name := range []string{"exec", "url"} {
			if cmdline.IsTyped(c, name) {
				return exit.Usage("name the file of requests", "there is no INPUT to try the --%s with", name)
			}
		}

		if c.String("output") == "" {
			return exit.Usage("give -o NAME", "without INPUT, the page has no name")
		}

		return parseTrialOutput(c, o, "")
	}

	named, err := nameInputs(ctx, c, places)
	if err != nil {
		return err
	}

	if c.String("output") == "" && named.files[0] == "-" {
		return exit.Usage("give -o NAME", "standard input has no name to make the output's from")
	}

	name := strings.TrimSuffix(string(defaultOutput(named.first())), defaultSuffix)
	if err := parseTrialOutput(c, o, name); err != nil {
		return err
	}

	o.sweep.Inputs, err = named.check(ctx, places, o.sweep.Settings)

	return err
}

// parseTrialOutput reads -o, or takes the name otherwise.
func parseTrialOutput(c *cli.Command, o *trialOptions, otherwise string) error {
	name := cmp.Or(c.String("output"), otherwise)
	for _, suffix := range []string{trial.HTMLSuffix, trial.MarkdownSuffix, trial.JSONSuffix} {
		name = strings.TrimSuffix(name, suffix)
	}

	if objectstore.IsURL(name) {
		return exit.Usage("give the name of a file on this machine", "-o %s: a trial stays on this machine",
			objectstore.Redact(name))
	}

	if base := filepath.Base(name); strings.HasSuffix(name, "/") || base == "." || base == ".." || isFolder(name) && c.IsSet("output") {
		return exit.Usage("for example -o "+report.ShellWords(filepath.Join(name, "first")), "-o %s names no file", name)
	}

	path, err := filepath.Abs(name)
	if err != nil {
		return err
	}

	if err := checkOutputFolder(filepath.Dir(path)); err != nil {
		return err
	}

	for _, beside := range textsOf(c, "with") {
		if isSameFile(beside, path+trial.JSONSuffix) {
			return exit.Usage("choose another name with -o", "--with %s is the file that this trial writes", beside)
		}
	}

	o.sweep.Output = path

	return checkTrialFiles(path)
}

// checkTrialFiles refuses a name whose page could not be written, or would be written over a file that is of no trial.
func checkTrialFiles(name string) error {
	_, err := trial.ReadVariants(name + trial.JSONSuffix)
	isTrial := err == nil || sweep.Exists(name)
	for _, suffix := range []string{trial.JSONSuffix, trial.MarkdownSuffix, trial.HTMLSuffix} {
		path := name + suffix
		if _, err := os.Lstat(path + atomicfile.TempSuffix); errors.Is(err, syscall.ENAMETOOLONG) {
			return exit.Usage("choose a shorter name with -o", "the page %s: %w", files.Short(path), files.WithoutPath(err))
		}

		if files.Exists(path) && !isTrial {
			return exit.Usage("move it away, or choose another name with -o", "%s would be overwritten, and no trial has written it",
				files.Short(path))
		}
	}

	return nil
}

// isSameFile reports whether two paths are of one file that is there.
func isSameFile(a, b string) bool {
	first, errA := os.Stat(a)
	second, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(first, second)
}

// readBeside reads other trials and runs.
func readBeside(paths []string) (list []trial.Variant, err error) {
	for i, path := range paths {
		if slices.Contains(paths[:i], path) {
			return nil, exit.Usage("leave out one of them", "--with %s is given twice", report.ShellWords(path))
		}

		found, err := trial.ReadVariants(path)
		if err != nil {
			return nil, exit.Usage("promptmill trial writes NAME.trial.json, and promptmill run NAME.meta.json", "--with: %w", err)
		}
		list = append(list, found...)
	}

	return list, nil
}
