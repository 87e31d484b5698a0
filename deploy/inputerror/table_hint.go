package inputerror

import (
	"context"
	"path"
	"strings"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/fileformat"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/producer/prompt"
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
)

// hintForTable returns the prompt that makes requests of the rows of a file, with a column of
// the file. It is false if the file is no table, or has requests.
func (in Input) hintForTable(e *producer.FormatError) (hint, bool) {
	var column string
	switch e.Format {
	case fileformat.Text:
		column = "text"
	case fileformat.CSV, fileformat.TSV:
		column = e.Columns[e.Prompt]
	case fileformat.Parquet, fileformat.JSONArray:
		columns := in.readColumns(e.File)
		if e.Format == fileformat.JSONArray && hasRequests(columns) {
			return hint{}, false
		}
		column = choosePrompt(columns)
	}

	if column == "" {
		return hint{}, false
	}

	return promptHint(column), true
}

// promptHint returns the prompt for a table with a column.
func promptHint(column string) hint {
	return hint{
		text:    "say what to ask of each row, in a template with its columns: ",
		command: "--prompt " + promptOf(column),
	}
}

// promptOf returns a prompt with a column, as a shell reads it.
func promptOf(column string) string {
	return report.ShellWords("... {{" + prompt.Reference(column) + "}}")
}

// readColumns returns the columns of a file; nil if it is no table that can be read.
func (in Input) readColumns(file string) []table.Column {
	opener := in.Opener
	if opener == nil {
		opener = inputfile.Local{}
	}

	t, err := table.Open(context.Background(), table.Config{Opener: opener, File: proto.File{Path: file}})
	if err != nil {
		return nil
	}
	defer t.Close()

	return t.Columns()
}

// hasRequests reports whether columns are the members of requests.
func hasRequests(columns []table.Column) bool {
	for _, c := range columns {
		switch c.Name {
		case "body", "messages", "prompt", "input":
			return true
		}
	}
	return false
}

// choosePrompt returns the name of the column that seems to have the prompts: by its name, or
// the first one of texts.
func choosePrompt(columns []table.Column) string {
	var names []string
	text := ""
	for _, c := range columns {
		names = append(names, c.Name)
		if text == "" && c.Kind == table.KindText {
			text = c.Name
		}
	}

	if name := fileformat.FindPrompt(names); name != "" {
		return name
	}

	if text == "" && len(names) > 0 {
		text = names[0]
	}

	return text
}

// hintForNoTable returns the way from a file that is no table to rows.
func (in Input) hintForNoTable(e *table.FormatError) hint {
	switch e.Format {
	case fileformat.Results, fileformat.Failures, fileformat.Metadata:
		return hintForOutput(e.File)
	case fileformat.OtherText:
		return hint{text: "name it, for example --encoding windows-1252"}
	case fileformat.UTF16LE:
		return hint{text: "give --encoding utf-16le"}
	case fileformat.UTF16BE:
		return hint{text: "give --encoding utf-16be"}
	}

	if e.Given != "" && e.Format == fileformat.Parquet && e.Compression == "" {
		return hint{text: "leave out --format"}
	}

	c := tableConversionOf(e)
	if in.Stdin {
		return c.hintForStdin()
	}

	if objectstore.IsURL(e.File) {
		name, _, _ := strings.Cut(path.Base(e.File), "?")
		h := c.hint(name, e.Compression)

		return hint{text: "download it, " + h.text, command: h.command}
	}

	return c.hint(files.Short(e.File), e.Compression)
}
