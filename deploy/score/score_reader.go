package score

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"sync/atomic"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// maxLine is the longest line of a command, in bytes: a score with an explanation.
const maxLine = 1 << 20

// sentCounter counts the answers that a command may have got.
type sentCounter struct{ n atomic.Int64 }

// add counts an answer.
func (c *sentCounter) add() { c.n.Add(1) }

// count returns the number of answers.
func (c *sentCounter) count() int { return int(c.n.Load()) }

// scoreReader reads the scores that a command prints.
type scoreReader struct {
	// sent counts the answers: there are no more scores than that.
	sent *sentCounter
	// stop stops the command, with what is wrong with a line.
	stop context.CancelCauseFunc
	// read is called for each score.
	read func()

	list []float64
	part []byte // of a line that has not ended
	scan jsonscan.Scanner
	// isBad reports that a line was refused: nothing is read behind it.
	isBad bool
}

var _ io.Writer = (*scoreReader)(nil)

// errRefused ends the output of a command.
var errRefused = errors.New("a line was refused")

// Write implements [io.Writer].
func (r *scoreReader) Write(p []byte) (n int, err error) {
	for rest := p; len(rest) > 0 && !r.isBad; {
		line, after, ended := bytes.Cut(rest, []byte{'\n'})
		rest = after

		if len(r.part)+len(line) > maxLine {
			r.refuse(fmt.Sprintf("is longer than %d KiB", maxLine>>10))
			break
		}

		r.part = append(r.part, line...)
		if ended {
			r.addLine(r.part)
			r.part = r.part[:0]
		}
	}

	if r.isBad {
		return 0, errRefused
	}

	return len(p), nil
}

// flush reads the last line, if it has no line feed.
func (r *scoreReader) flush() {
	if len(r.part) > 0 && !r.isBad {
		r.addLine(r.part)
		r.part = nil
	}
}

// addLine reads a line.
func (r *scoreReader) addLine(line []byte) {
	if sent := r.sent.count(); len(r.list) >= sent {
		r.refuse(fmt.Sprintf(", %s, is one too many: the command got %d answers, and must print one score for each",
			excerpt(line), sent))
		return
	}

	score, problem := parseScore(&r.scan, line)
	if problem != "" {
		r.refuse(fmt.Sprintf(", %s, %s", excerpt(line), problem))
		return
	}

	r.list = append(r.list, score)
	r.read()
}

// refuse stops the command since its next line is no score.
func (r *scoreReader) refuse(problem string) {
	r.isBad = true
	if problem[0] != ',' {
		problem = " " + problem
	}
	r.stop(fmt.Errorf("line %d of the command's output%s", len(r.list)+1, problem))
}

// parseScore parses a line of a command. problem says what is wrong with it; empty: nothing.
func parseScore(s *jsonscan.Scanner, line []byte) (score float64, problem string) {
	const want = `print a number from 0 to 1, true or false, or a JSON object with one of them as "score"`

	line = bytes.TrimSpace(line)
	s.Reset(line)

	var raw []byte
	isObject := s.Kind() == '{'
	if isObject {
		for s.Enter(); s.Next(); {
			if string(s.Name()) == "score" {
				raw = s.Value()
			}
		}
	} else {
		raw = s.Value()
	}

	switch err := s.End(); {
	case err != nil || len(line) == 0:
		return 0, "is not JSON; " + want
	case isObject && raw == nil:
		return 0, `has no "score"; ` + want
	}

	switch string(raw) {
	case "true":
		return 1, ""
	case "false":
		return 0, ""
	}

	score, err := strconv.ParseFloat(string(raw), 64)
	switch {
	case raw[0] != '-' && (raw[0] < '0' || raw[0] > '9'):
		return 0, "is no score; " + want
	case err != nil && !math.IsInf(score, 0), !(score >= 0 && score <= 1):
		return 0, "is not from 0 to 1; divide scores by the best that there can be"
	}

	return score + 0, "" // -0 is 0
}

// excerpt returns the beginning of a line, in quotes.
func excerpt(line []byte) string {
	const most = 80
	if len(line) > most {
		return strconv.Quote(string(line[:most])) + "..."
	}
	return strconv.Quote(string(line))
}
