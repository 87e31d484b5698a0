package producer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// MaxExamples is the most lines of a [Reason] that are listed.
const MaxExamples = 5

// MaxLines is the most lines of a [Report] that are listed one by one.
const MaxLines = 1000

// Report has the refused lines of an input.
type Report struct {
	// Reasons are the reasons why lines are refused, in the order of their first lines.
	Reasons []Reason
	// Count is the number of all refused lines.
	Count int
	// Lines are the first lines in the order of the input, at most [MaxLines].
	Lines []RefusedLine
}

// RefusedLine is a refused line as OpenAI's API describes it in the errors of a batch.
type RefusedLine struct {
	// File is the path of the file, as given.
	File string
	// Line is the number of the line or the row in its file, from 1.
	Line int
	// Code is a word for programs: see [Fault.Code].
	Code string
	// Param is the member of the line that is wrong, such as body.model; empty if none is.
	Param string
	// Message is a sentence for people.
	Message string
}

// Reason is a reason why lines are refused.
type Reason struct {
	// LineError is the error of the first of the lines.
	*LineError
	// Count is the number of the lines.
	Count int
	// Examples are the first lines, at most [MaxExamples].
	Examples []Problem
}

// Problem is a refused input line.
type Problem struct {
	// File is the path of the file, as given.
	File string
	// Line is the number of the line or the row in its file, from 1.
	Line int
	// CustomID is the name of the request, or request-N if the line names none.
	CustomID string
	// Err says why the line is refused.
	Err *LineError
	// EarlierFile and EarlierLine are the place of the line that has the same custom_id and
	// comes first, if the fault is [FaultDuplicateID].
	EarlierFile string
	EarlierLine int
}

// String returns the problem as a line of a report.
func (p Problem) String() string {
	text := fmt.Sprintf("%s: %s: %s", p.Place(), p.CustomID, p.Err)
	if p.EarlierLine > 0 {
		text += ": " + formatPlace(p.EarlierFile, p.EarlierLine, 0, p.Err.IsRow)
	}

	return text
}

// Place names the line or the row: in.jsonl:17, or in.csv, row 17 (line 18).
func (p Problem) Place() string { return formatPlace(p.File, p.Line, p.Err.TextLine, p.Err.IsRow) }

// formatPlace names a line or a row of a file. textLine is the line of a row; 0 if it has none.
func formatPlace(file string, number, textLine int, isRow bool) string {
	switch {
	case !isRow:
		return fmt.Sprintf("%s:%d", file, number)
	case textLine == 0:
		return fmt.Sprintf("%s, row %d", file, number)
	}
	return fmt.Sprintf("%s, row %d (line %d)", file, number, textLine)
}

// findEarlierLines completes the duplicates with the lines that had their custom_ids first.
// repeated are the custom_ids of those among Lines, by their index there. lines reads the input
// again, up to the last of these.
func (r *Report) findEarlierLines(ctx context.Context, lines *Reader, repeated map[int][16]byte) error {
	type duplicates struct {
		examples []*Problem
		lines    []*RefusedLine
	}

	wanted := map[[16]byte]*duplicates{}
	find := func(key [16]byte) *duplicates {
		if wanted[key] == nil {
			wanted[key] = &duplicates{}
		}
		return wanted[key]
	}

	for _, reason := range r.Reasons {
		if reason.Fault != FaultDuplicateID {
			continue
		}

		for i, p := range reason.Examples {
			key := HashID(jsonscan.Quote(p.CustomID))
			d := find(key)
			d.examples = append(d.examples, &reason.Examples[i])
		}
	}

	for i, key := range repeated {
		d := find(key)
		d.lines = append(d.lines, &r.Lines[i])
	}

	for len(wanted) > 0 {
		item, err := lines.Next()
		if errors.Is(err, io.EOF) {
			return nil // the input has changed
		}
		if err != nil {
			return err
		}

		if item.Err == nil {
			key := HashID(item.CustomID)
			if d := wanted[key]; d != nil {
				for _, p := range d.examples {
					p.EarlierFile, p.EarlierLine = item.File, item.Line
				}

				for _, l := range d.lines {
					l.Message += ": " + placeOf(item, l.File)
				}

				delete(wanted, key)
			}
		}

		if item.Index%4096 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}

	return nil
}

// placeOf names the line of an item, seen from a file.
func placeOf(item Item, from string) string {
	switch {
	case item.File != from:
		return formatPlace(item.File, item.Line, 0, item.isRow)
	case item.isRow:
		return fmt.Sprintf("row %d", item.Line)
	}
	return fmt.Sprintf("line %d", item.Line)
}

// add counts a refused line.
func (r *Report) add(item Item) {
	r.Count++
	if len(r.Lines) < MaxLines {
		r.Lines = append(r.Lines, RefusedLine{
			File:    item.File,
			Line:    item.Line,
			Code:    item.Err.Fault.Code(),
			Param:   item.Err.Param,
			Message: item.Err.Error(),
		})
	}

	i := slices.IndexFunc(r.Reasons, func(g Reason) bool {
		return g.Fault == item.Err.Fault && g.Subject == item.Err.Subject && g.Flag == item.Err.Flag
	})
	if i < 0 {
		i = len(r.Reasons)
		r.Reasons = append(r.Reasons, Reason{LineError: item.Err})
	}

	reason := &r.Reasons[i]
	reason.Count++

	if len(reason.Examples) < MaxExamples {
		reason.Examples = append(reason.Examples, Problem{
			File:     item.File,
			Line:     item.Line,
			CustomID: string(idText(item.CustomID)),
			Err:      item.Err,
		})
	}
}
