package main

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v3"
	"golang.org/x/text/encoding/htmlindex"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/proto"
)

// rowFlags returns the flags for the rows of tables.
func rowFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:     "prompt",
			Category: groupRows,
			Usage:    "`TEMPLATE`: make a request of each row of a table, with this prompt, such as 'Classify: {{.text}}' for a table with the column text",
		},
		&cli.StringFlag{
			Name:     "prompt-file",
			Category: groupRows,
			Usage:    "`FILE`: read the template of the prompt from this file",
		},
		&cli.StringFlag{
			Name:     "system",
			Category: groupRows,
			Usage:    "`TEMPLATE`: system message of each request",
		},
		&cli.StringFlag{
			Name:     "messages",
			Category: groupRows,
			Usage:    "`COLUMN`: column that has messages of each request, as a list or as JSON, before the one of --prompt",
		},
		&wholeTextsFlag{
			Name:     "image",
			Category: groupRows,
			Usage:    "`COLUMN`: column of images for the prompt: their bytes, paths or URLs; paths, which submit does not take, are relative to the folder of the table",
		},
		&cli.StringFlag{
			Name:        "custom-id",
			Category:    groupRows,
			Usage:       "`COLUMN`: column that has the custom_id of each request",
			DefaultText: "request-N",
		},
		&cli.StringFlag{
			Name:        "format",
			Category:    groupRows,
			Sources:     cli.EnvVars("PROMPTMILL_TABLE_FORMAT"), // report has a --format, too
			Usage:       "`TYPE`: format of the table: " + joinWords(proto.TableFormats),
			DefaultText: "found by its contents",
		},
		&cli.StringFlag{
			Name:     "columns",
			Category: groupRows,
			Usage:    "`NAME,...`: names of the columns of a CSV file without a header",
		},
		&cli.StringFlag{
			Name:        "delimiter",
			Category:    groupRows,
			Usage:       "`CHARACTER`: character between the fields of a CSV file, such as ';' or '\\t'",
			DefaultText: "found in its first line",
		},
		&cli.StringFlag{
			Name:        "encoding",
			Category:    groupRows,
			Usage:       "`ENCODING-NAME`: encoding of the text of the table, such as windows-1252 or utf-16le",
			DefaultText: "utf-8, or that of its byte-order mark",
		},
	}
}

// selectionFlags returns the flags that choose requests of the input, and their endpoint.
func selectionFlags() []cli.Flag {
	return []cli.Flag{
		endpointFlag(),
		&cli.IntFlag{
			Name:     "limit",
			Category: groupInput,
			Usage:    "`N`: run only the first N requests of the input",
		},
		&cli.IntFlag{
			Name:     "sample",
			Category: groupInput,
			Usage:    "`N`: run only N requests, chosen at random; they are the same each time",
		},
		dryRunFlag(),
	}
}

// endpointFlag returns the flag for the endpoint of the requests.
func endpointFlag() cli.Flag {
	return &cli.StringFlag{
		Name:     "endpoint",
		Category: groupInput,
		Usage:    "`ENDPOINT`: path of all requests, such as /v1/completions",
	}
}

// templateFlags are the flags of which one makes requests of rows.
var templateFlags = []string{"prompt", "prompt-file", "messages"}

// rowFlagsAlone are the flags that do nothing without one of templateFlags.
var rowFlagsAlone = slices.DeleteFunc(namesOf(rowFlags()), func(name string) bool {
	return slices.Contains(templateFlags, name)
})

// parseRows reads the flags of rows. It returns nil if the command line has no template.
func parseRows(c *cli.Command) (*proto.Rows, error) {
	if !slices.ContainsFunc(templateFlags, c.IsSet) {
		return nil, nil
	}

	if c.IsSet("prompt") && c.IsSet("prompt-file") {
		return nil, exit.Usage("leave out one of them", "--prompt and --prompt-file both have the prompt")
	}

	r := &proto.Rows{
		Prompt:   c.String("prompt"),
		System:   c.String("system"),
		Messages: c.String("messages"),
		Images:   textsOf(c, "image"),
		CustomID: c.String("custom-id"),
	}

	var err error
	if c.IsSet("prompt-file") {
		if r.Prompt, err = readTemplate(c.String("prompt-file")); err != nil {
			return nil, err
		}
	}

	for _, name := range []string{"prompt", "system"} {
		if c.IsSet(name) && strings.TrimSpace(c.String(name)) == "" {
			return nil, exit.Usage("for example --"+name+" "+exampleTemplates[name], "--%s is empty", name)
		}
		if !utf8.ValidString(c.String(name)) {
			return nil, exit.Usage("", "--%s is not UTF-8", name)
		}
		if err := refuseFileAsTemplate(name, c.String(name)); err != nil {
			return nil, err
		}
	}

	for _, name := range []string{"messages", "custom-id"} {
		if c.IsSet(name) && c.String(name) == "" {
			return nil, exit.Usage("give --"+name+" COLUMN, or leave it out", "--%s names no column", name)
		}
	}

	for i, name := range r.Images {
		switch {
		case name == "":
			return nil, exit.Usage("give --image COLUMN, or leave it out", "--image names no column")
		case slices.Contains(r.Images[:i], name):
			return nil, exit.Usage("leave out one of them", "--image %s is given twice", name)
		}
	}

	r.Table, err = parseTable(c)

	return r, err
}

// exampleTemplates are templates of flags.
var exampleTemplates = map[string]string{
	"prompt": "'Classify: {{.text}}'",
	"system": "'You answer in one word.'",
}

// refuseFileAsTemplate refuses a template that is the name of a file, with or without @, or is the
// next flag of the command line.
func refuseFileAsTemplate(name, text string) error {
	path := strings.TrimPrefix(text, "@")
	info, err := os.Stat(path)
	isFile := err == nil && info.Mode().IsRegular() && (text != path || filepath.Ext(path) != "")

	switch {
	case name == "prompt" && (isFile || text != path && !strings.ContainsAny(text, " {\n")):
		return exit.Usage("to read the prompt from the file, give --prompt-file "+report.ShellWords(path),
			"--prompt %s: this is the name of a file, and not a template", report.ShellWords(text))
	case isFile:
		return exit.Usage("the value of --system is the text itself: --system \"$(cat "+report.ShellWords(path)+")\"",
			"--system %s: this is the name of a file, and not a template", report.ShellWords(text))
	case len(text) > 1 && text[0] == '-' && text[1] != ' ' && !strings.ContainsAny(text, " {\n"):
		return exit.Usage("for example --"+name+" "+exampleTemplates[name],
			"--%s has no value: %s behind it looks like a flag", name, text)
	}

	return nil
}

// readTemplate reads the template of a file. The line feed at its end is the editor's, and so are
// the carriage returns of Windows.
func readTemplate(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", exit.Usage("", "--prompt-file %s: %w", path, files.WithoutPath(err))
	}

	text := string(bytes.TrimPrefix(data, []byte("\ufeff")))
	if !utf8.ValidString(text) {
		return "", exit.Usage("save it as UTF-8", "--prompt-file %s: the file is not text in UTF-8", path)
	}

	text = strings.TrimSuffix(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	if strings.TrimSpace(text) == "" {
		return "", exit.Usage("it has the text of the prompt, such as Classify: {{.text}}",
			"--prompt-file %s: the file is empty", path)
	}

	return text, nil
}

// parseTable reads the flags that say how the files of a table are read.
func parseTable(c *cli.Command) (t proto.Table, err error) {
	t.Format = c.String("format")
	if t.Format != "" && !slices.Contains(proto.TableFormats, t.Format) {
		return t, exit.Usage("want "+joinWords(proto.TableFormats), "there is no table format %q", t.Format)
	}

	if t.Columns, err = parseColumns(c.String("columns")); err != nil {
		return t, err
	}

	if t.Delimiter, err = parseDelimiter(c.String("delimiter")); err != nil {
		return t, err
	}

	isCSV := t.Format == "" || t.Format == proto.FormatCSV || t.Format == proto.FormatTSV
	switch {
	case len(t.Columns) > 0 && !isCSV:
		return t, exit.Usage("leave out --columns", "--columns is for CSV, and the format is %s", t.Format)
	case t.Delimiter != "" && !isCSV:
		return t, exit.Usage("leave out --delimiter", "--delimiter is for CSV, and the format is %s", t.Format)
	}

	name := c.String("encoding")
	if name == "" {
		return t, nil
	}

	encoding, err := htmlindex.Get(cmp.Or(pythonEncodings[strings.ToLower(name)], name))
	if err == nil {
		t.Encoding, err = htmlindex.Name(encoding)
	}
	if err != nil || t.Encoding == "replacement" { // stands for encodings that are not read
		return t, exit.Usage("for example --encoding windows-1252, shift_jis or utf-16le",
			"there is no encoding %q", name)
	}

	if t.Format == proto.FormatParquet {
		return t, exit.Usage("leave out --encoding", "--encoding is for text, and the format is parquet")
	}

	return t, nil
}

// pythonEncodings are names of Python for encodings, which pandas takes, beside the names of the
// WHATWG's Encoding Standard. A byte-order mark is skipped in any case.
var pythonEncodings = map[string]string{
	"latin-1":   "latin1",
	"utf-8-sig": "utf-8",
	"utf_8_sig": "utf-8",
	"utf_8":     "utf-8",
	"utf_16_le": "utf-16le",
	"utf-16-le": "utf-16le",
	"utf_16_be": "utf-16be",
	"utf-16-be": "utf-16be",
}

// parseColumns reads names of columns, which are fields of CSV.
func parseColumns(text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}

	const example = "for example --columns id,text"
	fields := csv.NewReader(strings.NewReader(text))
	columns, err := fields.Read()
	if err == nil {
		_, err = fields.Read()
	}
	if !errors.Is(err, io.EOF) {
		return nil, exit.Usage(example+`, with quotes around a name with a comma: --columns '"last, first",text'`,
			"--columns %s: this is not one line of CSV", report.ShellWords(text))
	}

	for i, name := range columns {
		switch {
		case name == "":
			return nil, exit.Usage(example, "--columns %s: column %d has no name", report.ShellWords(text), i+1)
		case slices.Contains(columns[:i], name):
			return nil, exit.Usage(example, "--columns names %s twice", name)
		}
	}

	return columns, nil
}

// parseDelimiter reads the character between the fields of CSV.
func parseDelimiter(text string) (string, error) {
	switch {
	case text == "":
		return "", nil
	case text == `\t`, text == "tab":
		return "\t", nil
	case utf8.RuneCountInString(text) != 1 || strings.ContainsAny(text, "\"\r\n\ufeff\ufffd\x00"):
		return "", exit.Usage("for example --delimiter ';' or --delimiter '\\t'",
			"--delimiter %s: must be one character, and no quote", report.ShellWords(text))
	}

	return text, nil
}

// parseSelection reads the flags that choose requests of the input, and their endpoint.
func parseSelection(c *cli.Command, s *proto.Settings) error {
	s.Limit, s.Sample = c.Int("limit"), c.Int("sample")
	for _, name := range []string{"limit", "sample"} {
		if c.IsSet(name) && c.Int(name) < 1 {
			return exit.Usage("", "--%s %d: must be at least 1", name, c.Int(name))
		}
	}

	if s.Limit > 0 && s.Sample > 0 {
		return exit.Usage("leave out one of them",
			"--limit runs the first requests of the input, and --sample some of all")
	}

	return parseEndpoint(c, s)
}

// parseEndpoint reads the endpoint of the requests.
func parseEndpoint(c *cli.Command, s *proto.Settings) error {
	s.Endpoint = c.String("endpoint")
	if s.Endpoint != "" && !slices.Contains(proto.Endpoints, s.Endpoint) {
		return exit.Usage("want "+joinWords(proto.Endpoints), "there is no endpoint %q", s.Endpoint)
	}

	if s.Rows == nil {
		return nil
	}

	return checkEndpoint(s.Endpoint, s.Rows)
}

// checkEndpoint refuses rows that the requests of an endpoint have no place for.
func checkEndpoint(endpoint string, r *proto.Rows) error {
	var name string
	switch endpoint {
	case "", "/v1/chat/completions":
		return nil
	case "/v1/completions", "/v1/embeddings":
	default:
		return exit.Usage("want /v1/chat/completions, /v1/completions or /v1/embeddings",
			"no request of %s can be made of a row", endpoint)
	}

	switch {
	case r.System != "":
		name = "--system"
	case r.Messages != "":
		name = "--messages"
	case len(r.Images) > 0:
		name = "--image"
	default:
		return nil
	}

	return exit.Usage("leave out "+name+", or --endpoint", "%s needs messages, which a request of %s does not have",
		name, endpoint)
}

// joinWords joins words in a sentence: a, b or c.
func joinWords(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
