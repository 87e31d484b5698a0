package producer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

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
	v := newValidation(source, s, progress)
	err = v.run(ctx)

	return v.in, v.report, err
}

// validation reads an input once and checks each of its lines or rows.
type validation struct {
	source   Source
	settings proto.Settings
	progress func(requests int, bytes int64)
	// columns are columns that are read besides those of the templates.
	columns []string
	// visit is called with each good request, which is as it stands in the input then. Nil: the requests are
	// described as they will be sent.
	visit func(Original) error

	reader  *Reader
	counted *countingWriter

	// hasIDs reports that custom_ids may be there twice, and seen has those that were there.
	hasIDs bool
	seen   map[[16]byte]struct{}
	// repeated are the requests that have the custom_id of an earlier one, and repeatedLines their custom_ids, by
	// their index in report.Lines.
	repeated      []uint32
	repeatedLines map[int][16]byte

	sampling parameters
	in       proto.Input
	report   Report
}

// newValidation returns a validation of an input.
func newValidation(source Source, s proto.Settings, progress func(requests int, bytes int64)) *validation {
	return &validation{
		source:        source,
		settings:      s,
		progress:      progress,
		hasIDs:        s.Rows == nil || s.Rows.CustomID != "",
		seen:          map[[16]byte]struct{}{},
		repeatedLines: map[int][16]byte{},
		in:            proto.Input{Models: map[string]int{}},
	}
}

// run reads the input.
func (v *validation) run(ctx context.Context) (err error) {
	if v.in.Files, err = v.source.Describe(ctx); err != nil {
		return err
	}

	v.source.Validated = v.in.Files // what is read again must be the same

	sum := sha256.New()
	v.counted = &countingWriter{ctx: ctx, w: sum}
	if v.reader, err = v.openReader(ctx, v.counted); err != nil {
		return err
	}
	defer v.reader.Close()

	if v.settings.Rows != nil {
		v.reader.noteTables(v.in.Files, v.counted)
	}

	if err := v.readRequests(ctx); err != nil {
		return err
	}

	if err := v.checkEnd(ctx); err != nil {
		return err
	}

	v.in.Bytes = v.counted.n
	v.in.SHA256 = hex.EncodeToString(sum.Sum(nil))
	v.in.Invalid = v.report.Count
	v.in.DuplicateIDs = proto.FormatIndexes(v.repeated)
	v.in.Parameters = v.sampling.byName()

	return nil
}

// openReader opens a reader of the input.
func (v *validation) openReader(ctx context.Context, tee io.Writer) (*Reader, error) {
	r, err := NewReader(ctx, v.source, v.settings, tee)
	if err != nil {
		return nil, err
	}

	r.parser.asGiven = v.visit != nil
	if r.rows != nil && r.rows.columns != nil {
		r.rows.columns = append(slices.Clip(r.rows.columns), v.columns...)
	}

	return r, nil
}

// readRequests reads and checks the requests, until there are too many bad ones.
func (v *validation) readRequests(ctx context.Context) error {
	for {
		item, err := v.reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}

		if v.hasIDs {
			v.checkID(&item)
		}

		v.in.Requests++

		if item.Err != nil {
			v.report.add(item)
			if v.report.Count == MaxBad && !v.settings.SkipInvalid {
				return nil
			}
		}

		if err := v.takeRequest(item); err != nil {
			return err
		}

		if v.in.Requests%4096 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if v.progress != nil {
				v.progress(v.in.Requests, v.counted.n)
			}
		}
	}
}

// checkID refuses an item with the custom_id of an earlier one.
func (v *validation) checkID(item *Item) {
	key := HashID(item.CustomID)
	if _, ok := v.seen[key]; ok && item.Err == nil {
		item.Err = &LineError{
			Fault:    FaultDuplicateID,
			Param:    FaultDuplicateID.member(),
			IsRow:    item.isRow,
			TextLine: item.TextLine,
		}

		item.refuse()
		v.repeated = append(v.repeated, item.Index)

		if len(v.report.Lines) < MaxLines {
			v.repeatedLines[len(v.report.Lines)] = key
		}
	}

	if item.Err == nil || v.settings.SkipInvalid { // else nothing will be sent
		v.seen[key] = struct{}{}
	}
}

// takeRequest visits a good request, or counts any request in the description of the input.
func (v *validation) takeRequest(item Item) error {
	isGood := item.Err == nil
	switch {
	case v.visit != nil && isGood:
		return v.visit(v.reader.original(item))
	case v.visit != nil:
		return nil
	}

	v.in.Digest.Add(item.Index, item.CustomID, item.Hash())

	if isGood {
		v.sampling.countRequest(v.reader.parser.parameters)
		v.in.Models[item.Model]++
	}

	if len(v.in.Models) > MaxModels {
		return fmt.Errorf("%s: the input names more than %d models", item.Place(), MaxModels)
	}

	return nil
}

// checkEnd checks what can be known only once all requests were read.
func (v *validation) checkEnd(ctx context.Context) (err error) {
	s := v.settings

	switch {
	case ctx.Err() != nil: // which ends the text as well
		return ctx.Err()
	case v.in.Requests == 0 && s.Rows != nil:
		return ErrNoRows
	case v.in.Requests == 0:
		return ErrEmpty
	}

	if len(v.repeated) > 0 && !s.SkipInvalid {
		lines, err := v.openReader(ctx, nil)
		if err != nil {
			return err
		}
		defer lines.Close()

		if err := v.report.findEarlierLines(ctx, lines, v.repeatedLines); err != nil {
			return err
		}
	}

	if s.Limit == 0 && s.Sample == 0 { // else other rows may have it
		return v.reader.checkSeen()
	}

	v.in.Rows, err = v.reader.countAll()

	return err
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
		t, err := source.OpenTable(ctx, i, s.Rows.Table)
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
