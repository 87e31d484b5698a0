package table

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/promptmill/promptmill/producer/fileformat"
	"github.com/promptmill/promptmill/proto"
)

// formatNames are the formats of tables as a sentence names them.
var formatNames = map[string]string{
	proto.FormatCSV:     "CSV",
	proto.FormatTSV:     "TSV",
	proto.FormatParquet: "a Parquet file",
	proto.FormatJSONL:   "JSON lines",
	proto.FormatJSON:    "one JSON array",
	proto.FormatText:    "lines of text",
}

// Open opens a file. The error is a [FormatError] if the file is not a table, and a [FileError]
// if its header cannot be used. An empty file has no columns and no rows.
//
// If the format is not given, the contents decide. Text in which neither JSON nor another
// format shows is CSV if its first row has different names of columns, and most of the rows
// behind it have as many fields; or if its columns or its delimiter are given. Where that
// leaves CSV or lines of text, a path that ends in .csv or .tsv, before .gz or .zst, is CSV.
//
// A folder of the path with the name of a column and a value, as in lang=de/part-0.parquet,
// gives the rows a further column of text, unless the file has the column. Hive, Spark and
// others write such folders. A path with two values of one column is a [FileError].
func Open(ctx context.Context, cfg Config) (Reader, error) {
	r, err := openFormat(ctx, cfg)
	if err != nil {
		return nil, err
	}

	reader, err := withPartitions(r, cfg.origin())
	if err != nil {
		r.Close()
		return nil, err
	}

	return reader, nil
}

// origin returns the path that the rows are from.
func (c Config) origin() string { return cmp.Or(c.Origin, c.File.Path) }

// openFormat opens a file as one of the formats.
func openFormat(ctx context.Context, cfg Config) (Reader, error) {
	if given := cfg.Table.Format; given != "" && !slices.Contains(proto.TableFormats, given) {
		return nil, fmt.Errorf("unknown table format %q", given)
	}

	if cfg.Table.Format == proto.FormatParquet {
		return openParquet(ctx, cfg)
	}

	text, err := openText(ctx, cfg)
	if err != nil {
		return nil, err
	}

	format, found, err := text.detectFormat(ctx)
	if err != nil {
		text.Close()
		return nil, err
	}

	if format == proto.FormatParquet {
		text.Close()
		return openParquet(ctx, cfg)
	}

	if err := text.startCopy(); err != nil {
		text.Close()
		return nil, err
	}

	switch format {
	case proto.FormatJSONL:
		return openJSONLines(ctx, text)
	case proto.FormatJSON:
		return openJSONArray(ctx, text)
	case proto.FormatText:
		return openLines(ctx, text)
	}

	return openCSV(ctx, text, format, found.Delimiter)
}

// detectFormat returns the format of a text, and for CSV its delimiter if it is known.
func (t *textFile) detectFormat(ctx context.Context) (string, fileformat.Detection, error) {
	table := t.cfg.Table
	found := t.detectFile()

	switch {
	case found.Format == fileformat.Parquet && table.Format == "" && t.compression(ctx) == "":
		return proto.FormatParquet, found, nil
	case table.Format == "" && t.compression(ctx) == "" && isEncryptedParquet(found, t.start):
		return proto.FormatParquet, found, nil // its error says so
	case isContainer(found.Format), found.Format == fileformat.OtherText, found.Format == fileformat.Binary,
		found.Format == fileformat.UTF16LE, found.Format == fileformat.UTF16BE:
		return "", found, t.newFormatError(ctx, found)
	}

	if t.hasOnlyCarriageReturns() {
		refused := t.newFormatError(ctx, found)
		refused.HasOldLineEnds = true

		return "", found, refused
	}

	if table.Format != "" {
		return table.Format, found, nil
	}

	isTable := t.isKnownCSV()
	switch found.Format {
	case fileformat.JSONL, fileformat.AnthropicBatch:
		if isTable && !t.startsWithBrace() {
			return t.csvFormat(), found, nil
		}
		return proto.FormatJSONL, found, nil
	case fileformat.JSONArray:
		if found.Element != 0 && found.Element != '{' {
			return "", found, t.newFormatError(ctx, found)
		}
		return proto.FormatJSON, found, nil
	case fileformat.CSV:
		return proto.FormatCSV, found, nil
	case fileformat.TSV:
		return proto.FormatTSV, found, nil
	case fileformat.Text, fileformat.JSONStrings, fileformat.YAML:
		if isTable {
			return t.csvFormat(), found, nil
		}
		if found.Format == fileformat.Text {
			return proto.FormatText, found, nil
		}
	}

	return "", found, t.newFormatError(ctx, found)
}

// detectFile recognises the format of the file by its beginning. A text with NUL characters, which
// look like those of a file that is no text, is a table if its rows look like one, or if something
// beside the contents says that it is text. The same holds for a few wrong bytes in a text whose
// encoding is given as UTF-8: its rows are wrong then, and not the file.
func (t *textFile) detectFile() fileformat.Detection {
	text := t.start
	if t.encoding != nil {
		text = bytes.ToValidUTF8(text, []byte(".")) // some rows are wrong then, and not the file
	}

	found := fileformat.Detect(text, t.whole)

	switch found.Format {
	case fileformat.Binary:
	case fileformat.OtherText, fileformat.UTF16LE, fileformat.UTF16BE:
		if !t.isGivenUTF8() {
			return found
		}
	default:
		return found
	}

	if t.isGivenUTF8() {
		text = bytes.ToValidUTF8(text, []byte("."))
	}

	sound := fileformat.Detect(bytes.ReplaceAll(text, []byte{0}, []byte(".")), t.whole)
	isTable := sound.Format == fileformat.CSV || sound.Format == fileformat.TSV
	isText := t.isKnownCSV() || t.cfg.Table.Format == proto.FormatText || t.isGivenUTF8()
	if isTable || isText && sound.Format != fileformat.OtherText {
		return sound
	}

	return found
}

// isGivenUTF8 reports whether the encoding is given, and is UTF-8.
func (t *textFile) isGivenUTF8() bool { return t.encoding == nil && t.cfg.Table.Encoding != "" }

// isKnownCSV reports whether something beside the contents of the file says that it is CSV or TSV.
func (t *textFile) isKnownCSV() bool {
	table := t.cfg.Table
	return table.Format == proto.FormatCSV || table.Format == proto.FormatTSV ||
		len(table.Columns) > 0 || table.Delimiter != "" || t.endsInCSV() || t.hasDelimiterLine()
}

// isEncryptedParquet reports whether a file that is no text begins as an encrypted Parquet file
// does. A text can begin with the same bytes.
func isEncryptedParquet(found fileformat.Detection, start []byte) bool {
	isText := found.Format != fileformat.Binary && found.Format != fileformat.OtherText
	return !isText && (bytes.HasPrefix(start, []byte(parquetMagic)) ||
		bytes.HasPrefix(start, []byte(parquetEncryptedMagic)))
}
