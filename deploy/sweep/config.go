// Package sweep runs the variants of a trial: it starts the server of each, runs the sample there, and stops it.
package sweep

import (
	"io"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/progress"
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
	// Retry runs the variants again that failed or were skipped. Defaults to false.
	Retry bool

	// Goal ranks the variants. Defaults to trial.Throughput.
	Goal trial.Goal
	// Expect names the column or field of the input with the expected answer. Defaults to none.
	Expect string
	// Match is how an answer is compared with the expected one. Defaults to quality.Exact.
	Match quality.Match
	// Scorer scores the answers; nil: nothing does.
	Scorer quality.Scorer
	// Report has the prices and the numbers of requests to estimate.
	Report report.Options
	// Beside are results of other trials and runs, for the page.
	Beside []trial.Variant

	// State is the state folder. Defaults to the user's.
	State string
	// Version is the version of the program.
	Version string
	// Command is how the user typed the trial, and the start of the command for the real run; may be empty.
	Command []string
	// Log gets warnings and errors.
	Log zerolog.Logger
	// Hooks report the progress.
	Hooks Hooks
}

const (
	// DefaultSample is the default of Config.Sample.
	DefaultSample = 20_000
	// DefaultPrecision is the default of Config.Precision.
	DefaultPrecision = 0.05
	// DefaultBudget is the default of Config.Budget.
	DefaultBudget = 10 * time.Minute
)

// Spec is a variant to run.
type Spec struct {
	// Name names it for people, and is unique in the trial.
	Name string
	// Model is the model to ask for; empty: the only one of the server.
	Model string
	// Settings are its values of --vary.
	Settings []trial.Setting
	// Command starts the server and may have {port} and {gpu}; empty: it runs at URL.
	Command string
	// URL is where the server answers. Defaults to the port that Command got.
	URL string
	// PricePerHour is the price of an hour of its machine; nil: unknown.
	PricePerHour *float64
}

// Strategy proposes the variants of a trial.
type Strategy interface {
	// Next returns the variants that are still to run, given those that have ended, in their order. It is called at
	// the start, and again when all that it returned have ended; none ends the trial. The same variants bring about
	// the same proposals, so that a trial that was killed goes on with the same ones.
	Next(ended []trial.Variant) []Spec
}

// List is a strategy: all variants of a list.
type List []Spec

// Next returns the specs that have not ended.
func (l List) Next(ended []trial.Variant) []Spec {
	if len(ended) > 0 {
		return nil
	}
	return l
}

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
