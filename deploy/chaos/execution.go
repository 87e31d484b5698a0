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

// A request may be answered again only if its answer was in transit to the bus when
// something happened to a part of that way. The logs of the model servers say when each
// request came and when its answer was written, and the disruptions when something happened.

// execution is a request that a model server has answered in full.
type execution struct {
	worker     string // whose model server it was
	start, end time.Time
}

// checkExecuted wants each request answered by the model servers, unless its line has the answer
// of another by what is borne, and answered again only if each of its earlier answers may not
// have been known. It returns how many answers were
// given again, and how many might have been.
func checkExecuted(
	inputs, borne map[string][]expected, executed map[string][]execution, d disruptions, since time.Time,
	found *findings,
) (again, allowed int) {
	known, wrong := map[string]bool{}, 0

	for run, input := range inputs {
		for seq, want := range input {
			known[want.answer] = true
			list := slices.SortedFunc(slices.Values(executed[want.answer]), func(a, b execution) int {
				return cmp.Or(a.start.Compare(b.start), a.end.Compare(b.end))
			})
			if len(list) == 0 && !want.refused && borne[run][seq].answer == want.answer {
				found.add("model servers: %s was never answered", want.customID)
			}

			for i, e := range list {
				if d.mayLose(run, seq, e) {
					allowed++
				}

				again += min(i, 1)
				for _, earlier := range list[:i] {
					if d.mayRepeat(run, seq, earlier, e) {
						continue
					}

					if wrong++; wrong <= fewRepetitions {
						found.add("model servers: %s was answered again by the server of %s, though nothing had happened to its answer before: %s",
							want.customID, e.worker, formatTimes(list, since))
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

// formatTimes says when and where a request was answered.
func formatTimes(list []execution, since time.Time) string {
	var parts []string
	for _, e := range list {
		parts = append(parts, fmt.Sprintf("%s %.2fs-%.2fs", e.worker, e.start.Sub(since).Seconds(),
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

		into[id] = append(into[id], execution{worker: worker, start: time.Unix(0, begin), end: time.Unix(0, end)})
		n++
	}

	return n, lines.Err()
}

// readExecuted are the answers that the model servers gave, by id, and how many they are.
func (a *auditor) readExecuted() (map[string][]execution, int, error) {
	all, n := map[string][]execution{}, 0
	for i, name := range a.shape.modelNames() {
		some, err := readExecutions(a.answersPath(name), a.shape.workerNames()[i], all)
		if err != nil {
			return nil, 0, err
		}
		n += some
	}

	return all, n, nil
}
