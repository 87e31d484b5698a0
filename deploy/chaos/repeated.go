package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// A request may be answered again only if its answer was on its way to the bus when
// something happened to a part of that way. The logs of the model servers say when each
// request came and when its answer was written, and the harms when something happened.

// execution is a request that a model server has answered in full.
type execution struct {
	worker     string // whose model server it was
	begin, end time.Time
}

// harm is what was done to the ways of answers, from its beginning until it was undone.
type harm struct {
	what     string
	workers  []string // that are hurt, or cut off from a bus that is well
	models   []string // workers whose model servers are hurt, or the way to them
	from, to time.Time
	recovery time.Duration // until the parts are again as if nothing had been
}

func (h harm) String() string { return h.what }

// loss is that of the bus's store: what was on the bus is run again, unless the
// collector has it in its file.
type loss struct {
	run  string
	at   time.Time
	kept map[int]bool // requests with a line in the journal, by number
}

const (
	// storing is how long an answer takes from the model server to the bus while all is
	// well: a few milliseconds, and more on a machine where all parts share two cores.
	storing = time.Second
	// holding is how long a worker holds a request before its model server has it.
	holding = 10 * time.Second
)

// loses reports whether an answer may not have come to the bus because of the harm.
func (h harm) loses(e execution) bool {
	if !slices.Contains(h.workers, e.worker) && !slices.Contains(h.models, e.worker) {
		return false
	}

	return h.from.Before(e.end.Add(storing)) && e.begin.Before(h.to.Add(h.recovery))
}

// hides reports whether the worker of a later execution may not have known of an earlier
// one: its shard was given to another while it was away, and it went on where it was.
func (h harm) hides(earlier, later execution) bool {
	if !slices.Contains(h.workers, later.worker) {
		return false
	}

	return h.from.Before(earlier.end.Add(storing)) && later.begin.Before(h.to.Add(h.recovery+holding))
}

// loses reports whether the answer of a request was on the bus alone when its store was lost.
func (l loss) loses(run string, seq int, e execution) bool {
	return l.run == run && e.begin.Before(l.at) && !l.kept[seq]
}

// harmed is what was done to a deployment.
type harmed struct {
	harms  []harm
	losses []loss
}

// modelDeaths is how often model servers were killed. Faults are switched on and off by a
// restart.
func (d harmed) modelDeaths() (n int) {
	for _, h := range d.harms {
		switch {
		case len(h.models) == 0:
		case strings.HasPrefix(h.what, "kill "):
			n++
		case strings.HasPrefix(h.what, "faults "):
			n += 2
		}
	}

	return n
}

// excuses reports whether a request may have been answered once more although it had been
// answered before.
func (d harmed) excuses(run string, seq int, earlier, later execution) bool {
	return d.touches(run, seq, earlier) ||
		slices.ContainsFunc(d.harms, func(h harm) bool { return h.hides(earlier, later) })
}

// touches reports whether something happened to the way of an answer.
func (d harmed) touches(run string, seq int, e execution) bool {
	return slices.ContainsFunc(d.harms, func(h harm) bool { return h.loses(e) }) ||
		slices.ContainsFunc(d.losses, func(l loss) bool { return l.loses(run, seq, e) })
}

// checkExecuted wants each request answered by the model servers, unless its line has the answer
// of another by what is borne, and answered again only if each of its earlier answers may not
// have been known. It returns how many answers were
// given again, and how many might have been.
func checkExecuted(
	inputs, borne map[string][]wanted, executed map[string][]execution, d harmed, since time.Time, found *findings,
) (again, allowed int) {
	known, wrong := map[string]bool{}, 0

	for run, input := range inputs {
		for seq, want := range input {
			known[want.answer] = true
			list := slices.SortedFunc(slices.Values(executed[want.answer]), func(a, b execution) int {
				return cmp.Or(a.begin.Compare(b.begin), a.end.Compare(b.end))
			})
			if len(list) == 0 && !want.refused && borne[run][seq].answer == want.answer {
				found.add("model servers: %s was never answered", want.customID)
			}

			for i, e := range list {
				if d.touches(run, seq, e) {
					allowed++
				}

				again += min(i, 1)
				for _, earlier := range list[:i] {
					if d.excuses(run, seq, earlier, e) {
						continue
					}

					if wrong++; wrong <= fewRepetitions {
						found.add("model servers: %s was answered again by the server of %s, though nothing had happened to its answer before: %s",
							want.customID, e.worker, timesOf(list, since))
					}

					break
				}
			}
		}
	}

	if wrong > fewRepetitions {
		found.add("model servers: %d answers were given again so", wrong)
	}

	for id := range executed {
		if !known[id] {
			found.add("model servers: the answer %s is of no request", id)
		}
	}

	return again, allowed
}

// fewRepetitions are as many as are named: a shard that is run again has many.
const fewRepetitions = 3

// timesOf says when and where a request was answered.
func timesOf(list []execution, since time.Time) string {
	var parts []string
	for _, e := range list {
		parts = append(parts, fmt.Sprintf("%s %.2fs-%.2fs", e.worker, e.begin.Sub(since).Seconds(),
			e.end.Sub(since).Seconds()))
	}

	return strings.Join(parts, ", ")
}

// writeExecution adds a line to the log of a model server.
func writeExecution(log *os.File, id string, begin, end time.Time) {
	fmt.Fprintln(log, id, begin.UnixNano(), end.UnixNano())
}

// readExecutions reads the log of a worker's model server. The last line may be cut off,
// by the death of the server.
func readExecutions(path, worker string, into map[string][]execution) (n int, err error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}

	defer file.Close()

	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var id string
		var begin, end int64
		if _, err := fmt.Sscan(lines.Text(), &id, &begin, &end); err != nil {
			continue
		}

		into[id] = append(into[id], execution{worker: worker, begin: time.Unix(0, begin), end: time.Unix(0, end)})
		n++
	}

	return n, lines.Err()
}
