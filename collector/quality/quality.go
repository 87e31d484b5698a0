// Package quality judges the answers of a run: how many have the wanted form, how many are right, and how far two
// runs on the same requests agree.
package quality

import (
	"context"
	"encoding/json"
	"iter"
)

// Match is how an answer is compared with the expected one.
type Match string

// The ways to compare.
const (
	Exact  Match = "exact"  // the same text, but for white space around it
	Number Match = "number" // the same number: the last one in the answer
)

// Answer is the answer of a model to a request, for a scorer.
type Answer struct {
	CustomID string          `json:"custom_id"`
	Request  json.RawMessage `json:"request"`            // the body of the request
	Text     string          `json:"answer"`             // the text of the answer
	Expected *string         `json:"expected,omitempty"` // nil: nothing was expected
}

// Scorer scores answers.
type Scorer interface {
	// Score returns the scores of answers, 0 to 1, in their order.
	Score(ctx context.Context, answers iter.Seq2[Answer, error]) ([]float64, error)
}

// Quality is the judgement of the answers of a run. A share is of all requests that the run has worked on, failed
// ones with them: a request without an answer is neither of the wanted form nor right.
type Quality struct {
	// Requests is the number of requests that ended, answered or failed.
	Requests int `json:"requests"`
	// Schema is the share of answers that match the schema of the run, and SchemaAtOnce that of those whose first
	// answer did; nil: the run has no schema.
	Schema       *Share `json:"schema,omitempty"`
	SchemaAtOnce *Share `json:"schema_at_once,omitempty"`
	// Expected is the share of answers that equal the expected one; nil: nothing was expected.
	Expected *Share `json:"expected,omitempty"`
	// Wrong is the first answer that is not the expected one; nil: there is none.
	Wrong *Wrong `json:"wrong,omitempty"`
	// Score is the mean of the scores that the user's command gave; nil: there is none.
	Score *Score `json:"score,omitempty"`
	// Characters is the mean length of the answers in characters, and Empty the number of answers without text.
	Characters float64 `json:"characters"`
	Empty      int     `json:"empty"`
	// Data is the number of answers that are embeddings or rankings: they have no text, and count nowhere else but in
	// Requests.
	Data int `json:"data,omitempty"`
}

// Wrong is an answer that is not the expected one. Of long texts it has the beginning.
type Wrong struct {
	CustomID string `json:"custom_id"`
	Expected string `json:"expected"`
	Text     string `json:"answer"`
}

// Share is a part of a number of requests, with its 90 % interval (Wilson 1927).
type Share struct {
	Count int     `json:"count"`
	Of    int     `json:"of"`
	Share float64 `json:"share"` // 0 to 1
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// Score is a mean of scores with its 90 % interval.
type Score struct {
	Mean float64 `json:"mean"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	Of   int     `json:"of"` // requests with a score; a failed request has the score 0
}

// Comparison compares two runs by the requests that both have ended.
type Comparison struct {
	// Common is the number of these requests.
	Common int `json:"common"`
	// Agreement is the share of those that both have answered with a text whose answers are the same: the same text but
	// for white space around it, of runs with a schema the same JSON value, and with [Number] the same number. Nil:
	// there are none.
	Agreement *Share `json:"agreement,omitempty"`
	// Difference is the mean of the first run less that of the second, by the same requests, with its 90 % interval;
	// nil: the answers were not judged. By says of what: of right answers, else of scores, else of matches of the
	// schema.
	Difference *Difference `json:"difference,omitempty"`
	By         Measure     `json:"by,omitempty"`
}

// Difference is a difference of two means over the same requests, with its 90 % interval.
type Difference struct {
	Mean float64 `json:"mean"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// IsReal reports whether the interval leaves out zero.
func (d Difference) IsReal() bool { return d.Low > 0 || d.High < 0 }
