package table

import (
	"errors"
	"io"

	"github.com/parquet-go/parquet-go"
)

// columnBatch is the number of values that are decoded at a time.
const columnBatch = 128

// columnReader reads the values of a leaf row by row, page by page, from a row group.
type columnReader struct {
	leaf   *parquetNode
	stream *pageStream
	pages  *parquet.FilePages
	page   parquet.Page
	values parquet.ValueReader
	// buf has the values that are decoded and not read, in buf[start:].
	batch [columnBatch]parquet.Value
	buf   []parquet.Value
	// row has the values of a row that does not fit buf.
	row []parquet.Value
}

// open begins with the values of a row group, without those of the first rows.
func (c *columnReader) open(chunk *parquet.FileColumnChunk, stream *pageStream) error {
	c.close()

	c.stream = stream
	c.pages = chunk.PagesFrom(stream)

	if stream.skip == 0 {
		return nil
	}

	if err := c.openPage(); err != nil { // leaves out whole pages
		return err
	}

	for ; stream.skip > 0; stream.skip-- {
		if _, err := c.next(); err != nil {
			return err
		}
	}

	return nil
}

// close lets go of the pages.
func (c *columnReader) close() {
	if c.pages == nil {
		return
	}

	parquet.Release(c.page)
	c.pages.Close()

	c.pages, c.page, c.values, c.buf = nil, nil, nil, nil
}

// next returns the values of the next row, which are valid until the next call: one, or more if
// the column repeats.
func (c *columnReader) next() ([]parquet.Value, error) {
	if len(c.buf) == 0 {
		if err := c.fill(); err != nil {
			return nil, err
		}
	}

	if c.leaf.repetition == 0 {
		v := c.buf[:1:1]
		c.buf = c.buf[1:]
		return v, nil
	}

	return c.nextRepeated()
}

func (c *columnReader) nextRepeated() ([]parquet.Value, error) {
	if c.buf[0].RepetitionLevel() != 0 {
		return nil, c.stream.damage("a row begins in the middle; the file is damaged")
	}

	if n := rowEnd(c.buf[1:]) + 1; n < len(c.buf) {
		v := c.buf[:n:n]
		c.buf = c.buf[n:]
		return v, nil
	}

	c.row = c.row[:0]

	for first := 1; ; first = 0 {
		n := rowEnd(c.buf[first:]) + first
		for _, v := range c.buf[:n] {
			c.row = append(c.row, v.Clone()) // the page may go
		}

		c.buf = c.buf[n:]
		if len(c.buf) > 0 {
			return c.row, nil
		}

		switch err := c.fill(); {
		case errors.Is(err, io.EOF):
			return c.row, nil
		case err != nil:
			return nil, err
		}
	}
}

// rowEnd returns the number of values before the next row.
func rowEnd(values []parquet.Value) int {
	for i := range values {
		if values[i].RepetitionLevel() == 0 {
			return i
		}
	}
	return len(values)
}

// fill decodes more values. The error is io.EOF if there are none.
func (c *columnReader) fill() error {
	for {
		if c.values == nil {
			if err := c.openPage(); err != nil {
				return err
			}
		}

		n, err := c.values.ReadValues(c.batch[:])
		if err != nil && !errors.Is(err, io.EOF) {
			return c.stream.damage("a page of it cannot be decoded; the file is damaged")
		}
		if err != nil || n == 0 {
			c.values = nil
		}

		if n > 0 {
			c.buf = c.batch[:n]
			return nil
		}
	}
}

// openPage opens the next page. The error is io.EOF if there is none.
func (c *columnReader) openPage() error {
	parquet.Release(c.page)
	c.page = nil

	page, err := c.pages.ReadPage()
	switch {
	case err != nil && c.stream.err != nil:
		return c.stream.err
	case err != nil:
		return c.stream.damage("a page of it cannot be decoded; the file is damaged")
	}

	c.page, c.values = page, page.Values()

	return nil
}
