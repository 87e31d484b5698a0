package producer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/producer/prompt"
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
)

// Item is one input line, or one row of a table, that counts as a request.
type Item struct {
	proto.Request
	Model string
	// Line is the number of the line or the row in its file, from 1.
	Line int
	// TextLine is the number of the first line of a row of text, from 1; 0 for any other row,
	// and for lines.
	TextLine int
	// File is the path of the file, as given.
	File string
	// Err is the reason why the line or the row is refused, nil for a good one.
	Err *LineError
	// isRow reports that the item is a row of a table.
	isRow bool
}

// Place names the line or the row: in.jsonl:17, or in.csv, row 17 (line 18).
func (i Item) Place() string { return formatPlace(i.File, i.Line, i.TextLine, i.isRow) }

// Reader reads the requests of a run's input files, in order: of lines, or of the rows of
// tables. Its items' parts are valid until the next call.
type Reader struct {
	ctx       context.Context
	source    Source
	parser    *Parser
	selection selection
	// rows reads the rows of the current file. Nil: lines are requests.
	rows *rowReader
	// tee gets the unpacked text, or the lines of Parquet. It may be nil.
	tee io.Writer
	// duplicates are the requests whose custom_id an earlier line has. Only validation, which
	// has seen all, knows them.
	duplicates *roaring.Bitmap
	// opened is called with each table that is opened, and ended with the index of a file that was read to
	// its end. Nil: they are not called.
	opened func(table.Reader)
	ended  func(file int)
	// validated is set if validation has read the files, and so accepted their formats.
	validated bool
	// bounded is set if a file with too much filler is refused.
	bounded bool
	at      proto.Checkpoint
	in      io.Closer
	lines   *jsonl.Reader
	// line is the line that was read last, as it stands in the file; of rows it is not set.
	line []byte
	// filler bounds the text of lines. Nil: nothing does.
	filler *fillerReader
	idBuf  []byte
}

// NewReader reads the requests of the files under the settings, until ctx ends. If tee is
// given, the unpacked text is written to it, and of Parquet the lines of the rows. A file of
// another format than JSON lines is refused with a [FormatError], and unless s skips invalid
// lines, one with too much blank text with a [FillerError].
func NewReader(ctx context.Context, source Source, s proto.Settings, tee io.Writer) (*Reader, error) {
	r := &Reader{
		ctx:       ctx,
		source:    source,
		tee:       tee,
		selection: newSelection(s),
		bounded:   !s.SkipInvalid,
	}

	if s.Rows != nil {
		var err error
		if r.rows, err = newRowReader(ctx, source, s); err != nil {
			return nil, err
		}
		s = prompt.LineSettings(s)
	}

	var err error
	r.parser, err = NewParser(s)

	return r, err
}

// NewRunReader reads the requests of a run's input just as validation has found them: with the refused ones.
// The source is that of [SourceOf].
func NewRunReader(ctx context.Context, source Source, m proto.Manifest) (*Reader, error) {
	r, err := NewReader(ctx, source, m.Settings, nil)
	if err != nil {
		return nil, err
	}

	repeated, err := proto.ParseIndexes(m.Input.DuplicateIDs, m.Input.Requests)
	if err != nil {
		return nil, fmt.Errorf("repeated requests of run %s: %w", m.Run, err)
	}

	r.duplicates, r.validated, r.bounded = roaring.BitmapOf(repeated...), true, false
	r.selection.total = m.Input.Rows

	return r, nil
}

// Seek continues at a checkpoint of an earlier reader of the same files.
func (r *Reader) Seek(p proto.Checkpoint) error {
	r.Close()
	r.at = p
	r.selection.passed = p.Passed

	if p.File >= len(r.source.Files) {
		return nil
	}

	if r.rows != nil {
		return r.openTable(table.Position{Offset: p.Offset, Row: p.Row, Line: p.Line})
	}

	return r.openFile(p.Offset, p.Line)
}

// Checkpoint returns the place of the next request. The reader does not know its Shard.
func (r *Reader) Checkpoint() proto.Checkpoint {
	p := r.at
	switch {
	case r.lines != nil:
		p.Offset, p.Line = r.lines.Offset(), r.lines.Line()
	case r.rows != nil && r.rows.table != nil:
		at := r.rows.table.Position()
		p.Offset, p.Line, p.Row = at.Offset, at.Line, at.Row
	}

	p.Passed = 0
	if r.selection.sample > 0 {
		p.Passed = r.selection.passed
	}

	return p
}

// Next returns the next request, io.EOF at the end, or an error of the files. A line
// or a row that is no good request is an item with Err set.
func (r *Reader) Next() (Item, error) {
	if r.selection.isUnknown() {
		if err := r.countForSample(); err != nil {
			return Item{}, err
		}
	}

	for {
		if r.selection.isDone(r.at.Index) {
			return Item{}, io.EOF
		}

		var item Item
		if err := r.nextChosen(&item); err != nil {
			return Item{}, err
		}

		if item.File == "" { // not chosen
			continue
		}

		item.Index = r.at.Index
		if item.CustomID == nil {
			r.idBuf = append(strconv.AppendUint(append(r.idBuf[:0], `"request-`...), uint64(item.Index)+1, 10), '"')
			item.CustomID = r.idBuf
		}

		if item.Err == nil && r.duplicates != nil && r.duplicates.Contains(item.Index) {
			item.Err = &LineError{Fault: FaultDuplicateID}
		}

		if item.Err != nil {
			item.Err.IsRow, item.Err.TextLine = item.isRow, item.TextLine
			item.Err.completeParam(r.parser.inBody)
			item.refuse()
		}

		if r.at.Index == maxIndex {
			return Item{}, fmt.Errorf("read %s: more than %d requests", item.File, uint32(maxIndex))
		}

		r.at.Index++

		return item, nil
	}
}

// nextChosen reads the next line or row into an item, without its index. The File of the item stays
// empty if it is not chosen.
func (r *Reader) nextChosen(item *Item) error {
	for {
		isOpen := r.lines != nil || r.rows != nil && r.rows.table != nil
		if !isOpen {
			if r.at.File >= len(r.source.Files) {
				return io.EOF
			}

			err := error(nil)
			if r.rows != nil {
				err = r.openTable(table.Position{})
			} else {
				err = r.openFile(0, 0)
			}
			if err != nil {
				return err
			}
		}

		var err error
		if r.rows != nil {
			err = r.nextRow(item)
		} else {
			err = r.nextLine(item)
		}
		if !errors.Is(err, io.EOF) {
			return err
		}

		r.Close()
		if r.ended != nil {
			r.ended(r.at.File)
		}
		r.at = proto.Checkpoint{File: r.at.File + 1, Index: r.at.Index}
	}
}

// nextLine reads the next line of the current file into an item.
func (r *Reader) nextLine(item *Item) error {
	line, err := r.lines.Next()
	file, number := r.source.Files[r.at.File], r.lines.Line()
	filler, isFiller := errors.AsType[*FillerError](err)
	switch {
	case errors.Is(err, io.EOF):
		return io.EOF
	case isFiller && filler.isLine:
		number++ // it has not ended
		r.Close()
		r.at.File = len(r.source.Files)
	case isFiller:
		return &FillerError{File: file, Line: number}
	case err != nil && !errors.Is(err, jsonl.ErrLineTooLong):
		return err
	case r.filler != nil:
		r.filler.useful += int64(len(line)) + 1
	}

	if !r.selection.next() {
		return r.selection.checkContext(r.ctx)
	}

	item.File, item.Line, r.line = file, number, line
	if err != nil {
		item.Err = &LineError{Fault: FaultTooLong}
	} else {
		item.Request, item.Model, item.Err = r.parser.Parse(line)
	}

	return nil
}

// refuse makes the item one that is not sent.
func (i *Item) refuse() { i.Refused, i.URL, i.Body = i.Err.Error(), "", nil }

// maxIndex keeps numbers and counts inside 32 bits.
const maxIndex = 1<<32 - 2

// Close closes the file that is open.
func (r *Reader) Close() {
	if r.in != nil {
		r.in.Close()
		r.in, r.lines = nil, nil
	}
	if r.rows != nil {
		r.rows.close()
	}
}

// openFile opens the current file at an offset in its text, before which there are some lines.
func (r *Reader) openFile(offset int64, line int) error {
	path := r.source.Files[r.at.File]

	in, err := inputfile.OpenText(r.ctx, r.source.opener(), r.source.file(r.at.File), offset)
	if err != nil {
		return err
	}

	r.in = in
	var text io.Reader = in
	if r.tee != nil {
		text = io.TeeReader(in, r.tee)
	}

	r.filler = nil
	if r.bounded {
		r.filler = &fillerReader{r: text}
		text = r.filler
	}

	r.lines = jsonl.NewReaderAt(text, offset, line)
	if offset == 0 && !r.validated {
		if err := r.checkFormat(path); err != nil {
			r.Close()
			return err
		}
	}

	return nil
}

// copyRequest copies a request into new memory. append need not clear the memory first, as
// slices.Concat does.
func copyRequest(q proto.Request) proto.Request {
	if len(q.Body) == 0 {
		q.CustomID = bytes.Clone(q.CustomID)
		return q
	}
	all := append(slices.Clip(q.CustomID), q.Body...)
	q.CustomID, q.Body = all[:len(q.CustomID):len(q.CustomID)], all[len(q.CustomID):]
	return q
}
