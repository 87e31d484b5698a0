package export

import (
	"bytes"
	"fmt"
	"hash/maphash"

	"github.com/promptmill/promptmill/producer/table"
)

const (
	// windowRows and windowBytes bound the rows in which a row is searched that is not in its place.
	windowRows  = 50_000
	windowBytes = 32 << 20
)

const (
	// cellEnd ends a cell in the text of a row, and nameEnd the name of its column. No text in UTF-8 has them.
	cellEnd = 0xff
	nameEnd = 0xfe
)

// rowPlace is the place of a row. The zero value is none.
type rowPlace struct {
	file string
	row  int
}

// String returns the place as errors name it.
func (p rowPlace) String() string { return fmt.Sprintf("%s, row %d", p.file, p.row) }

// cellRow is a row in the form in which rows are compared.
type cellRow struct {
	place rowPlace
	// text has the cells, each with its end, and before it the name of its column if each row has its own.
	text []byte
	// key is the part of text with the cells of the input.
	key int
	// fault is the reason why the row cannot be read, else empty. Such a row equals no other.
	fault string

	// hash is the hash of text, and keyHash that of the key. They are set for the rows of a filled queue.
	hash, keyHash uint64
}

// addCell adds a cell: as JSON, except that CSV does not have types, nor null.
func (r *cellRow) addCell(f format, v table.Value) {
	if f.isText {
		r.text = v.AppendText(r.text)
	} else {
		r.text = v.AppendJSON(r.text)
	}
	r.text = append(r.text, cellEnd)
}

// addName adds the name of the column of the next cell.
func (r *cellRow) addName(name string) { r.text = append(append(r.text, name...), nameEnd) }

// cells returns the cells.
func (r *cellRow) cells() [][]byte {
	return bytes.Split(bytes.TrimSuffix(r.text, []byte{cellEnd}), []byte{cellEnd})
}

// equals reports whether two rows have the same cells.
func (r *cellRow) equals(other *cellRow) bool {
	return r.fault == "" && other.fault == "" && bytes.Equal(r.text, other.text)
}

// hasKeyOf reports whether two rows have the same cells of the input.
func (r *cellRow) hasKeyOf(other *cellRow) bool {
	return r.fault == "" && other.fault == "" && bytes.Equal(r.text[:r.key], other.text[:other.key])
}

// rowQueue reads rows ahead.
type rowQueue struct {
	// read reads the next row into an empty one. It reports false at the end.
	read func(*cellRow) (bool, error)
	// rows are the rows that were read, and not passed.
	rows []*cellRow
	// size is the size of the texts of the rows.
	size int
	// isAtEnd reports that there are no more rows to read.
	isAtEnd bool
	// passed counts the rows that were passed.
	passed int
	// free are passed rows whose buffers the next rows get, and freeBytes is the size of these buffers.
	free      []*cellRow
	freeBytes int

	// filled is the number of rows, the passed ones included, that are in the maps below. byHash and byKey
	// have the number of the last row with a hash.
	filled        int
	byHash, byKey map[uint64]int
}

// hashSeed is the seed of the hashes of rows.
var hashSeed = maphash.MakeSeed()

// readRow reads one more row. It reports false at the end.
func (q *rowQueue) readRow() (bool, error) {
	if q.isAtEnd {
		return false, nil
	}

	row := &cellRow{}
	if n := len(q.free); n > 0 {
		row, q.free = q.free[n-1], q.free[:n-1]
		q.freeBytes -= cap(row.text)
		*row = cellRow{text: row.text[:0]}
	}

	ok, err := q.read(row)
	if err != nil || !ok {
		q.isAtEnd = true
		return false, err
	}

	q.rows = append(q.rows, row)
	q.size += len(row.text)

	return true, nil
}

// first returns the next row, nil at the end.
func (q *rowQueue) first() (*cellRow, error) {
	if len(q.rows) == 0 {
		if _, err := q.readRow(); err != nil {
			return nil, err
		}
	}
	return q.at(0), nil
}

// at returns a row of the queue, nil if it has fewer.
func (q *rowQueue) at(i int) *cellRow {
	if i >= len(q.rows) {
		return nil
	}
	return q.rows[i]
}

// pass moves behind the next row.
func (q *rowQueue) pass() {
	row := q.rows[0]
	q.rows = q.rows[1:]
	q.size -= len(row.text)
	if q.byHash[row.hash] == q.passed {
		delete(q.byHash, row.hash)
	}
	if q.byKey[row.keyHash] == q.passed {
		delete(q.byKey, row.keyHash)
	}
	q.passed++
	if q.freeBytes+cap(row.text) <= windowBytes { // a short row can have the buffer of a long one
		q.free = append(q.free, row)
		q.freeBytes += cap(row.text)
	}
}

// fill reads rows until the window is full, and hashes them.
func (q *rowQueue) fill() error {
	if q.byHash == nil {
		q.byHash, q.byKey = map[uint64]int{}, map[uint64]int{}
	}

	for len(q.rows) < windowRows && q.size < windowBytes {
		ok, err := q.readRow()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
	}

	q.filled = max(q.filled, q.passed)
	for ; q.filled < q.passed+len(q.rows); q.filled++ {
		row := q.rows[q.filled-q.passed]
		if row.fault != "" {
			continue
		}

		row.hash = maphash.Bytes(hashSeed, row.text)
		row.keyHash = maphash.Bytes(hashSeed, row.text[:row.key])
		q.byHash[row.hash], q.byKey[row.keyHash] = q.filled, q.filled
	}

	return nil
}

// findEqual returns the number of rows before one of the filled queue that equals another, -1 if there is none.
func (q *rowQueue) findEqual(other *cellRow) int {
	number, ok := q.byHash[other.hash]
	if !ok || !q.rows[number-q.passed].equals(other) {
		return -1
	}
	return number - q.passed
}

// findKey is findEqual for the cells of the input alone.
func (q *rowQueue) findKey(other *cellRow) int {
	number, ok := q.byKey[other.keyHash]
	if !ok || !q.rows[number-q.passed].hasKeyOf(other) {
		return -1
	}
	return number - q.passed
}
