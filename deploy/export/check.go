package export

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/parquet-go/parquet-go"

	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
)

// Check compares each cell of a table with the one that Write would write. The error is of reading the
// files, or a [MismatchError] if the output does not match the input; [Comparison.Err] returns the error
// of the table.
//
// Rows that the table lacks, or has too many, do not shift the rows behind them: after a difference, rows are
// searched in the next 50,000.
func Check(ctx context.Context, cfg Config) (Comparison, error) {
	cfg, f, err := cfg.withDefaults()
	if err != nil {
		return Comparison{}, err
	}

	var c Comparison
	err = widenColumns(func(wide []string) error {
		c, err = checkParts(ctx, cfg, f, wide)
		return err
	})

	return c, err
}

// checkParts compares all files of a table, some of whose columns have numbers of any size.
func checkParts(ctx context.Context, cfg Config, f format, wide []string) (Comparison, error) {
	j, err := newJoiner(ctx, cfg, f, wide)
	if err != nil {
		return Comparison{}, err
	}
	defer j.close()

	c := &checker{
		Comparison: Comparison{Rows: cfg.Run.Input.Requests, Examples: []string{}},
		ctx:        ctx,
		joiner:     j,
		paths:      Paths(cfg.Path, cfg.Shards),
		moved:      map[uint64]rowPlace{},
	}
	defer c.closeFile()

	c.want.read, c.has.read = c.readWanted, c.readFound

	if err := c.compareHeaders(); err != nil {
		return c.Comparison, err
	}

	if err := c.compareRows(); err != nil {
		return c.Comparison, err
	}

	if err := j.checkEnd(); err != nil {
		return c.Comparison, err
	}

	c.Complete = len(c.Examples) == 0

	return c.Comparison, nil
}

// maxMoved is the most missing rows that are remembered, to find them in another place.
const maxMoved = 10_000

// checker compares the rows of a table.
type checker struct {
	Comparison

	ctx    context.Context
	joiner *joiner
	// compared are the indexes of the run's columns that all files have, and inputs counts those of the input.
	compared []int
	inputs   int

	// paths are the files that were not read yet, and file is the one that is read. Nil: none is open.
	paths []string
	file  table.Reader
	name  string
	// row counts the rows of the file, and places are the indexes of the compared columns in it.
	row    int
	places []int

	// want are the rows that the table must have, and has those that it has.
	want, has rowQueue
	// last is the place of the row of the table before the next one, and lastText its cells.
	last     rowPlace
	lastText []byte
	// moved has the places of missing rows by their hash.
	moved map[uint64]rowPlace
}

// compareHeaders compares the columns of the files. Cells of a column that a file lacks are not compared.
func (c *checker) compareHeaders() error {
	columns := c.joiner.columns
	lacking := make([]bool, len(columns))

	for _, path := range c.paths {
		r, err := openTable(c.ctx, path, c.joiner.format)
		if err != nil {
			return err
		}

		if !c.joiner.format.isSparse { // else each row has its own columns
			c.compareHeader(filepath.Base(path), r.Columns(), lacking)
		}
		r.Close()
	}

	for i := range columns {
		if lacking[i] {
			continue
		}
		if c.compared = append(c.compared, i); i < c.joiner.inputs {
			c.inputs++
		}
	}

	return nil
}

// compareHeader compares the columns of a file, and notes those that it lacks.
func (c *checker) compareHeader(name string, found []table.Column, lacking []bool) {
	for i, want := range c.joiner.columns {
		place := findColumn(found, want.Name)
		if place < 0 {
			lacking[i] = true
			c.addExample("%s: it has no column %q", name, want.Name)
			continue
		}

		if place != i && i < len(found) && findColumn(c.joiner.columns, found[i].Name) >= 0 {
			c.addExample("%s: column %d is %q, must be %q", name, i+1, found[i].Name, want.Name)
		}

		if !hasTypeOf(found[place], want) {
			c.addExample("%s: column %q has another type", name, want.Name)
		}
	}

	for i, column := range found {
		if findColumn(c.joiner.columns, column.Name) < 0 {
			c.addExample("%s: it must not have column %d, %q", name, i+1, column.Name)
		}
	}
}

// hasTypeOf reports whether a column that was read has the type with which another one is written. Only the columns
// of Parquet have types.
func hasTypeOf(found, want table.Column) bool {
	switch {
	case found.Parquet == nil:
		return true
	case want.Parquet != nil:
		return found.Parquet.SameType(want.Parquet)
	}
	return parquet.EqualNodes(found.Parquet.Field(), newField(want))
}

// findColumn returns the place of the column of a name, -1 if there is none.
func findColumn(columns []table.Column, name string) int {
	return slices.IndexFunc(columns, func(c table.Column) bool { return c.Name == name })
}

// openTable opens a file of a table in a format.
func openTable(ctx context.Context, path string, f format) (table.Reader, error) {
	local := inputfile.Local{}

	file, err := local.Stat(ctx, path)
	if err != nil {
		return nil, err
	}

	return table.Open(ctx, table.Config{
		Opener: local,
		File:   file,
		Table:  tableOf(f),
	})
}

// tableOf returns how the table of a format is read.
func tableOf(f format) proto.Table {
	switch f.ending {
	case ".csv":
		return proto.Table{Format: proto.FormatCSV, Delimiter: ",", Encoding: "utf-8"}
	case ".tsv":
		return proto.Table{Format: proto.FormatTSV, Encoding: "utf-8"}
	case ".parquet":
		return proto.Table{Format: proto.FormatParquet}
	}

	return proto.Table{Format: proto.FormatJSONL}
}

// openFile opens the next file. It reports false if there is none.
func (c *checker) openFile() (bool, error) {
	if len(c.paths) == 0 {
		return false, nil
	}

	r, err := openTable(c.ctx, c.paths[0], c.joiner.format)
	if err != nil {
		return false, err
	}

	c.file, c.name, c.row = r, filepath.Base(c.paths[0]), 0
	c.paths = c.paths[1:]

	c.places = c.places[:0]
	for _, i := range c.compared {
		c.places = append(c.places, findColumn(r.Columns(), c.joiner.columns[i].Name))
	}

	return true, nil
}

// closeFile closes the file that is open.
func (c *checker) closeFile() {
	if c.file != nil {
		c.file.Close()
		c.file = nil
	}
}

// readFound reads the next row of the table.
func (c *checker) readFound(to *cellRow) (bool, error) {
	for {
		if c.file == nil {
			if ok, err := c.openFile(); err != nil || !ok {
				return false, err
			}
		}

		row, err := c.file.Next()
		if errors.Is(err, io.EOF) {
			c.closeFile()
			continue
		}

		fault, isRowError := errors.AsType[*table.RowError](err)
		if err != nil && !isRowError {
			return false, err
		}

		c.row++
		c.Found++
		to.place = rowPlace{c.name, c.row}

		switch {
		case isRowError:
			to.fault = fault.Message
		case c.joiner.format.isSparse:
			c.addSparse(to, row.Columns, row.Values)
		default:
			for i, place := range c.places {
				to.addCell(c.joiner.format, row.Values[place])
				if i+1 == c.inputs {
					to.key = len(to.text)
				}
			}
		}

		return true, nil
	}
}

// readWanted reads the next row that the table must have.
func (c *checker) readWanted(to *cellRow) (bool, error) {
	if c.joiner.isAtEnd() {
		return false, nil
	}

	columns, values, err := c.joiner.next()
	if err != nil {
		return false, err
	}

	to.place = rowPlace{filepath.Base(c.joiner.latest.File), c.joiner.latest.Number}

	if c.joiner.format.isSparse {
		c.addSparse(to, columns, values)
		return true, nil
	}

	for i, place := range c.compared {
		v := values[place]
		if column := columns[place]; column.Kind == table.KindNumber && column.Parquet == nil && v.Kind == column.Kind {
			v.Kind = table.KindText // so such columns are written where there are types
		}

		to.addCell(c.joiner.format, v)
		if i+1 == c.inputs {
			to.key = len(to.text)
		}
	}

	return true, nil
}

// addSparse adds the cells of a row that has columns of its own.
func (c *checker) addSparse(to *cellRow, columns []table.Column, values []table.Value) {
	inputs := len(columns) - len(c.joiner.parser.columns.all)
	for i, v := range values {
		to.addName(columns[i].Name)
		to.addCell(c.joiner.format, v)
		if i+1 == inputs {
			to.key = len(to.text)
		}
	}
}

// compareRows compares all rows.
func (c *checker) compareRows() error {
	for i := 0; ; i++ {
		if i%1024 == 0 && c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}

		want, err := c.want.first()
		if err != nil {
			return err
		}

		has, err := c.has.first()
		if err != nil {
			return err
		}

		switch {
		case want == nil && has == nil:
			return nil
		case want != nil && has != nil && want.equals(has):
			c.want.pass()
			c.passFound()
		default:
			if err := c.compareUnequal(); err != nil {
				return err
			}
		}
	}
}

// passFound moves behind a row of the table.
func (c *checker) passFound() {
	row := c.has.rows[0]
	c.last, c.lastText = row.place, append(c.lastText[:0], row.text...)
	c.has.pass()
}

// compareUnequal compares the next rows, which are not equal, and moves behind them.
func (c *checker) compareUnequal() error {
	if err := errors.Join(c.want.fill(), c.has.fill()); err != nil {
		return err
	}

	switch missing, extra := c.align(); {
	case missing > 0:
		c.addMissing(missing)
	case extra > 0:
		c.addExtra(extra)
	default:
		c.addDiffering()
		c.want.pass()
		c.passFound()
	}

	return nil
}

// align returns the number of rows that the table lacks, or has too many, before rows of both that belong
// together. It returns 0 and 0 if the next rows of both do.
func (c *checker) align() (missing, extra int) {
	switch {
	case len(c.want.rows) == 0:
		return 0, 1
	case len(c.has.rows) == 0:
		return 1, 0
	}

	want, has := c.want.rows[0], c.has.rows[0]
	best := c.rateFit(0, 0)
	try := func(a, b int) {
		if a < 0 || b < 0 {
			return
		}
		if fit := c.rateFit(a, b); fit > best || fit == best && a+b < missing+extra {
			best, missing, extra = fit, a, b
		}
	}

	if has.fault == "" {
		try(c.want.findEqual(has), 0)
		try(c.want.findKey(has), 0)
	}
	try(0, c.has.findEqual(want))
	try(0, c.has.findKey(want))

	return missing, extra
}

// rateFit returns how well the rows of both fit from two places on.
func (c *checker) rateFit(want, has int) (fit int) {
	const most = 8 // rows

	for i := range most {
		a, b := c.want.at(want+i), c.has.at(has+i)
		switch {
		case a == nil && b == nil:
			return fit + 2*(most-i)
		case a == nil || b == nil:
			return fit
		case a.equals(b):
			fit += 2
		case a.hasKeyOf(b):
			fit++
		}
	}

	return fit
}

// addMissing reports that the table lacks the next rows of the run, and moves behind them.
func (c *checker) addMissing(rows int) {
	first := c.want.rows[0]
	c.Missing += rows

	place := "before the first row"
	if c.last != (rowPlace{}) {
		place = "after " + c.last.String()
	}

	c.addExample("%s%s: %s missing in the table, %s", first.place, c.describeCell(first), describeRows(rows), place)

	for range rows {
		if row := c.want.rows[0]; len(c.moved) < maxMoved {
			c.moved[row.hash] = row.place
		}
		c.want.pass()
	}
}

// addExtra reports that the table has rows too many, and moves behind them.
func (c *checker) addExtra(rows int) {
	first := c.has.rows[0]
	c.Extra += rows

	fault, which := "it is one row too many", "it"
	if rows > 1 {
		fault, which = describeRows(rows)+" too many", "the first"
	}

	place, isMoved := c.moved[first.hash]
	switch {
	case first.fault != "":
		fault += ": " + first.fault
	case rows == 1 && bytes.Equal(first.text, c.lastText):
		fault += ", and repeats row " + strconv.Itoa(c.last.row)
	case isMoved:
		fault = describeRows(rows) + " in the wrong place: " + which + " belongs to " + place.String()
	}

	c.addExample("%s%s: %s", first.place, c.describeCell(first), fault)

	for range rows {
		delete(c.moved, c.has.rows[0].hash)
		c.passFound()
	}
}

// describeRows returns the beginning of a sentence about a row and those behind it.
func describeRows(rows int) string {
	if rows == 1 {
		return "it is"
	}
	return "this row and the next " + terminal.FormatCount(rows-1) + " are"
}

// addDiffering reports that the next row of the table has other cells than that of the run.
func (c *checker) addDiffering() {
	want, has := c.want.rows[0], c.has.rows[0]
	c.Differing++

	if has.fault != "" {
		c.addExample("%s: %s", has.place, has.fault)
		return
	}

	wanted, found := want.cells(), has.cells()
	for i := range max(len(wanted), len(found)) {
		switch {
		case i >= len(found):
			name, _ := c.splitCell(i, wanted[i])
			c.addExample("%s: it has no %q", has.place, name)
		case i >= len(wanted):
			name, _ := c.splitCell(i, found[i])
			c.addExample("%s: it has %q, which it must not have", has.place, name)
		case !bytes.Equal(wanted[i], found[i]):
			name, must := c.splitCell(i, wanted[i])
			other, is := c.splitCell(i, found[i])
			if name != other {
				c.addExample("%s: it has %q in place of %q", has.place, other, name)
			} else {
				c.addExample("%s: %s is %s, must be %s", has.place, name, c.describeValue(is), c.describeValue(must))
			}
		default:
			continue
		}

		return
	}
}

// splitCell returns the name of the column and the value of the i-th cell of a row.
func (c *checker) splitCell(i int, cell []byte) (name string, value []byte) {
	if c.joiner.format.isSparse {
		name, value, _ := bytes.Cut(cell, []byte{nameEnd})
		return string(name), value
	}
	return c.joiner.columns[c.compared[i]].Name, cell
}

// describeCell returns the first cell of a row, by which a person finds it, in parentheses.
func (c *checker) describeCell(row *cellRow) string {
	cells := row.cells()
	if len(row.text) == 0 {
		return ""
	}

	name, value := c.splitCell(0, cells[0])

	return " (" + name + " " + c.describeValue(value) + ")"
}

// describeValue returns a value for an error.
func (c *checker) describeValue(value []byte) string {
	switch text := proto.Excerpt(string(value)); {
	case !c.joiner.format.isText:
		return text
	case text == "":
		return "empty"
	default:
		return strconv.Quote(text)
	}
}
