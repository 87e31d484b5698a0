// Package trial says what a trial has found: how fast and how good each of its variants is, which of their differences
// are real, and how long a job would take with each. Its result is a page, Markdown and JSON.
//
// A variant is a model on a server with its settings. All variants of a trial run the same sample of an input, each as
// an ordinary run with metadata of its own.
package trial

import (
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/quality"
)

// State is how far a variant is.
type State string

// The states of a variant.
const (
	Waiting  State = "waiting"  // not begun
	Running  State = "running"  // begun, not ended
	Measured State = "measured" // its interval is narrow enough, its budget is spent, or the sample is
	Beaten   State = "beaten"   // ended early: it is slower than the best for certain
	Failed   State = "failed"   // its server did not start, or its run failed
	Skipped  State = "skipped"  // the time of the trial was over before its turn
)

// HasEnded reports whether nothing is left to do for the variant.
func (s State) HasEnded() bool { return s != Waiting && s != Running }

// Setting is a value of --vary.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Variant is one candidate of a trial and what is known of it.
type Variant struct {
	// Name names it for people. It is unique in the trial.
	Name string `json:"name"`
	// Model is the model as the user named it, or as its server does.
	Model string `json:"model"`
	// Settings are its values of --vary, in the order of the flags.
	Settings []Setting `json:"settings,omitempty"`
	// Command started its server; empty: it ran already, at URL.
	Command string `json:"command,omitempty"`
	URL     string `json:"url,omitempty"`
	// PricePerHour is the price of an hour of its machine; nil: unknown.
	PricePerHour *float64 `json:"price_per_hour,omitempty"`

	State State `json:"state"`
	// Reason says why it failed, was beaten or skipped, or which bound ended it, in one sentence without its full stop.
	Reason string `json:"reason,omitempty"`
	// Log is the path of the server's log; empty: none.
	Log string `json:"log,omitempty"`
	// StartedAt and EndedAt are the times of its first start and of its end; zero: not yet.
	StartedAt time.Time `json:"started_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	// MeasuredUntil is the time at which enough was known of it. Its run ended some seconds later, with a server that
	// was not full any more. Zero: it counts to the end.
	MeasuredUntil time.Time `json:"measured_until,omitzero"`
	// Rounds are the times in which it was measured, in order, if variants took turns. Empty: it ran alone.
	Rounds []Round `json:"rounds,omitempty"`

	// Meta is the path of the metadata of its run; empty: none.
	Meta string `json:"meta,omitempty"`
	// Run is the content of Meta, or describes the run so far; nil: it has not begun.
	Run *metadata.Run `json:"-"`
	// Quality judges its answers; nil: not judged.
	Quality *quality.Quality `json:"quality,omitempty"`
}

// Round is a time in which the server of a variant was kept full, from full to the last request that was sent.
type Round struct {
	Number int       `json:"number"` // the same for all variants that took turns, from 1
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
}

// Goal is what a trial ranks by.
type Goal string

// The goals of a trial.
const (
	Throughput Goal = "throughput" // answered requests per second
	Cost       Goal = "cost"       // of 1,000 answers
	Best       Goal = "quality"    // the share of right answers, the score, or the form
)
