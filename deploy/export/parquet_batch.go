package export

import "github.com/parquet-go/parquet-go"

const (
	// batchBytes is the size of a batch of rows, and batchRows is the most rows of one. Pages
	// end between batches.
	batchBytes = 256 << 10
	batchRows  = 512
)

// parquetBatch is a batch of rows by column.
type parquetBatch struct {
	// leaves has the values of each leaf, and text their bytes.
	leaves [][]parquet.Value
	text   []byte
	// bytes and rows are the size of the batch.
	bytes, rows int
}

// newParquetBatch returns an empty batch for rows with a number of leaves.
func newParquetBatch(leaves int) *parquetBatch {
	return &parquetBatch{leaves: make([][]parquet.Value, leaves)}
}

// addRow adds a row, whose bytes are copied.
func (b *parquetBatch) addRow(row parquet.Row) {
	for _, v := range row {
		if kind := v.Kind(); kind == parquet.ByteArray || kind == parquet.FixedLenByteArray {
			v = b.copyBytes(v)
		}

		b.leaves[v.Column()] = append(b.leaves[v.Column()], v)
		b.bytes += 8
	}

	b.rows++
}

// copyBytes returns a value of bytes with a copy of them in the batch.
func (b *parquetBatch) copyBytes(v parquet.Value) parquet.Value {
	start := len(b.text)
	b.text = append(b.text, v.ByteArray()...) // earlier values keep the memory that they have
	b.bytes += len(b.text) - start

	text := parquet.ByteArrayValue(b.text[start:])
	if v.Kind() == parquet.FixedLenByteArray {
		text = parquet.FixedLenByteArrayValue(b.text[start:])
	}

	return text.Level(v.RepetitionLevel(), v.DefinitionLevel(), v.Column())
}

// isFull reports whether the batch is large enough.
func (b *parquetBatch) isFull() bool { return b.bytes >= batchBytes || b.rows >= batchRows }

// reset makes the batch empty. A long row does not cost its memory for the rest of the table.
func (b *parquetBatch) reset() {
	for i := range b.leaves {
		clear(b.leaves[i])
		b.leaves[i] = b.leaves[i][:0]
	}

	b.text = b.text[:0]
	if cap(b.text) > 4*batchBytes {
		b.text = nil
	}

	b.bytes, b.rows = 0, 0
}
