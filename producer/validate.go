package producer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/promptmill/promptmill/producer/inputfile"
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

// Validate reads the whole input and checks each line, in memory that grows only by
// the 16 bytes of each custom_id's hash. progress, which may be nil, is called from
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

		key := HashID(item.CustomID)
		if _, ok := seen[key]; ok && item.Err == nil {
			item.Err = &LineError{Fault: FaultDuplicateID, Param: FaultDuplicateID.member()}
			item.refuse()
			repeated = append(repeated, item.Index)
			if len(report.Lines) < MaxLines {
				repeatedLines[len(report.Lines)] = key
			}
		}

		if item.Err == nil || s.SkipInvalid { // else nothing will be sent
			seen[key] = struct{}{}
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
				return in, report, fmt.Errorf("%s:%d: the input names more than %d models",
					item.File, item.Line, MaxModels)
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

	if in.Requests == 0 {
		return in, report, ErrEmpty
	}

	if len(repeated) > 0 && !s.SkipInvalid {
		if err := report.findEarlierLines(ctx, source, s, repeatedLines); err != nil {
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

// Checksum returns the SHA-256 of the unpacked text of the files, in hexadecimal.
func Checksum(ctx context.Context, source Source, _ proto.Settings) (string, error) {
	sum := sha256.New()
	for _, path := range source.Files {
		in, err := inputfile.OpenText(ctx, source.opener(), source.file(path), 0)
		if err != nil {
			return "", err
		}

		_, err = io.Copy(sum, in)
		in.Close()
		if err != nil {
			return "", fmt.Errorf("read %s: %w", path, err)
		}

		if err := ctx.Err(); err != nil {
			return "", err
		}
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
