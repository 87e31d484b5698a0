package inputerror

import (
	"fmt"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/fileformat"
	"github.com/promptmill/promptmill/producer/prompt"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
)

const (
	// maxReasons is the most reasons that are listed; the lines with others are counted.
	maxReasons = 10
	// maxExamples is the most lines that are listed for a reason.
	maxExamples = 3
)

// PrintReasons prints why lines are refused: each reason once, with the number of its lines and the
// first of them.
func (in Input) PrintReasons(printf func(format string, args ...any), report producer.Report) {
	others := 0
	for i, reason := range report.Reasons {
		if i < maxReasons {
			printf("%s", in.describeReason(reason))
		} else {
			others += reason.Count
		}
	}

	if others > 0 {
		printf("... and %s %ss for other reasons", terminal.FormatCount(others), Unit(report))
	}

	if report.Count == producer.MaxBad {
		printf("... and no further %s was read", Unit(report))
	}
}

// describeReason returns a reason as one line.
func (in Input) describeReason(reason producer.Reason) string {
	first := reason.Examples[0]
	if reason.Count == 1 {
		named := first
		named.File = in.name(first.File)
		return fmt.Sprintf("%s: %s: the %s %s%s", named.Place(), first.CustomID, unitOf(first), reason.Text(1),
			in.describeDetail(first))
	}

	examples := reason.Examples[:min(len(reason.Examples), maxExamples)]
	common := in.describeDetail(first) // where all have the same, it is printed once
	for _, p := range examples {
		if in.describeDetail(p) != common {
			common = ""
		}
	}

	separator := ", "
	var lines []string
	for _, p := range examples {
		line := fmt.Sprintf("%s %d (%s)", unitOf(p), p.Line, p.CustomID)
		if len(in.Files) > 1 {
			line = fmt.Sprintf("%s (%s)", in.describePlace(p.File, p.Line, p), p.CustomID)
		}

		if detail := in.describeDetail(p); detail != common {
			separator = "; "
			line += detail
		}

		lines = append(lines, line)
	}

	text := strings.Join(lines, separator)
	if reason.Count > len(examples) {
		text += separator + "..."
	}

	text += common

	count := terminal.FormatCount(reason.Count) + " " + unitOf(first) + "s " + reason.Text(reason.Count) + ": " + text
	if len(in.Files) > 1 {
		return count
	}

	return in.name(first.File) + ": " + count
}

// describePlace names a line of a file, or a row if the fault is in one.
func (in Input) describePlace(file string, line int, p producer.Problem) string {
	if p.Err.IsRow {
		return fmt.Sprintf("%s, row %d", in.name(file), line)
	}
	return fmt.Sprintf("%s:%d", in.name(file), line)
}

// unitOf returns what a fault is in: line or row.
func unitOf(p producer.Problem) string {
	if p.Err.IsRow {
		return "row"
	}
	return "line"
}

// Unit returns what a report is about: line or row.
func Unit(report producer.Report) string { return unitOf(report.Reasons[0].Examples[0]) }

// describeDetail returns the part of a fault that is a line's own, behind a colon; "" if there
// is none.
func (in Input) describeDetail(p producer.Problem) string {
	switch {
	case p.Err.Detail != "":
		return ": " + p.Err.Detail
	case p.EarlierLine > 0 && p.EarlierFile != p.File:
		return ": " + in.describePlace(p.EarlierFile, p.EarlierLine, p)
	case p.EarlierLine > 0:
		return fmt.Sprintf(": %s %d", unitOf(p), p.EarlierLine)
	}

	return ""
}

// DescribeLines returns an error of lines that cannot be sent with exit code 2 and a hint.
// requests is the number of all lines, and nameModel the hint for lines that name no model.
func (in Input) DescribeLines(err error, report producer.Report, requests int, nameModel string) error {
	h := in.hintForLines(report, requests, nameModel)
	if report.Reasons[0].Fault == producer.FaultDuplicateID && len(report.Reasons) == 1 {
		if repeated := in.repeatedFile(); repeated != "" {
			return h.usage("%s is named twice: %w", repeated, err)
		}
	}

	return h.usage("%w", err)
}

// describeTemplate returns an error of a template or of the name of a column.
func (in Input) describeTemplate(e *prompt.TemplateError) error {
	where := ""
	if e.Column != "" && len(in.Files) == 1 {
		where = in.name(in.Files[0]) + ": "
	}

	return exit.Usage(e.Hint, "%s%w", where, &namedTemplateError{e})
}

// namedTemplateError is the error of a template without its hint.
type namedTemplateError struct{ *prompt.TemplateError }

// Error implements error.
func (e *namedTemplateError) Error() string { return e.Flag + ": " + e.Message }

// Unwrap returns the error with its hint.
func (e *namedTemplateError) Unwrap() error { return e.TemplateError }

// hintForLines returns the way to an input of which each line can be sent.
func (in Input) hintForLines(report producer.Report, requests int, nameModel string) hint {
	const skip = "give --skip-invalid to run the others and have these in the errors file"

	if slices.ContainsFunc(report.Reasons, isWithoutModel) {
		if len(report.Reasons) == 1 {
			return hint{text: nameModel}
		}
		return hint{text: nameModel + "; fix the other lines, or give --skip-invalid to have them in the errors file"}
	}

	var fix hint
	if len(report.Reasons) == 1 {
		fix = in.fix(report.Reasons[0])
	}

	switch all := report.Count == requests; {
	case fix.text == "" && all:
		return hint{text: "fix them"}
	case fix.text == "":
		return hint{text: "fix them, or " + skip}
	case all, report.Reasons[0].Fault == producer.FaultDuplicateID && in.repeatedFile() != "":
		return fix
	}

	fix.text = skip + "; or " + fix.text

	return fix
}

func isWithoutModel(r producer.Reason) bool { return r.Fault == producer.FaultNoModel }

// fix returns the way to lines without a fault, an empty one if that is to write them.
func (in Input) fix(reason producer.Reason) hint {
	if reason.IsRow {
		return in.fixRows(reason)
	}

	file := reason.Examples[0].File
	switch reason.Fault {
	case producer.FaultEncoding:
		h := in.convert(file, conversionOf(fileformat.Detection{Format: fileformat.OtherText}))
		h.text = "if it is Windows-1252, " + h.text
		return h
	case producer.FaultAnthropic:
		return in.convert(file, conversionOf(fileformat.Detection{Format: fileformat.AnthropicBatch}))
	case producer.FaultStream, producer.FaultBackground:
		return in.convert(file, jqConversion("-c", "del(.stream, .background, .body.stream?, .body.background?)"))
	case producer.FaultMethod:
		return in.convert(file, jqConversion("-c", "del(.method)"))
	case producer.FaultNoURL:
		return in.convert(file, jqConversion("-c", `.url = "/v1/chat/completions"`))
	case producer.FaultID:
		return in.convert(file, jqConversion("-c", ".custom_id |= tostring"))
	case producer.FaultURL:
		return hint{text: "use one of " + strings.Join(proto.Endpoints, ", ")}
	case producer.FaultNoRequest:
		prompt := fileformat.FindPrompt(reason.Texts)
		if prompt == "" {
			return hint{text: `give each line a "prompt" or "messages", such as {"prompt": "..."}`}
		}
		return in.convert(file, jqConversion("-c",
			strings.Replace(textFilter, "content: .", "content: ."+memberFilter(prompt), 1)))
	case producer.FaultDuplicateID:
		if repeated := in.repeatedFile(); repeated != "" {
			return hint{text: "give " + repeated + " once"}
		}
		return hint{text: "give each request a custom_id of its own"}
	}

	return hint{}
}

// fixRows returns the way to rows without a fault, an empty one if that is to change the table.
func (in Input) fixRows(reason producer.Reason) hint {
	isEmpty := reason.Fault == producer.FaultEmptyCell
	set, isSet := strings.CutPrefix(reason.Flag, "--set ")
	switch {
	case reason.Fault == producer.FaultDuplicateID:
		return hint{text: "leave out --custom-id, or name a column whose values are all different"}
	case isEmpty && reason.Flag == "--custom-id":
		return hint{text: "leave out --custom-id, or name a column that has a value in each row"}
	case isEmpty && (reason.Flag == "--image" || reason.Flag == "--messages"):
		return hint{text: "fill the column, or name another with " + reason.Flag}
	case isEmpty:
		return hint{text: "say in the template what stands for an empty cell: " +
			`{{default "none" ` + prompt.Argument(reason.Subject) + "}}"}
	case reason.Fault == producer.FaultTemplate:
		return hint{text: "fix the template"}
	case reason.Fault != producer.FaultCell:
	case reason.Flag == "--image" && in.Submitted:
		return hint{text: "the column has the bytes or the URL of a PNG, JPEG, GIF or WebP image; " +
			"promptmill run also sends files, by their paths"}
	case reason.Flag == "--image" && in.Stdin:
		return hint{text: "the column has the bytes, a URL or the path of a PNG, JPEG, GIF or WebP image; " +
			"paths begin with /, since standard input has no folder"}
	case reason.Flag == "--image":
		return hint{text: "the column has the bytes, a URL or the path of a PNG, JPEG, GIF or WebP image; " +
			"paths are relative to the folder of the table"}
	case reason.Flag == "--messages":
		return hint{text: `the column has lists such as [{"role": "user", "content": "..."}]; ` +
			"a column of texts goes into --prompt: " + promptOf(reason.Subject)}
	case isSet:
		return hint{text: "a text is --set '" + set + "={{json " + prompt.Argument(reason.Subject) + "}}'"}
	}

	return hint{}
}

// convert returns the hint to convert a file.
func (in Input) convert(file string, c conversion) hint {
	if in.Stdin {
		return c.hintForStdin()
	}
	compression, _ := jsonl.Compression(file) // it has just been read
	return c.hint(files.Short(file), compression)
}

// repeatedFile returns the first file that is there twice, "" if there is none.
func (in Input) repeatedFile() string {
	for i, file := range in.Files {
		if slices.Contains(in.Files[:i], file) {
			return in.name(file)
		}
	}
	return ""
}
