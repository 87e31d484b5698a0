package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// joiner joins the rows of an input with the output lines.
type joiner struct {
	rows  *producer.RowReader
	lines lineSource
	run   proto.Manifest
	// format decides the form of the values.
	format format

	// columns are the columns of the table: those of the input, and those of the answers from
	// columns[inputs] on.
	columns []table.Column
	inputs  int
	parser  *answerParser
	places  columnPlaces

	// rowColumns and values are the columns and the values of the latest row.
	rowColumns []table.Column
	values     []table.Value
	// index is the number of rows so far, and latest the latest one.
	index  int
	latest producer.Row
	buf    []byte
}

// newJoiner opens the input and the output of a table. The columns in wide have numbers of any size.
func newJoiner(ctx context.Context, cfg Config, f format, wide []string) (_ *joiner, err error) {
	input, answer, err := findColumns(ctx, cfg)
	if err != nil {
		return nil, err
	}

	j := &joiner{
		run:     cfg.Run,
		format:  f,
		columns: append(append([]table.Column(nil), input...), answer.all...),
		inputs:  len(input),
		parser:  &answerParser{columns: answer},
		places:  newColumnPlaces(input),
	}

	for i := range j.columns {
		if slices.Contains(wide, j.columns[i].Name) {
			j.columns[i] = table.Column{Name: j.columns[i].Name, Kind: table.KindNumber}
		}
	}

	if j.rows, err = producer.NewRowReader(ctx, cfg.Input, cfg.Run); err != nil {
		return nil, err
	}

	if j.lines, err = openLines(ctx, cfg); err != nil {
		j.close()
		return nil, err
	}

	return j, nil
}

// findColumns returns the columns of the input, and those of the answers.
func findColumns(ctx context.Context, cfg Config) (input []table.Column, answer answerColumns, err error) {
	if input, err = producer.RowColumns(ctx, cfg.Input, cfg.Run); err != nil {
		return nil, answer, err
	}

	answer, err = newAnswerColumns(cfg.Run.Settings, input)

	return input, answer, err
}

// openLines opens the output lines in the order of the requests.
func openLines(ctx context.Context, cfg Config) (lineSource, error) {
	lines, err := openLineFiles(cfg.Output)
	if err != nil {
		return nil, err
	}

	if cfg.Ordered {
		return lines, nil
	}
	defer lines.close()

	sorted, err := sortLines(ctx, lines, filepath.Dir(cfg.Path), usualSortLimits)
	if err != nil {
		return nil, err
	}

	return sorted, nil
}

// close closes all files.
func (j *joiner) close() {
	if j.rows != nil {
		j.rows.Close()
	}
	if j.lines != nil {
		j.lines.close()
	}
}

// isAtEnd reports whether all rows were joined.
func (j *joiner) isAtEnd() bool { return j.index == j.run.Input.Requests }

// next returns the columns and the values of the next row of the table, valid until the next call.
func (j *joiner) next() ([]table.Column, []table.Value, error) {
	row, err := j.rows.Next()
	if errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("%w: it ends after %d of %d requests", proto.ErrInputChanged, j.index,
			j.run.Input.Requests)
	}
	if err != nil {
		return nil, nil, err
	}

	j.latest = row
	j.index++

	line, err := j.lines.next()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}

	if problem := j.findMismatch(row, line, err == nil); problem != "" {
		return nil, nil, j.mismatch(problem)
	}

	answer, err := j.parser.parse(line)
	if err != nil {
		return nil, nil, j.mismatch(fmt.Sprintf("the answer in its output line is damaged: %v", err))
	}

	if j.format.isSparse {
		j.joinSparse(row, answer)
	} else {
		err = j.join(row, answer)
	}

	return j.rowColumns, j.values, err
}

// wideNumberError reports that a number does not fit into its column.
type wideNumberError struct{ column string }

func (e *wideNumberError) Error() string {
	return fmt.Sprintf("the column %s has numbers of more than 64 bits", e.column)
}

// join makes a row with all columns. The error is a [wideNumberError] if a column needs to be wider.
func (j *joiner) join(row producer.Row, answer []table.Value) error {
	j.rowColumns = j.columns
	if j.values == nil {
		j.values = make([]table.Value, len(j.columns))
	}

	clear(j.values)

	for i, place := range j.places.find(row.Columns) {
		j.values[place] = row.Values[i]
	}

	copy(j.values[j.inputs:], answer)

	if !j.format.isTyped {
		return nil
	}

	for i, c := range j.columns {
		if j.values[i].Kind == c.Kind || c.Parquet != nil || j.values[i].IsNull() {
			continue
		}

		if j.values[i] = convert(j.values[i], c.Kind); j.values[i].IsNull() {
			return &wideNumberError{c.Name}
		}
	}

	return nil
}

// joinSparse makes a row with the columns that the row of the input has.
func (j *joiner) joinSparse(row producer.Row, answer []table.Value) {
	j.rowColumns = append(append(j.rowColumns[:0], row.Columns...), j.columns[j.inputs:]...)
	j.values = append(append(j.values[:0], row.Values...), answer...)
}

// findMismatch returns the reason why the next output line is not that of a row; empty if it is. ok
// reports that there is a line.
func (j *joiner) findMismatch(row producer.Row, line outputLine, ok bool) string {
	switch index := int64(row.Index); {
	case !ok || line.Index > index:
		return "the output has no line for it"
	case line.Index < index:
		return fmt.Sprintf("the output has a line of request %d, %s, before its line: a second one, or one of another run",
			line.Index+1, line.CustomID)
	}

	if row.CustomID != nil {
		if !jsonscan.SameText(row.CustomID, line.CustomID) {
			return fmt.Sprintf("its custom_id is %s, and its output line has %s", row.CustomID, line.CustomID)
		}
		return ""
	}

	j.buf = j.buf[:0]

	// A column has the custom_id. A row that is refused, maybe because the column is empty, can have a
	// generated one.
	id := jsonscan.Text(line.CustomID)
	for i, c := range row.Columns {
		if c.Name == j.run.Settings.Rows.CustomID {
			j.buf = row.Values[i].AppendText(j.buf[:0])
		}
	}

	if string(id) == string(j.buf) {
		return ""
	}

	generated := "request-" + strconv.FormatUint(uint64(row.Index)+1, 10)
	if line.ErrorCode == proto.CodeInvalidRequest && string(id) == generated {
		return ""
	}

	return fmt.Sprintf("its custom_id is %q, and its output line has %s", j.buf, line.CustomID)
}

// mismatch returns the error of the latest row.
func (j *joiner) mismatch(problem string) error {
	return &MismatchError{
		File:    filepath.Base(j.latest.File),
		Row:     j.latest.Number,
		Problem: problem,
	}
}

// checkEnd returns an error if there are more lines than rows.
func (j *joiner) checkEnd() error {
	line, err := j.lines.next()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}

	return &MismatchError{Problem: fmt.Sprintf("it has %d requests, and the output has a further line, of request %d, %s",
		j.run.Input.Requests, line.Index+1, line.CustomID)}
}

// columnPlaces finds the places of columns among those of a table.
type columnPlaces struct {
	byName map[string]int
	// columns are the columns of the latest row, at these places.
	columns []table.Column
	places  []int
}

// newColumnPlaces returns the places of some columns.
func newColumnPlaces(columns []table.Column) columnPlaces {
	p := columnPlaces{byName: map[string]int{}}
	for i, c := range columns {
		p.byName[c.Name] = i
	}
	return p
}

// find returns the places of the columns of a row, most of which has those of the row before.
func (p *columnPlaces) find(columns []table.Column) []int {
	for i, c := range columns {
		if i < len(p.columns) && p.columns[i].Name == c.Name {
			continue
		}

		p.columns = append(p.columns[:i], c)
		p.places = append(p.places[:i], p.byName[c.Name])
	}

	return p.places[:len(columns)]
}
