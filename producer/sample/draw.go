package sample

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/prompt"
	"github.com/promptmill/promptmill/proto"
)

// Config says what is drawn from which input.
type Config struct {
	// Source has the files of the input. Required.
	Source producer.Source
	// Settings say how the files are read: Rows, Endpoint, Limit, SkipInvalid, and for tables Schema and the
	// templates of Set. Their models, their other fields of Set and their Sample are for the runs: see [LineSettings].
	Settings proto.Settings
	// Size is the number of requests to draw. All are drawn of an input that has no more. Required.
	Size int
	// Expect names what has the expected answer of a request: a column of the table, or a field of the line. A field
	// in an object has the names on the way to it, with dots: metadata.answer. Defaults to none.
	Expect string
	// Folder is where the temporary file with the lines lies, which gets up to four times as large as the sample.
	// Defaults to that of the system.
	Folder string
	// Progress is called from time to time with the requests and bytes read. Defaults to none.
	Progress func(requests int, bytes int64)
}

// Sample describes a sample and the input that it is from.
type Sample struct {
	// Requests is the number of requests of the sample.
	Requests int `json:"requests"`
	// Expected is the number of those whose expected answer is known.
	Expected int `json:"expected,omitempty"`
	// Lengths are the lengths of their bodies in bytes.
	Lengths Lengths `json:"lengths"`

	// Of is the number of good requests of the input, and Invalid that of its other ones, which were skipped.
	Of      int `json:"of"`
	Invalid int `json:"invalid,omitempty"`
	// OfLengths are the lengths of the bodies of the good ones in bytes.
	OfLengths Lengths `json:"of_lengths"`

	// Files are the files of the input, and InputSHA256 and InputBytes describe their text: see [proto.Input].
	Files       []proto.File `json:"files"`
	InputSHA256 string       `json:"input_sha256"`
	InputBytes  int64        `json:"input_bytes"`
}

// Draw draws a sample and writes its requests to lines, as lines of a batch: with the custom_id that the request has
// in a run of the input, with its own model or none, and with its body as it stands in the input, or as the row is
// rendered. Each request of the input is as likely in the sample as any other one, and the same input has the same
// sample, byte for byte. Its first n requests are balanced by length, for each n.
//
// If something is expected, its answers are written to expected in the order of the requests: one JSON string a line,
// or null if a request has none. Numbers, truth values, lists and objects are strings of their JSON.
//
// Nothing is written if the input is refused: with the errors of [producer.Validate], with a [RefusedError] if lines
// cannot be sent and are not to be skipped, and with a [MissingError] if no request of the sample has the expected
// answer.
func Draw(ctx context.Context, cfg Config, lines, expected io.Writer) (Sample, error) {
	d, err := newDrawing(cfg)
	if err != nil {
		return Sample{}, err
	}
	defer d.store.close()

	if err := checkColumn(ctx, cfg); err != nil {
		return Sample{}, err
	}

	s, err := d.read(ctx)
	if err != nil {
		return Sample{}, err
	}

	chosen := d.finish()
	s.Requests = len(chosen)

	var lengths histogram
	for _, c := range chosen {
		lengths.add(c.body)
		if c.known {
			s.Expected++
		}
	}

	s.Lengths = lengths.describe()

	if cfg.Expect != "" && s.Expected == 0 {
		return Sample{}, &MissingError{
			Name:  cfg.Expect,
			Names: d.fields.names,
			IsRow: cfg.Settings.Rows != nil,
		}
	}

	if err := d.write(ctx, chosen, lines, expected); err != nil {
		return Sample{}, fmt.Errorf("write the sample: %w", err)
	}

	return s, nil
}

// LineSettings returns the settings of a run of the sample, by those of a run of the input: its requests are the same
// ones then. The lines have already what was rendered from rows.
func LineSettings(s proto.Settings) proto.Settings {
	if s.Rows != nil {
		s = prompt.LineSettings(s)
		s.Rows = nil
	}

	s.Limit, s.Sample = 0, 0

	return s
}

// read reads the input, and describes it.
func (d *drawing) read(ctx context.Context) (Sample, error) {
	cfg := producer.SurveyConfig{
		Source:   d.cfg.Source,
		Settings: d.cfg.Settings,
		Progress: d.cfg.Progress,
		Visit:    d.consider,
	}

	cfg.Settings.Sample = 0
	if d.cfg.Expect != "" {
		cfg.Columns = []string{d.cfg.Expect}
	}

	in, report, err := producer.Survey(ctx, cfg)
	if err != nil {
		return Sample{}, err
	}

	good := in.Requests - report.Count
	if report.Count > 0 && !cfg.Settings.SkipInvalid || good == 0 {
		return Sample{}, &RefusedError{Report: report, Requests: in.Requests}
	}

	return Sample{
		Of:          good,
		Invalid:     report.Count,
		OfLengths:   d.lengths.describe(),
		Files:       in.Files,
		InputSHA256: in.SHA256,
		InputBytes:  in.Bytes,
	}, nil
}

// write writes the lines of requests, and the expected answers.
func (d *drawing) write(ctx context.Context, chosen []candidate, lines, expected io.Writer) error {
	const buffer = 256 << 10
	to := bufio.NewWriterSize(lines, buffer)

	var answers *bufio.Writer
	if d.cfg.Expect != "" {
		answers = bufio.NewWriterSize(expected, buffer)
	}

	for i, c := range chosen {
		if i%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}

		line, answer, err := d.store.read(c)
		if err != nil {
			return err
		}

		to.Write(line) // Flush returns the first error
		if answers != nil {
			answers.Write(answer)
			answers.WriteByte('\n')
		}
	}

	if answers == nil {
		return to.Flush()
	}

	return errors.Join(to.Flush(), answers.Flush())
}
