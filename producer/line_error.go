package producer

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/promptmill/promptmill/proto/jsonl"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// Fault is a kind of fault of an input line.
type Fault int

// The faults of input lines.
const (
	// FaultSyntax is text that is not JSON.
	FaultSyntax Fault = iota
	// FaultCut is JSON that ends in the middle.
	FaultCut
	// FaultTrailing is text after the JSON object.
	FaultTrailing
	// FaultEncoding is text that is not UTF-8.
	FaultEncoding
	// FaultNotObject is JSON that is not an object.
	FaultNotObject
	// FaultTooLong is a line of more than [jsonl.MaxLine] bytes.
	FaultTooLong
	// FaultTooDeep is a body that is nested deeper than [jsonscan.MaxDepth].
	FaultTooDeep
	// FaultNoRequest is an object without any member of a request.
	FaultNoRequest
	// FaultOutputLine is a line of an output.
	FaultOutputLine
	// FaultAnthropic is a line of a batch of Anthropic's API.
	FaultAnthropic
	// FaultRepeated is a member that is there twice. The subject is its name.
	FaultRepeated
	// FaultDuplicateID is the custom_id of an earlier line.
	FaultDuplicateID
	// FaultID is a custom_id that is empty or not a text.
	FaultID
	// FaultSurrogate is a custom_id with half of a surrogate pair, which no text can hold.
	FaultSurrogate
	// FaultMethod is another method than POST.
	FaultMethod
	// FaultURL is a url that is none of [proto.Endpoints].
	FaultURL
	// FaultEndpoint is a line for another endpoint than that of the settings.
	FaultEndpoint
	// FaultNoURL is a body without a url.
	FaultNoURL
	// FaultNoBody is a url without a body.
	FaultNoBody
	// FaultBody is a body that is not an object.
	FaultBody
	// FaultPayload is a body without the member that its endpoint needs. The subject is both.
	FaultPayload
	// FaultStream is a request for a stream.
	FaultStream
	// FaultBackground is a request for an answer in the background.
	FaultBackground
	// FaultNoModel is a request that names no model, where there is no default.
	FaultNoModel
	// FaultModel is a model that is empty or not a text.
	FaultModel
	// FaultRow is a row of a table that cannot be read.
	FaultRow
	// FaultEmptyCell is a row with an empty cell that the request needs. The subject is the column.
	FaultEmptyCell
	// FaultCell is a row with a cell that the request cannot use. The subject is the column.
	FaultCell
	// FaultTemplate is a row that a template cannot render.
	FaultTemplate
)

// faultTexts describe a line with a fault, and several. %s stands for the subject.
var faultTexts = [...]struct{ one, several string }{
	FaultSyntax:    {"is not JSON", "are not JSON"},
	FaultCut:       {"ends in the middle of its JSON", "end in the middle of their JSON"},
	FaultTrailing:  {"has text after its JSON object", "have text after their JSON objects"},
	FaultEncoding:  {"is not UTF-8", "are not UTF-8"},
	FaultNotObject: {"is not a JSON object", "are not JSON objects"},
	FaultTooLong: {
		fmt.Sprintf("is longer than %d MiB", jsonl.MaxLine>>20),
		fmt.Sprintf("are longer than %d MiB", jsonl.MaxLine>>20),
	},
	FaultTooDeep: {
		fmt.Sprintf("has a body that is nested deeper than %d levels", jsonscan.MaxDepth),
		fmt.Sprintf("have bodies that are nested deeper than %d levels", jsonscan.MaxDepth),
	},
	FaultNoRequest: {
		`has neither "body" nor "messages", "prompt" or "input"`,
		`have neither "body" nor "messages", "prompt" or "input"`,
	},
	FaultOutputLine:  {"has an answer, and no request", "have answers, and no requests"},
	FaultAnthropic:   {`has Anthropic's "params" in place of "body"`, `have Anthropic's "params" in place of "body"`},
	FaultRepeated:    {`has "%s" twice`, `have "%s" twice`},
	FaultDuplicateID: {"has the custom_id of an earlier line", "have the custom_id of an earlier line"},
	FaultID:          {"has a custom_id that is empty or not a text", "have a custom_id that is empty or not a text"},
	FaultSurrogate: {
		"has a custom_id with half of a surrogate pair", "have a custom_id with half of a surrogate pair",
	},
	FaultMethod:   {"has a method other than POST", "have a method other than POST"},
	FaultURL:      {"has an unknown url", "have an unknown url"},
	FaultEndpoint: {"has another endpoint", "have another endpoint"},
	FaultNoURL:    {"has a body and no url", "have a body and no url"},
	FaultNoBody:   {"has a url and no body", "have a url and no body"},
	FaultBody:     {"has a body that is not a JSON object", "have a body that is not a JSON object"},
	FaultPayload:  {"has no %s needs", "have no %s needs"},
	FaultStream: {
		`has "stream": true, which a batch cannot answer`, `have "stream": true, which a batch cannot answer`,
	},
	FaultBackground: {
		`has "background": true, which a batch cannot answer`, `have "background": true, which a batch cannot answer`,
	},
	FaultNoModel: {"names no model", "name no model"},
	FaultModel:   {"has a model that is empty or not a text", "have a model that is empty or not a text"},
	FaultRow:     {"cannot be read", "cannot be read"},
	FaultEmptyCell: {
		`has nothing in the column %s`, `have nothing in the column %s`,
	},
	FaultCell: {
		`has a value in the column %s that cannot be used`, `have a value in the column %s that cannot be used`,
	},
	FaultTemplate: {"cannot be rendered", "cannot be rendered"},
}

// Code returns the word for programs that stands for the fault in OpenAI's batch errors, such as
// invalid_json_line. Several faults may have the same word.
func (f Fault) Code() string {
	switch f {
	case FaultSyntax, FaultCut, FaultTrailing, FaultNotObject:
		return "invalid_json_line"
	case FaultEncoding:
		return "invalid_encoding"
	case FaultTooLong:
		return "line_too_long"
	case FaultTooDeep:
		return "body_too_deep"
	case FaultNoRequest, FaultOutputLine, FaultAnthropic, FaultNoURL, FaultNoBody, FaultPayload, FaultNoModel:
		return "missing_required_parameter"
	case FaultRepeated:
		return "duplicate_parameter"
	case FaultDuplicateID:
		return "duplicate_custom_id"
	case FaultID, FaultSurrogate:
		return "invalid_custom_id"
	case FaultMethod:
		return "invalid_method"
	case FaultURL:
		return "invalid_url"
	case FaultEndpoint:
		return "mismatched_endpoint"
	case FaultBody:
		return "invalid_body"
	case FaultStream, FaultBackground:
		return "unsupported_parameter"
	case FaultModel:
		return "invalid_model"
	case FaultRow:
		return "invalid_row"
	case FaultEmptyCell:
		return "empty_cell"
	case FaultCell, FaultTemplate:
		return "invalid_cell"
	}

	return ""
}

// member returns the member of a line with the fault, empty if there is none or it depends on
// the line.
func (f Fault) member() string {
	switch f {
	case FaultTooDeep, FaultNoRequest, FaultOutputLine, FaultAnthropic, FaultNoBody, FaultBody:
		return "body"
	case FaultDuplicateID, FaultID, FaultSurrogate:
		return "custom_id"
	case FaultMethod:
		return "method"
	case FaultURL, FaultNoURL:
		return "url"
	case FaultStream:
		return "stream"
	case FaultBackground:
		return "background"
	case FaultNoModel, FaultModel:
		return "model"
	}

	return ""
}

// LineError is the error of an input line that is no good request.
type LineError struct {
	Fault Fault
	// Subject completes the fault, such as the name of a member; empty for most faults.
	Subject string
	// Param is the member of the line with the fault, such as url or body.model; empty if none
	// has it.
	Param string
	// Detail is the part that is different in each line with the fault, such as a wrong value
	// or its place; empty if there is none.
	Detail string
	// Flag is the flag of the command line that uses a cell with a fault, such as --image;
	// empty for any other fault.
	Flag string
	// Texts are the members of a [FaultNoRequest] whose values are texts: one may be the prompt.
	Texts []string
	// IsRow reports that the line was rendered from a row of a table.
	IsRow bool
	// TextLine is the number of the first line of a row of text, from 1; 0 for any other row,
	// and for lines.
	TextLine int
}

// Text describes some lines with the fault, behind their number: "names no model".
func (e *LineError) Text(lines int) string {
	text := faultTexts[e.Fault].several
	if lines == 1 {
		text = faultTexts[e.Fault].one
	}
	if e.IsRow {
		text = strings.ReplaceAll(text, "line", "row")
	}

	return strings.Replace(text, "%s", e.Subject, 1)
}

// Error implements error.
func (e *LineError) Error() string {
	text := "the line " + e.Text(1)
	if e.IsRow {
		text = "the row " + e.Text(1)
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}

	return text
}

// completeParam completes the member with the fault. inBody reports that the line has the
// members of the request in its body.
func (e *LineError) completeParam(inBody bool) {
	e.Param = cmp.Or(e.Param, e.Fault.member())
	if inBody && isDecisive(e.Param) {
		e.Param = "body." + e.Param
	}
}

// newLineError returns the error of a line with a wrong value, of which the beginning is enough.
func newLineError(fault Fault, value []byte) *LineError {
	return &LineError{Fault: fault, Detail: excerpt(value, 100)}
}

// newSyntaxError returns the error of a line that is not one JSON object.
func newSyntaxError(line []byte, err error) *LineError {
	syntax, ok := errors.AsType[*jsonscan.SyntaxError](err)
	if !ok {
		return &LineError{Fault: FaultSyntax}
	}

	at := fmt.Sprintf("at byte %d", syntax.Offset+1)
	rest := line[min(syntax.Offset, len(line)):]
	switch syntax.Fault {
	case jsonscan.Cut:
		return &LineError{Fault: FaultCut, Detail: fmt.Sprintf("after %d bytes", syntax.Offset)}
	case jsonscan.Trailing:
		return &LineError{Fault: FaultTrailing, Detail: at + ", near " + excerpt(rest, 20)}
	case jsonscan.NotUTF8:
		return &LineError{Fault: FaultEncoding, Detail: at}
	case jsonscan.NotObject:
		return &LineError{Fault: FaultNotObject, Detail: excerpt(line, 20)}
	}

	if rest = bytes.TrimSpace(rest); len(rest) == 0 {
		return &LineError{Fault: FaultSyntax, Detail: at}
	}

	at += ", near " + excerpt(rest, 20)
	if rest[0] == '\'' {
		at += " (JSON has double quotes)"
	}

	return &LineError{Fault: FaultSyntax, Detail: at}
}

// excerpt returns the beginning of a text, at most some bytes of it.
func excerpt(text []byte, most int) string {
	if len(text) <= most {
		return string(bytes.ToValidUTF8(text, []byte("\ufffd")))
	}

	text = text[:most]
	for n := 1; n < utf8.UTFMax; n++ { // the last character may be cut
		if end := text[len(text)-n:]; utf8.RuneStart(end[0]) {
			if !utf8.FullRune(end) {
				text = text[:len(text)-n]
			}
			break
		}
	}

	return string(bytes.ToValidUTF8(text, []byte("\ufffd"))) + "..."
}
