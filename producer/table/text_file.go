package table

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/transform"

	"github.com/promptmill/promptmill/producer/fileformat"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
)

// startSize is the size of the beginning of a text that shows its format, in bytes.
const startSize = 256 << 10

// byteOrderMark is the byte-order mark of UTF-8.
var byteOrderMark = []byte("\xef\xbb\xbf")

// textFile is an open file of text. It reads as UTF-8, without a byte-order mark at the beginning.
type textFile struct {
	io.Reader

	cfg Config
	// file is the unpacked text as it is in the file.
	file io.ReadCloser
	// copied copies the unpacked text to Config.Text; nil if that is not wanted.
	copied *copiedFile
	// offset is the offset of the reader in the text: in UTF-8, and with its byte-order mark.
	offset int64
	// start is the beginning of the text, whole reports that it is all of it.
	start []byte
	whole bool
	// encoding decodes the text; nil if it is UTF-8.
	encoding encoding.Encoding
	// isReplacing reports that U+FFFD in the text stands for bytes that the encoding does not have.
	isReplacing bool
	// markSize is the size of the byte-order mark in the file, in bytes.
	markSize int
}

// copiedFile copies a file as it is read. It keeps the bytes that it has read until there is a
// place for them.
type copiedFile struct {
	io.ReadCloser

	to   io.Writer
	read []byte
}

// Read implements io.Reader.
func (f *copiedFile) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if f.to == nil {
		f.read = append(f.read, p[:n]...)
		return n, err
	}

	if _, copyErr := f.to.Write(p[:n]); copyErr != nil {
		return n, copyErr
	}

	return n, err
}

// startCopy copies the text to Config.Text from its beginning, now that it is known to be text.
func (t *textFile) startCopy() error {
	if t.copied == nil {
		return nil
	}

	t.copied.to = t.cfg.Text
	_, err := t.copied.to.Write(t.copied.read)
	t.copied.read = nil

	return err
}

// openText opens a file of text at its beginning.
func openText(ctx context.Context, cfg Config) (*textFile, error) {
	t := &textFile{cfg: cfg}
	given, err := findEncoding(cfg.Table.Encoding)
	if err != nil {
		return nil, err
	}

	t.file, err = inputfile.OpenText(ctx, cfg.Opener, cfg.File, 0)
	if err != nil {
		return nil, err
	}

	if cfg.Text != nil && cfg.From == (Position{}) {
		t.copied = &copiedFile{ReadCloser: t.file}
		t.file = t.copied
	}

	start, whole, err := readStart(t.file)
	if err != nil {
		t.Close()
		return nil, err
	}

	t.encoding, t.markSize = encodingOf(start, given)
	text := io.MultiReader(bytes.NewReader(start[t.markSize:]), t.file)
	t.start, t.whole, t.Reader = start[t.markSize:], whole, text

	if t.encoding == nil {
		t.offset = int64(t.markSize)
		return t, nil
	}

	if found := fileformat.Detect(start, whole); isContainer(found.Format) {
		t.encoding = nil // it is no text, whatever encoding is given
		return t, nil
	}

	t.isReplacing = replaces(t.encoding)
	decoded := transform.NewReader(text, newTextDecoder(t.encoding))

	t.start, t.whole, err = readStart(decoded)
	if err != nil {
		t.Close()
		return nil, err
	}

	t.Reader = io.MultiReader(bytes.NewReader(t.start), decoded)

	return t, nil
}

// continueAt opens the file again, at an offset in its text, and closes the first one.
func (t *textFile) continueAt(ctx context.Context, offset int64) error {
	t.Close()

	at := offset
	if t.encoding != nil {
		at = int64(t.markSize)
	}

	file, err := inputfile.OpenText(ctx, t.cfg.Opener, t.cfg.File, at)
	if err != nil {
		return err
	}

	t.file, t.Reader, t.offset = file, file, offset

	if t.encoding == nil {
		return nil
	}

	t.Reader = transform.NewReader(file, newTextDecoder(t.encoding))
	if _, err := io.CopyN(io.Discard, t.Reader, offset); err != nil && !errors.Is(err, io.EOF) {
		t.Close()
		return err
	}

	return nil
}

// Close closes the file.
func (t *textFile) Close() error { return t.file.Close() }

// compression returns "gzip" or "zstd" if the file is compressed so, and else "".
func (t *textFile) compression(ctx context.Context) string {
	name, _ := inputfile.Compression(ctx, t.cfg.Opener, t.cfg.File) // for a message alone
	return name
}

// newFormatError returns the error of a file in a format that is not read as a table.
func (t *textFile) newFormatError(ctx context.Context, found fileformat.Detection) *FormatError {
	return &FormatError{
		File:        t.cfg.File.Path,
		Compression: t.compression(ctx),
		Given:       t.cfg.Table.Format,
		Detection:   found,
	}
}

// newFileError returns the error of a file that cannot be read beyond a place.
func (t *textFile) newFileError(row, line int, message string) error {
	return &FileError{
		File:    t.cfg.File.Path,
		Number:  row,
		Line:    line,
		Message: message,
	}
}

// hasOnlyCarriageReturns reports whether the lines of the beginning end with carriage returns
// alone.
func (t *textFile) hasOnlyCarriageReturns() bool {
	end := bytes.IndexByte(t.start, '\r')
	return end >= 0 && end < len(t.start)-1 && bytes.IndexByte(t.start, '\n') < 0
}

// endsInCSV reports whether the path has the ending of a file of CSV.
func (t *textFile) endsInCSV() bool {
	switch t.ending() {
	case ".csv", ".tsv", ".tab":
		return true
	}
	return false
}

// findDelimiterLine returns the delimiter in a first line such as "sep=;", which is for Excel and no
// row, and the size of the line; 0 if there is none.
func (t *textFile) findDelimiterLine() (delimiter rune, size int) {
	line, _, ok := bytes.Cut(t.start, lineFeed)
	name, isLine := bytes.CutPrefix(bytes.TrimSuffix(line, carriageReturn), []byte("sep="))
	if !ok || !isLine || utf8.RuneCount(name) != 1 {
		return 0, 0
	}

	delimiter, _ = utf8.DecodeRune(name)

	return delimiter, len(line) + 1
}

// hasDelimiterLine reports whether the first line names the delimiter.
func (t *textFile) hasDelimiterLine() bool {
	_, size := t.findDelimiterLine()
	return size > 0
}

// csvFormat returns CSV or TSV, by the given delimiter or the ending of the path.
func (t *textFile) csvFormat() string {
	if given := t.cfg.Table.Delimiter; given == "\t" || given == "" && t.ending() != ".csv" && t.endsInCSV() {
		return proto.FormatTSV
	}
	return proto.FormatCSV
}

// startsWithBrace reports whether the text begins as JSON does.
func (t *textFile) startsWithBrace() bool {
	text := bytes.TrimLeft(t.start, " \t\r\n")
	return len(text) > 0 && (text[0] == '{' || text[0] == '[')
}

// ending returns the ending of the path, without the ending of its compression.
func (t *textFile) ending() string {
	path, _, _ := strings.Cut(strings.ToLower(t.cfg.origin()), "?")
	path = strings.TrimSuffix(strings.TrimSuffix(path, ".gz"), ".zst")

	return path[max(0, strings.LastIndexByte(path, '.')):]
}

// readStart reads the beginning of a text, and reports whether it is all of it.
func readStart(r io.Reader) (start []byte, whole bool, err error) {
	start = make([]byte, startSize)

	n, err := io.ReadFull(r, start)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return start[:n], true, nil
	}

	return start[:n], false, err
}

// isContainer reports whether a file of a format is no text in any encoding.
func isContainer(f fileformat.Format) bool {
	switch f {
	case fileformat.Gzip, fileformat.Zstd, fileformat.XZ, fileformat.Bzip2, fileformat.LZ4, fileformat.Zip,
		fileformat.Spreadsheet, fileformat.SevenZip, fileformat.Tar, fileformat.Parquet, fileformat.Arrow,
		fileformat.SQLite, fileformat.PDF, fileformat.UTF32LE, fileformat.UTF32BE:
		return true
	}
	return false
}
