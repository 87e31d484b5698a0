package proto

// Rows says how requests are made of the rows of tables: each row is rendered as a request.
//
// Texts are templates of text/template, in which {{.NAME}} is the row's value of a column. Package
// producer/prompt describes their functions. [Settings.Model], [Settings.OverrideModel] and the values
// of [Settings.Set] may be templates, too.
type Rows struct {
	// Table says how the files are read.
	Table Table `json:"table,omitzero"`
	// Prompt is the template of the user's message, or of the prompt or the input of an endpoint that has
	// no messages. Empty only if Messages is given.
	Prompt string `json:"prompt,omitempty"`
	// System is the template of the system message. Empty: there is none.
	System string `json:"system,omitempty"`
	// Messages is the column of the messages: a list, or its JSON text. Empty: Prompt is the only message.
	Messages string `json:"messages,omitempty"`
	// Images are the columns of images that go with the prompt: the bytes, a path, or a URL. Paths are
	// relative to the folder of the file.
	Images []string `json:"images,omitempty"`
	// CustomID is the column of the custom_id. Empty: request-N.
	CustomID string `json:"custom_id,omitempty"`
}

// Table says how the files of a table are read. The zero value finds out.
type Table struct {
	// Format is one of [TableFormats]. Empty: the contents of each file decide.
	Format string `json:"format,omitempty"`
	// Columns are the names of the columns of CSV without a header.
	Columns []string `json:"columns,omitempty"`
	// Delimiter is the character between the fields of CSV. Empty: the first line decides.
	Delimiter string `json:"delimiter,omitempty"`
	// Encoding is the encoding of texts, by its name in the WHATWG's standard: windows-1252, utf-16le.
	// Empty: a byte-order mark decides, and without one it is UTF-8.
	Encoding string `json:"encoding,omitempty"`
}

// The formats of tables.
const (
	// FormatCSV is RFC 4180, with any delimiter.
	FormatCSV = "csv"
	// FormatTSV is CSV with tabs.
	FormatTSV = "tsv"
	// FormatParquet is Apache Parquet.
	FormatParquet = "parquet"
	// FormatJSONL has a JSON object a line, whose members are the columns.
	FormatJSONL = "jsonl"
	// FormatJSON is one JSON array of objects.
	FormatJSON = "json"
	// FormatText has a row a line, with the column text.
	FormatText = "text"
)

// TableFormats are the formats of tables.
var TableFormats = []string{FormatCSV, FormatTSV, FormatParquet, FormatJSONL, FormatJSON, FormatText}
