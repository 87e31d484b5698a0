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

	source = SourceOf(in, source.Files, source.Opener) // what is read again must be the same

	sum := sha256.New()
	counted := &countingWriter{ctx: ctx, w: sum}
	r, err := NewReader(ctx, source, s, counted)
	if err != nil {
		return in, report, err
	}
	defer r.Close()

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
	sum := sha256.New()
	if s.Rows != nil {
		isMixed, err := hasParquet(ctx, source, s)
		if err != nil {
			return "", err
		}

		if isMixed {
			return checksumRows(ctx, source, s)
		}
	}

	for _, path := range source.Files {
		in, err := inputfile.OpenText(ctx, source.opener(), source.file(path), 0)
		if err != nil {
			return "", err
		}

		_, err = io.Copy(&countingWriter{ctx: ctx, w: sum}, in)
		in.Close()

		if ctx.Err() != nil {
			return "", ctx.Err()
		}

		if err != nil {
			return "", fmt.Errorf("read %s: %w", path, err)
		}
	}

	return hex.EncodeToString(sum.Sum(nil)), nil
}

// hasParquet reports whether one of the files is Parquet.
func hasParquet(ctx context.Context, source Source, s proto.Settings) (bool, error) {
	for _, path := range source.Files {
		t, err := table.Open(ctx, table.Config{
			Opener: source.opener(),
			File:   source.file(path),
			Table:  s.Rows.Table,
		})
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

// checksumRows returns the checksum of files of which some are Parquet, by reading their rows.
func checksumRows(ctx context.Context, source Source, s proto.Settings) (string, error) {
	sum := sha256.New()
	r, err := NewReader(ctx, source, s, &countingWriter{ctx: ctx, w: sum})
	if err != nil {
		return "", err
	}
	defer r.Close()

	for {
		_, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
	}

	if _, err := r.countAll(); err != nil {
		return "", err
	}

	return hex.EncodeToString(sum.Sum(nil)), nil
}

// CheckInput reads the files, and returns an error that wraps [proto.ErrInputChanged] if their
// text is not the validated one.
func CheckInput(ctx context.Context, in proto.Input, s proto.Settings, source Source) error {
	sum, err := Checksum(ctx, source, s)
	if err != nil {
		return fmt.Errorf("check the input: %w", err)
	}

	if sum != in.SHA256 {
		return fmt.Errorf("%w: the SHA-256 of its text began with %.12s, and begins with %.12s now",
			proto.ErrInputChanged, in.SHA256, sum)
	}

	return nil
}
