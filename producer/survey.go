package producer

import (
	"context"

	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
)

// SurveyConfig says which input is read, and what is done with its requests.
type SurveyConfig struct {
	// Source has the files. Required.
	Source Source
	// Settings say how the lines or rows are read. Their Model and OverrideModel are not used, and of lines
	// neither is Set: the requests stay as they are.
	Settings proto.Settings
	// Columns are columns of a table whose values are wanted, besides those that the templates use. One that a
	// file does not have is ignored. Defaults to none.
	Columns []string
	// Progress is called from time to time with the requests and bytes read. Defaults to none.
	Progress func(requests int, bytes int64)
	// Visit is called with each request that is not refused, in their order. Its error ends the survey. Required.
	Visit func(Original) error
}

// Original is a request as it stands in an input. Its parts are valid until the next one.
type Original struct {
	// Item has the request. Its Model is empty if the request names none, and its body lacks what the settings of
	// a run would add.
	Item
	// Text is the line of the request, as it stands in the file; nil for a row.
	Text []byte
	// Row is the row of the request; without columns for a line.
	Row table.Row
}

// Survey reads the whole input once and checks each line or row as [Validate] does, but for the models that they
// name: the model is to be another one. It visits the good requests, and describes the input without the digest,
// the models and the parameters of its requests.
func Survey(ctx context.Context, cfg SurveyConfig) (in proto.Input, report Report, err error) {
	s := cfg.Settings
	s.Model, s.OverrideModel = "", ""

	v := newValidation(cfg.Source, s, cfg.Progress)
	v.columns, v.visit = cfg.Columns, cfg.Visit
	err = v.run(ctx)

	return v.in, v.report, err
}

// original returns an item, which was read last, with what it was read from.
func (r *Reader) original(item Item) Original {
	if r.rows != nil {
		return Original{Item: item, Row: r.rows.row}
	}
	return Original{Item: item, Text: r.line}
}
