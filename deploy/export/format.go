package export

import (
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/promptmill/promptmill/producer/table"
)

// rowWriter writes the rows of a table, or of one of its parts.
type rowWriter interface {
	// writeRow writes a row, with a value for each column. The values are valid until it returns.
	writeRow(columns []table.Column, values []table.Value) error
	// close writes the end of the table if err, the error of writing the rows, is nil. It returns err or its
	// own error, and does not close the file.
	close(err error) error
}

// format is a format of tables.
type format struct {
	// ending is the ending of the names of its files.
	ending string
	// newWriter returns a writer of the table of a run with some columns into a file.
	newWriter func(w io.Writer, columns []table.Column, run string) (rowWriter, error)
	// isTyped reports that each value of a column has its kind, or is null.
	isTyped bool
	// isText reports that the format has neither types nor null.
	isText bool
	// isSparse reports that rows have the columns of their own rows of the input, not those of all rows.
	isSparse bool
}

// formats are all formats.
var formats = []format{
	{ending: ".csv", newWriter: newCSVWriter(','), isText: true},
	{ending: ".tsv", newWriter: newCSVWriter('\t'), isText: true},
	{ending: ".parquet", newWriter: newParquetWriter, isTyped: true},
	{ending: ".jsonl", newWriter: newJSONLWriter, isSparse: true},
	{ending: ".jsonl.gz", newWriter: newGzipWriter, isSparse: true},
}

// Formats returns the endings of the names of tables.
func Formats() []string {
	var endings []string
	for _, f := range formats {
		endings = append(endings, f.ending)
	}
	return endings
}

// Ending returns the ending of a path that names a table, "" for any other.
func Ending(path string) string {
	f, _ := formatOf(path)
	return f.ending
}

// formatOf returns the format of a path.
func formatOf(path string) (format, bool) {
	for _, f := range formats {
		if base := filepath.Base(path); strings.HasSuffix(base, f.ending) && base != f.ending {
			return f, true
		}
	}
	return format{}, false
}

// Paths returns the paths of the files of a table: path, or those of its shards.
func Paths(path string, shards int) []string {
	if shards <= 1 {
		return []string{path}
	}

	ending := Ending(path)
	name := strings.TrimSuffix(path, ending)

	paths := make([]string, shards)
	for i := range paths {
		paths[i] = fmt.Sprintf("%s-%05d-of-%05d%s", name, i, shards, ending)
	}

	return paths
}

// shardName matches the name of a file of a table in several files, without its ending.
var shardName = regexp.MustCompile(`^(.+)-\d{5}-of-(\d{5})$`)

// ParsePath returns the path and the number of shards of the table that a file belongs to.
func ParsePath(file string) (path string, shards int) {
	ending := Ending(file)

	parts := shardName.FindStringSubmatch(strings.TrimSuffix(file, ending))
	if parts == nil {
		return file, 1
	}

	n, err := strconv.Atoi(parts[2])
	if err != nil || n < 2 {
		return file, 1
	}

	return parts[1] + ending, n
}

// MaxShards is the most files of a table.
const MaxShards = 99_999
