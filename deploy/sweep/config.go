// Package sweep runs the variants of a trial: it starts the server of each, runs the sample there, and stops it.
package sweep

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
)

// Config describes a trial.
type Config struct {
	// Inputs are the files of requests, as in [pipeline.Config]. Required.
	Inputs []string
	// Opener opens the inputs. Defaults to files of this machine.
	Opener inputfile.Opener
	// Stdin is read if Inputs is "-". Defaults to os.Stdin.
	Stdin io.Reader
	// Output is NAME: the page is NAME.trial.html, and all else lies in the folder NAME.trial. Required.
	Output string

	// Strategy proposes the variants. Required.
	Strategy Strategy
	// SideBySide starts the servers of all variants at once and has them take turns. It is always so for variants with
	// a URL. Defaults to false: one after the other.
	SideBySide bool

	// Settings apply to the requests. Their model is that of each variant.
	Settings proto.Settings
	// Servers has the key and the certificates of the model servers. Its URLs, Command and Sim are not used.
	Servers modelservers.Config
	// Workers has the settings of the workers.
	Workers pipeline.WorkerConfig

	// Sample is the number of requests that are drawn from the input. Defaults to [DefaultSample].
	Sample int
	// Precision ends a variant once the 90 % interval of its rate is narrower than this part of it. Defaults to 0.05.
	Precision float64
	// Budget ends a variant after this time of measuring. Defaults to 10 minutes.
	Budget time.Duration
	// Within ends the trial: no variant starts after that time, loading included. Defaults to no end.
	Within time.Duration
	// LoadTimeout fails a variant whose server is not ready after this time. Defaults to an hour.
	LoadTimeout time.Duration
	// Round is the length of a turn of variants that take turns; it is longer where requests take long. Defaults to 20
	// seconds, and to a tenth of Budget where that is less: variants are compared round by round from five on.
	Round time.Duration
	// Retry runs the variants again that failed or were skipped. Defaults to false.
	Retry bool

	// Goal ranks the variants. Defaults to trial.Throughput.
	Goal trial.Goal
	// Expect names the column or field of the input with the expected answer. Defaults to none.
	Expect string
	// Match is how an answer is compared with the expected one. Defaults to quality.Exact.
	Match quality.Match
	// Scorer scores the answers; nil: nothing does. Its String, if it has one, says how: another one judges all answers
	// again.
	Scorer quality.Scorer
	// Report has the prices and the numbers of requests to estimate.
	Report report.Options
	// Beside are results of other trials and runs, for the page.
	Beside []trial.Variant

	// State is the state folder. Defaults to the user's.
	State string
	// Version is the version of the program.
	Version string
	// RealRun returns the command line that runs the whole input with a variant; nil: the page has none.
	RealRun func(trial.Variant) []string
	// Log gets warnings and errors.
	Log zerolog.Logger
	// Hooks report the progress.
	Hooks Hooks

	refusal time.Duration // defaults to defaultRefusal
}

const (
	// DefaultSample is the default of Config.Sample.
	DefaultSample = 20_000
	// DefaultPrecision is the default of Config.Precision.
	DefaultPrecision = 0.05
	// DefaultBudget is the default of Config.Budget.
	DefaultBudget = 10 * time.Minute
	// DefaultLoadTimeout is the default of Config.LoadTimeout.
	DefaultLoadTimeout = time.Hour

	defaultRound = 20 * time.Second
	// defaultRefusal is how long the server of a variant may fail all requests before the variant has failed. A server
	// that is overloaded answers some of them.
	defaultRefusal = 2 * time.Minute
)

// Spec is a variant to run.
type Spec struct {
	// Name names it for people, and is unique in the trial.
	Name string `json:"name"`
	// Model is the model to ask for; empty: the only one of the server.
	Model string `json:"model,omitempty"`
	// Settings are its values of --vary.
	Settings []trial.Setting `json:"settings,omitempty"`
	// Command starts the server. A free port stands for {port} in it. Empty: the server runs at URL.
	Command string `json:"command,omitempty"`
	// URL is where the server answers. Defaults to the port that Command got.
	URL string `json:"url,omitempty"`
	// PricePerHour is the price of an hour of its machine; nil: unknown.
	PricePerHour *float64 `json:"price_per_hour,omitempty"`
	// Whole has it measured to its end, also if another variant has beaten it: its own figures are wanted.
	Whole bool `json:"whole,omitempty"`
}

// Strategy proposes the variants of a trial.
type Strategy interface {
	// Next returns variants to run, given those that have ended, in their order. It is called at the start, and again
	// when all that it returned have ended. Variants that have ended may be among them, and are not run again; if no
	// other ones are, the trial ends. The same ended variants bring about the same proposals, so that a trial that was
	// killed goes on with the same ones.
	Next(ended []trial.Variant) []Spec
}

// Tuner is a strategy that chooses a variant by itself.
type Tuner interface {
	Strategy
	// Tuning returns what it has found with the variants that have ended; nil: nothing yet.
	Tuning(ended []trial.Variant) *trial.Tuning
}

// List is a strategy: all variants of a list.
type List []Spec

// Next returns the whole list.
func (l List) Next([]trial.Variant) []Spec { return l }

// Hooks are functions that report the progress of a trial. Each may be nil.
type Hooks struct {
	// Printf gets lines for a person at a terminal.
	Printf func(format string, args ...any)
	// Drawing is called while the sample is drawn, with the requests and bytes that were read.
	Drawing func(requests int, bytes int64)
	// Begin is called when a variant begins, with its number from 1, and how many there are so far.
	Begin func(v trial.Variant, number, of int)
	// Loading is called about once a second while the server of a variant loads.
	Loading func(v trial.Variant, what string, waited time.Duration)
	// Progress is called about four times a second while a variant runs.
	Progress func(v trial.Variant, s progress.Sample, speed trial.Speed)
	// End is called when a variant has ended, and Written when the files of the trial were written after it.
	End func(v trial.Variant)
}

// Validate returns an error that names the field of a value that cannot be used.
func (c Config) Validate() error {
	switch {
	case len(c.Inputs) == 0:
		return errors.New("sweep: Config.Inputs is required")
	case len(c.Inputs) > 1 && slices.Contains(c.Inputs, "-"):
		return errors.New(`sweep: Config.Inputs: "-" cannot be mixed with files`)
	case c.Output == "":
		return errors.New("sweep: Config.Output is required")
	case c.Strategy == nil:
		return errors.New("sweep: Config.Strategy is required")
	case c.Sample < 0:
		return fmt.Errorf("sweep: Config.Sample is %d, must not be negative", c.Sample)
	case c.Precision < 0 || c.Precision >= 1:
		return fmt.Errorf("sweep: Config.Precision is %g, must be from 0 to 1", c.Precision)
	case c.Servers.Sim != nil || len(c.Servers.Commands) > 0 || len(c.Servers.URLs) > 0:
		return errors.New("sweep: Config.Servers has servers: the strategy names them")
	}

	for name, d := range map[string]time.Duration{
		"Budget":      c.Budget,
		"Within":      c.Within,
		"LoadTimeout": c.LoadTimeout,
		"Round":       c.Round,
	} {
		if d < 0 {
			return fmt.Errorf("sweep: Config.%s is %s, must not be negative", name, d)
		}
	}

	return c.Workers.Validate()
}

// withDefaults returns the configuration with its defaults, and with absolute paths.
func (c Config) withDefaults() (Config, error) {
	if err := c.Validate(); err != nil {
		return c, err
	}

	var err error
	if c.Output, err = filepath.Abs(c.Output); err != nil {
		return c, err
	}

	if c.Inputs, err = pipeline.AbsoluteInputs(c.Inputs); err != nil {
		return c, err
	}

	if c.State == "" {
		if c.State, err = statedir.Default(os.Getenv); err != nil {
			return c, err
		}
	}

	if c.Stdin == nil {
		c.Stdin = os.Stdin
	}

	c.Sample = cmp.Or(c.Sample, DefaultSample)
	c.Precision = cmp.Or(c.Precision, DefaultPrecision)
	c.Budget = cmp.Or(c.Budget, DefaultBudget)
	c.LoadTimeout = cmp.Or(c.LoadTimeout, DefaultLoadTimeout)
	c.Round = cmp.Or(c.Round, min(defaultRound, c.Budget/10))
	c.refusal = cmp.Or(c.refusal, defaultRefusal)
	c.Goal = cmp.Or(c.Goal, trial.Throughput)
	c.Match = cmp.Or(c.Match, quality.Exact)
	c.Settings.Model, c.Settings.OverrideModel = "", ""

	return c, nil
}
