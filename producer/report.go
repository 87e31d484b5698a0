package producer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// MaxExamples is the most lines of a [Reason] that are listed.
const MaxExamples = 5

// Report has the refused lines of an input.
type Report struct {
	// Reasons are the reasons why lines are refused, in the order of their first lines.
	Reasons []Reason
	// Count is the number of all refused lines.
	Count int
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
	// Line is the number of the line in its file, from 1.
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
	text := fmt.Sprintf("%s:%d: %s: %s", p.File, p.Line, p.CustomID, p.Err)
	if p.EarlierLine > 0 {
		text += fmt.Sprintf(": %s:%d", p.EarlierFile, p.EarlierLine)
	}

	return text
}

// findEarlierLines completes the duplicates among the examples with the lines that had their
// custom_ids first. It reads the input again, up to the last of these.
func (r *Report) findEarlierLines(ctx context.Context, files []string, s proto.Settings) error {
	wanted := map[[16]byte][]*Problem{}
	for _, reason := range r.Reasons {
		if reason.Fault != FaultDuplicateID {
			continue
		}

		for i, p := range reason.Examples {
			key := HashID(jsonscan.Quote(p.CustomID))
			wanted[key] = append(wanted[key], &reason.Examples[i])
		}
	}

	lines, err := NewReader(files, s, nil)
	if err != nil {
		return err
	}
	defer lines.Close()

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
			for _, p := range wanted[key] {
				p.EarlierFile, p.EarlierLine = item.File, item.Line
			}
			delete(wanted, key)
		}

		if item.Index%4096 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}

	return nil
}

// add counts a refused line.
func (r *Report) add(item Item) {
	r.Count++
	i := slices.IndexFunc(r.Reasons, func(g Reason) bool {
		return g.Fault == item.Err.Fault && g.Subject == item.Err.Subject
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
