package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/inputerror"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
)

// measureInputs checks the beginnings of the inputs and estimates their size.
func (o Options) measureInputs(ctx context.Context) (space, error) {
	in := inputerror.Input{Files: o.Inputs, Opener: o.Opener, Prompts: true}
	if err := in.Check(ctx, o.Settings); err != nil {
		return space{}, err
	}

	s, err := estimateSpace(ctx, o.Opener, o.Inputs, o.Settings)

	return s, in.Describe(err)
}

// Assumptions of an estimate of the output: only the run has the facts.
const (
	assumedLine    = 4000 // bytes of an output line
	assumedPacking = 3    // to 1, of text by zstd
)

// space is the size of an input: requests, and bytes of text.
type space struct {
	requests, text int64
	exact          bool // all of it was read
	rows           bool // the requests are made of rows
}

// sampleSize is the number of bytes of each file that an estimate reads.
const sampleSize = 4 << 20

// estimateSpace reads the beginnings of files. A packed file counts as assumedPacking times its
// size.
func estimateSpace(ctx context.Context, opener inputfile.Opener, inputs []string, s proto.Settings) (space, error) {
	all := space{exact: true, rows: s.Rows != nil}
	for _, path := range inputs {
		if path == "-" {
			return all, exit.Usage("name a file", "the size of standard input is unknown before it is read")
		}

		sample := sampleFile
		if s.Rows != nil {
			sample = func(ctx context.Context, opener inputfile.Opener, path string) (space, error) {
				return sampleRows(ctx, opener, path, s)
			}
		}

		file, err := sample(ctx, opener, path)
		if err != nil {
			return all, err
		}

		all.requests, all.text, all.exact = all.requests+file.requests, all.text+file.text, all.exact && file.exact
	}

	return all, nil
}

func sampleFile(ctx context.Context, opener inputfile.Opener, path string) (space, error) {
	file := proto.File{Path: path}
	in, err := inputfile.OpenText(ctx, opener, file, 0)
	if err != nil {
		return space{}, err
	}
	defer in.Close()

	sample, err := io.ReadAll(io.LimitReader(in, sampleSize))
	if err != nil {
		return space{}, fmt.Errorf("read %s: %w", path, err)
	}

	lines := int64(bytes.Count(sample, []byte("\n")))
	if len(sample) > 0 && sample[len(sample)-1] != '\n' {
		lines++
	}

	if len(sample) < sampleSize {
		return space{requests: lines, text: int64(len(sample)), exact: true}, nil
	}

	file, err = opener.Stat(ctx, path)
	compression, err2 := inputfile.Compression(ctx, opener, file)
	if err := errors.Join(err, err2); err != nil {
		return space{}, err
	}

	text := file.Bytes
	if compression != "" {
		text *= assumedPacking
	}

	return space{requests: int64(float64(text) / float64(len(sample)) * float64(lines)), text: text}, nil
}

// sampleRows renders the first rows of a table. The error says which of them cannot be sent.
func sampleRows(ctx context.Context, opener inputfile.Opener, path string, s proto.Settings) (space, error) {
	s.SkipInvalid, s.Limit, s.Sample = false, 0, 0
	if s.Model == "" && s.OverrideModel == "" {
		s.Model = "any" // a run asks the model server
	}

	r, err := producer.NewReader(ctx, producer.Source{Files: []string{path}, Opener: opener}, s, nil)
	if err != nil {
		return space{}, err
	}
	defer r.Close()

	sample, refused := space{rows: true}, 0
	var first producer.Item
	var at proto.Checkpoint
	for sample.text < sampleSize {
		item, err := r.Next()
		if errors.Is(err, io.EOF) {
			sample.exact = true
			break
		}
		if err != nil {
			return space{}, err
		}

		if item.Err != nil {
			if refused++; refused == 1 {
				first = item
			}
		}

		at = r.Checkpoint()
		sample.requests++
		sample.text += int64(len(item.Body)) + int64(len(item.CustomID))
	}

	switch {
	case refused > 0:
		first.File = files.Short(path)
		return space{}, exit.Usage("promptmill run with the same input and --dry-run checks all rows",
			"%d of the first %d rows cannot be sent: %s: %w", refused, sample.requests, first.Place(), first.Err)
	case sample.exact || sample.requests == 0:
		return sample, nil
	}

	read, all, err := measureTable(ctx, opener, path, s.Rows.Table, at)
	if err != nil {
		return space{}, err
	}
	if read == 0 { // Parquet in a folder of Hive's layout does not say its rows
		read = sample.text
	}

	scale := max(1, float64(all)/float64(read))

	return space{
		requests: int64(float64(sample.requests) * scale),
		text:     int64(float64(sample.text) * scale),
		rows:     true,
	}, nil
}

// measureTable returns how much of a table is before a place, and how much it has: in rows, if the file
// says how many it has, and else in bytes of text. read is 0 if the place is not known.
func measureTable(
	ctx context.Context, opener inputfile.Opener, path string, of proto.Table, at proto.Checkpoint,
) (read, all int64, err error) {
	if at.Offset == 0 {
		t, err := table.Open(ctx, table.Config{Opener: opener, File: proto.File{Path: path}, Table: of})
		if err != nil {
			return 0, 0, err
		}
		defer t.Close()

		if counted, ok := t.(interface{ Rows() int }); ok {
			return int64(at.Row), int64(counted.Rows()), nil
		}
	}

	file, err := opener.Stat(ctx, path)
	compression, err2 := inputfile.Compression(ctx, opener, file)
	if err := errors.Join(err, err2); err != nil {
		return 0, 0, err
	}

	all = file.Bytes
	if compression != "" || at.Offset == 0 {
		all *= assumedPacking
	}

	return at.Offset, all, nil
}

// outputBytes returns the size of the output in bytes, twice: the final files are written next to
// the journal.
func (s space) outputBytes() int64 { return 2 * s.requests * assumedLine / assumedPacking }

// storeBytes returns the size in bytes of the store of a bus for this run alone.
func (s space) storeBytes() int64 {
	return min(s.text/assumedPacking, natsserver.MaxWorkBytes) + natsserver.MaxResultsBytes
}

func (s space) String() string {
	about := "about "
	if s.exact {
		about = ""
	}
	of := ""
	if s.rows {
		of = " of rows"
	}

	return fmt.Sprintf("%s%d requests%s, %s of text; assumed: %s an answer, packed %d to 1, and room for journal and final files at once",
		about, s.requests, of, formatBytes(s.text), formatBytes(assumedLine), assumedPacking)
}
