package producer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// MaxBad is the number of refused lines after which reading stops, unless they are to be skipped:
// such a file holds something else, and may unpack to a billion lines of it.
const MaxBad = 1 << 20

// MaxModels is the most models that the requests of one run may name: each has its own consumer
// on the bus.
const MaxModels = 256

// ErrEmpty is returned for an input without a single request.
var ErrEmpty = errors.New("no requests in the input")

// ErrNoRows is returned for tables without a single row.
var ErrNoRows = errors.New("no rows in the input")

// Validate reads the whole input and checks each line or row, in memory that grows only by
// the 16 bytes of each custom_id's hash, and not at all if all are made from the index. progress,
// which may be nil, is called from
// time to time with the requests and bytes read.
func Validate(
	ctx context.Context, source Source, s proto.Settings, progress func(requests int, bytes int64),
) (in proto.Input, report Report, err error) {
	in.Models = map[string]int{}
	if in.Files, err = source.Describe(ctx); err != nil {
		return in, report, err
	}

	source.Validated = in.Files // what is read again must be the same

	sum := sha256.New()
	counted := &countingWriter{ctx: ctx, w: sum}
	r, err := NewReader(ctx, source, s, counted)
	if err != nil {
		return in, report, err
	}
	defer r.Close()

	if s.Rows != nil {
		r.noteTables(in.Files, counted)
	}

	hasIDs := s.Rows == nil || s.Rows.CustomID != ""
	seen := map[[16]byte]struct{}{}
	var repeated []uint32
	repeatedLines := map[int][16]byte{} // the custom_ids of duplicates, by their index in report.Lines
	var sampling parameters
	for {
		item, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return in, report, err
		}

		if hasIDs {
			key := HashID(item.CustomID)
			if _, ok := seen[key]; ok && item.Err == nil {
				item.Err = &LineError{
					Fault:    FaultDuplicateID,
					Param:    FaultDuplicateID.member(),
					IsRow:    item.isRow,
					TextLine: item.TextLine,
				}

				item.refuse()
				repeated = append(repeated, item.Index)

				if len(report.Lines) < MaxLines {
					repeatedLines[len(report.Lines)] = key
				}
			}

			if item.Err == nil || s.SkipInvalid { // else nothing will be sent
				seen[key] = struct{}{}
			}
		}

		in.Requests++
		in.Digest.Add(item.Index, item.CustomID, item.Hash())

		if item.Err != nil {
			report.add(item)
			if report.Count == MaxBad && !s.SkipInvalid {
				break
			}
		} else {
			in.Models[item.Model]++
			if len(in.Models) > MaxModels {
				return in, report, fmt.Errorf("%s: the input names more than %d models",
					item.Place(), MaxModels)
			}
			sampling.countRequest(r.parser.parameters)
		}

		if in.Requests%4096 == 0 {
			if err := ctx.Err(); err != nil {
				return in, report, err
			}
			if progress != nil {
				progress(in.Requests, counted.n)
			}
		}
	}

	switch {
	case in.Requests == 0 && s.Rows != nil:
		return in, report, ErrNoRows
	case in.Requests == 0:
		return in, report, ErrEmpty
	}

	if len(repeated) > 0 && !s.SkipInvalid {
		if err := report.findEarlierLines(ctx, source, s, repeatedLines); err != nil {
			return in, report, err
		}
	}

	if s.Limit == 0 && s.Sample == 0 { // else other rows may have it
		if err := r.checkSeen(); err != nil {
			return in, report, err
		}
	}

	if s.Limit > 0 || s.Sample > 0 {
		if in.Rows, err = r.countAll(); err != nil {
			return in, report, err
		}
	}

	in.Bytes = counted.n
	in.SHA256 = hex.EncodeToString(sum.Sum(nil))
	in.Invalid = report.Count
	in.DuplicateIDs = proto.FormatIndexes(repeated)
	in.Parameters = sampling.byName()

	return in, report, nil
}

// noteTables notes in files, while they are read, how they are read and how much text each has.
func (r *Reader) noteTables(files []proto.File, counted *countingWriter) {
	var before int64

	r.opened = func(t table.Reader) {
		files[r.at.File].Format, files[r.at.File].Delimiter = t.Format(), t.Delimiter()
	}

	r.ended = func(file int) {
		files[file].TextBytes = counted.n - before
		before = counted.n
	}
}

// HashID reduces a custom_id, given as a JSON string, to 16 bytes: the same for all its spellings.
func HashID(raw []byte) [16]byte {
	sum := sha256.Sum256(idText(raw))
	return [16]byte(sum[:16])
}

// idText is the custom_id without quotes and escapes.
func idText(raw []byte) []byte {
	id, err := jsonscan.Unquote(raw)
	if err != nil { // not possible after parsing
		return raw
	}
	return id
}

// countingWriter counts the bytes written through it, until ctx ends: a long part of a file may
// have no request in it.
type countingWriter struct {
	ctx context.Context
	w   io.Writer
	n   int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	c.n += int64(len(p))
	return c.w.Write(p)
}

// Checksum returns the SHA-256 of the files under the settings in hexadecimal, as [proto.Input]
// has it.
func Checksum(ctx context.Context, source Source, s proto.Settings) (string, error) {
	sum, _, err := sumFiles(ctx, source, s)
	return sum, err
}

// sumFiles returns the checksum of the files, and how much text each has.
func sumFiles(ctx context.Context, source Source, s proto.Settings) (string, []int64, error) {
	sum := sha256.New()
	counted := &countingWriter{ctx: ctx, w: sum}

	if s.Rows != nil {
		isMixed, err := hasParquet(ctx, source, s)
		if err != nil {
			return "", nil, err
		}

		if isMixed {
			sizes, err := sumRows(ctx, source, s, counted)
			return hex.EncodeToString(sum.Sum(nil)), sizes, err
		}
	}

	sizes := make([]int64, len(source.Files))
	for i, path := range source.Files {
		in, err := inputfile.OpenText(ctx, source.opener(), source.file(i), 0)
		if err != nil {
			return "", nil, err
		}

		sizes[i], err = io.Copy(counted, in)
		in.Close()

		if ctx.Err() != nil {
			return "", nil, ctx.Err()
		}

		if err != nil {
			return "", nil, fmt.Errorf("read %s: %w", path, err)
		}
	}

	return hex.EncodeToString(sum.Sum(nil)), sizes, nil
}

// hasParquet reports whether one of the files is Parquet.
func hasParquet(ctx context.Context, source Source, s proto.Settings) (bool, error) {
	for i := range source.Files {
		t, err := source.openTable(ctx, i, s.Rows.Table)
		if err != nil {
			return false, err
		}

		format := t.Format()
		t.Close()
		if format == proto.FormatParquet {
			return true, nil
		}
	}

	return false, nil
}

// sumRows writes the text of files, of which some are Parquet, by reading their rows. It returns how much
// text each has.
func sumRows(ctx context.Context, source Source, s proto.Settings, to *countingWriter) ([]int64, error) {
	r, err := NewReader(ctx, source, s, to)
	if err != nil {
		return nil, err
	}
	defer r.Close()

	files := make([]proto.File, len(source.Files))
	r.noteTables(files, to)

	for {
		_, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}

	if _, err := r.countAll(); err != nil {
		return nil, err
	}

	sizes := make([]int64, len(files))
	for i, f := range files {
		sizes[i] = f.TextBytes
	}

	return sizes, nil
}

// ChangedInputError reports that files are not the validated input. It wraps [proto.ErrInputChanged].
type ChangedInputError struct {
	// Reason is the difference, as the end of a sentence.
	Reason string
}

// Error implements error.
func (e *ChangedInputError) Error() string { return proto.ErrInputChanged.Error() + ": " + e.Reason }

// Unwrap returns [proto.ErrInputChanged].
func (e *ChangedInputError) Unwrap() error { return proto.ErrInputChanged }

// changedInputf returns a [ChangedInputError].
func changedInputf(format string, args ...any) error {
	return &ChangedInputError{Reason: fmt.Sprintf(format, args...)}
}

// CheckInput reads the files, and returns a [ChangedInputError] if they are not the validated ones: if their
// text, or of tables the part of it in each file, is another. With [SourceOf] the same text is also the
// same table, whatever the files are called.
func CheckInput(ctx context.Context, in proto.Input, s proto.Settings, source Source) error {
	if s.Rows != nil && len(source.Files) != len(in.Files) {
		return changedInputf("it had %d files, and has %d now", len(in.Files), len(source.Files))
	}

	sum, sizes, err := sumFiles(ctx, source, s)
	if err != nil {
		return fmt.Errorf("check the input: %w", err)
	}

	if sum != in.SHA256 {
		return changedInputf("the SHA-256 of its text began with %.12s, and begins with %.12s now", in.SHA256, sum)
	}

	for i, size := range sizes {
		if s.Rows != nil && size != in.Files[i].TextBytes {
			return changedInputf("its text is divided into files at other places: %s has %d bytes of it, and had %d",
				source.Files[i], size, in.Files[i].TextBytes)
		}
	}

	return nil
}
