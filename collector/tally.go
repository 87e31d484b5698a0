package collector

import (
	"bytes"
	"strconv"

	"github.com/promptmill/promptmill/proto"
)

// Tally counts output lines by what they say of how their requests went. Each count is
// of lines in the output, so that those of a run can be added up frame by frame.
type Tally struct {
	// Attempts are the requests that ended on each attempt, by its number from "1".
	Attempts map[string]int64 `json:"attempts,omitempty"`
	// Retried are the attempts that were followed by another, by why they failed.
	Retried map[string]int64 `json:"retried,omitempty"`
	// Finish are the answers of a good status by why they ended, or "none" where they do
	// not say. Those that are kept beside an error are among them.
	Finish   map[string]int64 `json:"finish,omitempty"`
	Failures map[string]int64 `json:"failures,omitempty"` // failed requests by cause
	Workers  map[string]int64 `json:"workers,omitempty"`  // requests by the worker that ran them
}

// Names come out of answers. There are a few of each kind; should there be ever more, or
// whole texts, they are counted as one.
const (
	maxNames  = 1000
	maxName   = 256
	otherName = "other"
)

func count(counts *map[string]int64, name string, n int64) {
	if *counts == nil {
		*counts = map[string]int64{}
	}
	if _, known := (*counts)[name]; !known && (len(*counts) >= maxNames || len(name) > maxName) {
		name = otherName
	}
	(*counts)[name] += n
}

// add counts a line of a worker, whose name is empty if the line does not tell it.
func (t *Tally) add(l proto.Line, worker string) {
	if l.Attempts > 0 {
		count(&t.Attempts, strconv.FormatInt(l.Attempts, 10), 1)
	}
	unexplained := l.Attempts - 1
	for reason := range bytes.SplitSeq(l.Retried, []byte{','}) {
		if len(reason) > 0 {
			count(&t.Retried, string(reason), 1)
			unexplained--
		}
	}
	if unexplained > 0 {
		count(&t.Retried, "unknown", unexplained)
	}
	if l.Status >= 200 && l.Status < 300 {
		finish := l.Finish
		if finish == "" {
			finish = "none"
		}
		count(&t.Finish, finish, 1)
	}
	if !l.OK {
		count(&t.Failures, l.ErrorCode, 1)
	}
	if worker != "" && !notRun(l) {
		count(&t.Workers, worker, 1)
	}
}

// Add adds what d counts to t.
func (t *Tally) Add(d Tally) {
	for _, both := range []struct {
		to   *map[string]int64
		from map[string]int64
	}{{&t.Attempts, d.Attempts}, {&t.Retried, d.Retried}, {&t.Finish, d.Finish}, {&t.Failures, d.Failures}, {&t.Workers, d.Workers}} {
		for name, n := range both.from {
			count(both.to, name, n)
		}
	}
}

// notRun reports whether a line is of a request that was refused, or not executed.
func notRun(l proto.Line) bool { return !l.OK && l.Attempts == 0 }
