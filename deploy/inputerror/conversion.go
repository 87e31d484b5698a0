package inputerror

import (
	"cmp"
	"encoding/json"
	"path/filepath"
	"strings"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/producer/fileformat"
)

// conversion is a command that makes JSON lines of a file, or a table that can be read.
type conversion struct {
	// verb names the work of the command.
	verb string
	// command prints the lines. Empty: there is no such command.
	command string
	// source says from where the command reads. Defaults to fromArgument.
	source source
	// then is the rest of the pipeline behind the command and its file.
	then string
	// advice is the hint where there is no command.
	advice string
	// ending is the ending of the new file. Defaults to .jsonl.
	ending string
	// keepsEnding is set if the new file has the ending of the file, without that of its packing.
	keepsEnding bool
}

// source says from where a command reads a file.
type source int

const (
	// fromArgument reads the file behind the command, or standard input.
	fromArgument source = iota
	// fromDash reads the file behind the command, which must be a dash for standard input.
	fromDash
	// fromStdin reads standard input alone.
	fromStdin
	// fromFile cannot read standard input.
	fromFile
	// fromFileToFile reads the first file behind the command, and writes the second.
	fromFileToFile
)

// unpackers print the contents of compressed files.
var unpackers = map[fileformat.Format]string{
	fileformat.Gzip:  "gzip -dc",
	fileformat.Zstd:  "zstd -dc",
	fileformat.XZ:    "xz -dc",
	fileformat.Bzip2: "bzip2 -dc",
	fileformat.LZ4:   "lz4 -dc",
}

// encodings are the names that iconv has for the encodings of texts without a byte-order mark.
var encodings = map[fileformat.Format]string{
	fileformat.UTF16LE:   "UTF-16LE",
	fileformat.UTF16BE:   "UTF-16BE",
	fileformat.UTF32LE:   "UTF-32LE",
	fileformat.UTF32BE:   "UTF-32BE",
	fileformat.OtherText: "WINDOWS-1252",
}

// Filters of jq: a request of a text, a request of messages, and a line of OpenAI's batch format of
// one of Anthropic's.
const (
	textFilter      = `{messages: [{role: "user", content: .}]}`
	messagesFilter  = `{messages: .}`
	anthropicFilter = `{custom_id, url: "/v1/chat/completions", body: (.params | ` +
		`(if .system then [{role: "system", content: .system}] else [] end) as $system | ` +
		`del(.system) + {messages: ($system + .messages)})}`
)

// pandasProgram converts a file that pandas reads with the function behind it.
const pandasProgram = `pandas.read_%s(sys.argv[1]).to_json(sys.argv[2], orient="records", lines=True)`

// conversionOf returns the conversion of a file.
func conversionOf(d fileformat.Detection) conversion {
	if unpacker := unpackers[d.Format]; unpacker != "" {
		return conversion{verb: "unpack", command: unpacker}
	}

	if encoding := encodings[d.Format]; encoding != "" {
		if d.ByteOrderMark {
			encoding = encoding[:len("UTF-16")]
		}
		return conversion{verb: "convert", command: "iconv -f " + encoding + " -t UTF-8"}
	}

	switch d.Format {
	case fileformat.JSONArray:
		return jqConversion("-c", ".[]"+elementFilter(d.Element))
	case fileformat.JSONDocument:
		if d.Transposed {
			return conversion{advice: `write it as records: df.to_json("rows.jsonl", orient="records", lines=True)`}
		}
		if d.Member != "" {
			return jqConversion("-c", "."+memberFilter(d.Member)+"[]")
		}
		return jqConversion("-c", ".")
	case fileformat.AnthropicBatch:
		return jqConversion("-c", anthropicFilter)
	case fileformat.JSONStrings:
		return jqConversion("-c", textFilter)
	case fileformat.Text:
		return jqConversion("-Rc", `select(. != "") | `+textFilter)
	case fileformat.CSV, fileformat.TSV:
		return pythonConversion(fromStdin, "csv, json", tableProgram(d))
	case fileformat.PythonLines:
		return pythonConversion(fromStdin, "ast, json, sys",
			"[print(json.dumps(ast.literal_eval(line))) for line in sys.stdin if line.strip()]")
	case fileformat.YAML:
		return pythonConversion(fromStdin, "json, sys, yaml", "[print(json.dumps(r)) "+
			"for d in yaml.safe_load_all(sys.stdin) for r in (d if isinstance(d, list) else [d])]")
	case fileformat.Parquet:
		return pythonConversion(fromFileToFile, "pandas, sys", strings.ReplaceAll(pandasProgram, "%s", "parquet"))
	case fileformat.Arrow:
		return pythonConversion(fromFileToFile, "pandas, sys", strings.ReplaceAll(pandasProgram, "%s", "feather"))
	case fileformat.SQLite:
		return conversion{
			verb:    "put in its table and column to convert",
			command: "sqlite3 -json",
			source:  fromFile,
			then:    ` 'SELECT prompt FROM requests' | jq -c '.[]'`,
		}
	case fileformat.Zip:
		return conversion{verb: "unpack", command: "unzip -p", source: fromFile}
	case fileformat.SevenZip:
		return conversion{verb: "unpack", command: "7z x -so", source: fromFile}
	case fileformat.Tar:
		return conversion{verb: "unpack", command: "tar -xOf", source: fromDash}
	case fileformat.Spreadsheet:
		return conversion{advice: "save its sheet as CSV, and give that"}
	case fileformat.Markup:
		return conversion{advice: "look at its beginning: it may be the error page of a download"}
	}

	return conversion{advice: `write each request as a JSON object on one line, such as {"prompt": "..."}`}
}

// jqConversion returns the conversion by a filter of jq.
func jqConversion(flags, filter string) conversion {
	return conversion{verb: "convert", command: "jq " + flags + " '" + filter + "'"}
}

// pythonConversion returns the conversion by a program of one line of Python.
func pythonConversion(from source, modules, program string) conversion {
	return conversion{
		verb:    "convert",
		command: "python3 -c " + report.ShellWords("import "+modules+"; "+program),
		source:  from,
	}
}

// elementFilter returns the rest of a filter of jq that makes requests of the elements of an array:
// objects are requests, texts are prompts, and arrays are messages.
func elementFilter(kind byte) string {
	switch kind {
	case '"':
		return " | " + textFilter
	case '[':
		return " | " + messagesFilter
	}
	return ""
}

// memberFilter returns the name of a member as jq writes it.
func memberFilter(name string) string {
	for i, c := range name {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return "[" + strings.ReplaceAll(quoteText(name), "'", `\u0027`) + "]" // stands in single quotes
		}
	}
	return name
}

// tableProgram returns a program of Python that makes requests of the rows of a table.
func tableProgram(d fileformat.Detection) string {
	record := `"messages": [{"role": "user", "content": r[` + quoteText(d.Columns[d.Prompt]) + `]}]`
	if d.ID >= 0 {
		record = `"custom_id": r[` + quoteText(d.Columns[d.ID]) + `], ` + record
	}

	options := ""
	if d.Delimiter != ',' {
		options = ", delimiter=" + quoteText(string(d.Delimiter))
	}

	return `[print(json.dumps({` + record + `})) for r in csv.DictReader(open(0, encoding="utf-8-sig", newline="")` +
		options + `)]`
}

// quoteText returns a text as jq and Python read it.
func quoteText(text string) string {
	quoted, _ := json.Marshal(text) // a string has no fault
	return string(quoted)
}

// hint returns the hint to convert a file. packed is its compression, empty if it has none.
func (c conversion) hint(file, packed string) hint {
	if c.command == "" {
		return hint{text: c.advice}
	}

	input := report.ShellWords(file)
	created := c.newName(file)

	if packed != "" && (c.source == fromFile || c.source == fromFileToFile) {
		unpacked := strings.TrimSuffix(strings.TrimSuffix(file, ".gz"), ".zst")
		if unpacked == file {
			unpacked += ".unpacked"
		}
		return hint{
			text:    "unpack it, and give " + unpacked + ": ",
			command: packed + " -dc " + input + " > " + report.ShellWords(unpacked),
		}
	}

	h := hint{text: c.verb + " it, and give " + created + ": "}
	output := report.ShellWords(created)
	if packed != "" {
		h.command = packed + " -dc " + input + " | " + c.filter() + " > " + output
		return h
	}

	switch c.source {
	case fromStdin:
		h.command = c.command + " < " + input + " > " + output
	case fromFileToFile:
		h.command = c.command + " " + input + " " + output
	case fromArgument, fromDash, fromFile:
		h.command = c.command + " " + input + c.then + " > " + output
	}

	return h
}

// hintForStdin returns the hint to convert standard input.
func (c conversion) hintForStdin() hint {
	switch {
	case c.command == "":
		return hint{text: c.advice}
	case c.source == fromFile || c.source == fromFileToFile:
		return hint{text: "save it as a file, and give that"}
	}

	return hint{text: "pipe it through this command first: ", command: c.filter()}
}

// filter returns the command as a part of a pipeline.
func (c conversion) filter() string {
	if c.source == fromDash {
		return c.command + " -"
	}
	return c.command
}

// packedEndings are the endings of packed files.
var packedEndings = []string{".gz", ".zst", ".xz", ".bz2", ".lz4", ".zip", ".7z", ".tar"}

// newName returns the name of the file that the conversion makes: beside the file, and different.
func (c conversion) newName(file string) string {
	dir, name := filepath.Split(file)

	ending := cmp.Or(c.ending, ".jsonl")
	if c.keepsEnding {
		unpacked := name
		for _, packed := range packedEndings {
			unpacked = strings.TrimSuffix(unpacked, packed)
		}
		ending = filepath.Ext(unpacked)
	}
	for {
		ext := filepath.Ext(name)
		if ext == "" || ext == name || len(ext) > len(".parquet") {
			break
		}
		name = strings.TrimSuffix(name, ext)
	}

	created := dir + name + ending
	for created == file || files.Exists(created) {
		name += ".new"
		created = dir + name + ending
	}

	return created
}
