package fileformat

// Format is a format of a file.
type Format int

// The formats that [Detect] knows.
const (
	// JSONL is JSON lines: one JSON object a line. It is also the format of a file whose beginning
	// shows no other.
	JSONL Format = iota
	// JSONArray is one JSON array.
	JSONArray
	// JSONDocument is one JSON object over several lines or around an array, or several such
	// objects.
	JSONDocument
	// PythonLines has the text of a Python dictionary on each line.
	PythonLines
	// JSONStrings has a JSON string on each line.
	JSONStrings
	// CSV is a table with commas, semicolons or vertical bars.
	CSV
	// TSV is a table with tabs.
	TSV
	YAML
	// Markup is HTML or XML.
	Markup
	// Text is plain text in UTF-8.
	Text
	// OtherText is plain text in an encoding of single bytes, such as Windows-1252.
	OtherText
	UTF16LE
	UTF16BE
	UTF32LE
	UTF32BE
	Gzip
	Zstd
	XZ
	Bzip2
	LZ4
	Zip
	// Spreadsheet is an Excel workbook.
	Spreadsheet
	SevenZip
	Tar
	Parquet
	// Arrow is Arrow's file format, also called Feather.
	Arrow
	SQLite
	PDF
	// Binary is any other file that is no text.
	Binary
	// Results are the answers of a batch, of promptmill or of a service.
	Results
	// Failures are the failed requests of a batch.
	Failures
	// Metadata is the file NAME.meta.json of promptmill.
	Metadata
	// AnthropicBatch has the requests of a batch of Anthropic's API.
	AnthropicBatch
)

var names = [...]string{
	JSONL:          "JSON lines",
	JSONArray:      "one JSON array",
	JSONDocument:   "one JSON document",
	PythonLines:    "Python dictionaries",
	JSONStrings:    "JSON strings",
	CSV:            "CSV",
	TSV:            "TSV",
	YAML:           "YAML",
	Markup:         "HTML or XML",
	Text:           "plain text",
	OtherText:      "text that is not UTF-8",
	UTF16LE:        "UTF-16 text",
	UTF16BE:        "UTF-16 text",
	UTF32LE:        "UTF-32 text",
	UTF32BE:        "UTF-32 text",
	Gzip:           "gzip",
	Zstd:           "zstd",
	XZ:             "an xz file",
	Bzip2:          "a bzip2 file",
	LZ4:            "an lz4 file",
	Zip:            "a zip archive",
	Spreadsheet:    "an Excel workbook",
	SevenZip:       "a 7z archive",
	Tar:            "a tar archive",
	Parquet:        "a Parquet file",
	Arrow:          "an Arrow file",
	SQLite:         "an SQLite database",
	PDF:            "a PDF document",
	Binary:         "a binary file",
	Results:        "the answers of a batch",
	Failures:       "the failed requests of a batch",
	Metadata:       "the metadata of a run",
	AnthropicBatch: "a batch file of Anthropic's API",
}

// String returns the format as a sentence names it, such as "CSV" or "a zip archive".
func (f Format) String() string { return names[f] }

// Detection is a format, and the facts that a conversion to JSON lines needs.
type Detection struct {
	Format Format
	// Certain is set if the beginning cannot be that of JSON lines, some of which are wrong.
	Certain bool
	// ByteOrderMark is set for UTF-16 and UTF-32 if the text begins with one.
	ByteOrderMark bool
	// Columns are the names in the first row of a table. The first ones may be empty.
	Columns []string
	// Delimiter separates the columns of a table.
	Delimiter rune
	// Prompt is the index of the column that seems to have the prompts.
	Prompt int
	// ID is the index of the column that seems to have the custom_ids; -1 if there is none.
	ID int
	// Element is the kind of the first element of an array: '{', '[', '"', '0', 't', 'f', 'n';
	// 0 if it has none.
	Element byte
	// Member is the member of a document whose value is the array of its records; empty if none is.
	Member string
	// Transposed is set for a document that is a whole table in a form of pandas other than records.
	Transposed bool
	// Run is the id of the run of results and of metadata, if they name one.
	Run string
}
