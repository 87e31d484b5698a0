package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checkpoint looks at what there is of the runs while they go on.
func (f *fleet) checkpoint(found *findings) {
	counts, before := []string{}, len(*found)
	for _, run := range []string{"a", "b"} {
		input, err := f.readInput(run)
		if err != nil {
			found.add("%v", err)
			return
		}

		lines, err := readJournal(f.file(run, ".part.zst"))
		if err != nil {
			found.add("%v", err)
		}

		checkOnce("journal of "+run, input, lines, found)
		counts = append(counts, fmt.Sprintf("%d of %s", len(lines), run))
	}

	f.say("a look at the journals: lines of %s, %d findings", strings.Join(counts, ", "), len(*found)-before)
}

// readInput is the input of a run, and how often model servers were killed until now.
func (f *fleet) readInput(run string) ([]wanted, error) {
	input, err := readInput(f.input(run))
	if err != nil {
		return nil, err
	}

	f.mu.Lock()
	defer f.mu.Unlock()

	for i := range input {
		input[i].deaths = f.did.modelDeaths()
	}

	return input, nil
}

// check holds all that is left against each other, and returns the figures in one line.
func (f *fleet) check(found *findings) string {
	inputs, outputs, lines := map[string][]wanted{}, map[string]output{}, map[string][]line{}
	for _, run := range []string{"a", "b"} {
		input, err := f.readInput(run)
		if err != nil {
			found.add("%v", err)
			return ""
		}

		inputs[run] = input
		if !f.complete(run) {
			continue // that was said
		}

		o, err := f.readRun(run)
		if err != nil {
			found.add("%v", err)
			continue
		}

		o.elapsed = time.Since(f.begin)
		outputs[run], lines[run] = o, slices.Concat(o.results, o.errors)
	}

	executed, n, err := f.executed()
	if err != nil {
		found.add("%v", err)
	}

	borne, wrong := swapped(inputs, lines, executed, f.answeredTwice(), found)
	again, allowed := checkExecuted(inputs, borne, executed, f.did, f.begin, found)

	inputs = borne
	for run, o := range outputs {
		checkOutput(run, inputs[run], o, found)
	}

	lives, err := f.readLives()
	if err != nil {
		found.add("%v", err)
	}

	repeated, read := checkReader(inputs["a"], lives, f.forgot, found)
	if !f.unread {
		checkAll("reader", inputs["a"], read, found)
	}

	f.checkSlots(found)
	f.checkForeign(found)
	f.checkReuse(found)
	f.checkReuseOfDeleted(found)

	return fmt.Sprintf("%d answers for %d requests, %d again of the %d that were in flight when something happened to them, %d wrong after answers that came twice; the reader had %d lives and %d lines again",
		n, 2*f.shape.requests, again, allowed, wrong, len(lives), repeated)
}

// answeredTwice are the times at which model servers answered twice.
func (f *fleet) answeredTwice() (list []harm) {
	for _, h := range f.did.harms {
		if strings.HasPrefix(h.what, "answers twice") {
			list = append(list, h)
		}
	}

	return list
}

// readRun reads the files of a complete run.
func (f *fleet) readRun(run string) (o output, err error) {
	results, errorsFile := f.file(run, ".jsonl.zst"), f.file(run, ".errors.jsonl.zst")
	if o.results, err = readOutput(results); err != nil {
		return o, err
	}

	if o.errors, err = readOutput(errorsFile); err != nil {
		return o, err
	}

	for _, file := range []string{results, errorsFile} {
		if info, err := os.Stat(file); err == nil {
			o.bytes += info.Size()
		}
	}

	data, err := os.ReadFile(f.input(run))
	if err != nil {
		return o, err
	}

	sum := sha256.Sum256(data)
	o.inputSHA256 = hex.EncodeToString(sum[:])

	text, err := os.ReadFile(f.file(run, ".meta.json"))
	if err != nil {
		return o, err
	}

	if err := json.Unmarshal(text, &o.meta); err != nil {
		return o, fmt.Errorf("metadata of %s: %w", run, err)
	}

	return o, nil
}

// readLives reads what the reader gave in each of its lives.
func (f *fleet) readLives() (lives [][]line, err error) {
	f.mu.Lock()
	last := f.lives
	f.mu.Unlock()

	for n := 1; n <= last; n++ {
		data, err := os.ReadFile(f.life(n))
		if err != nil {
			return lives, err
		}

		lines, err := readLines(data)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) { // killed
			return lives, fmt.Errorf("reader's life %d: %w", n, err)
		}

		lives = append(lives, lines)
	}

	return lives, nil
}

// mostGoroutines is what a worker has that is idle, and two for each connection to its
// model server that is kept open.
const mostGoroutines = 100 + 2*mostInFlight

var metric = regexp.MustCompile(`(?m)^(promptmill_worker_in_flight|go_goroutines)(?:\{.*\})? (\S+)$`)

// settling is how long a worker that has just been started may take to say how it is.
const settling = 20 * time.Second

// checkSlots wants no request in flight at any worker, and no goroutine left of one, now
// that nothing is left to do.
func (f *fleet) checkSlots(found *findings) {
	for _, name := range f.shape.workerNames() {
		err := f.checkSlotsOf(name)
		for late := time.Now().Add(settling); err != nil && time.Now().Before(late); err = f.checkSlotsOf(name) {
			pause(f.stop, 100*time.Millisecond)
		}
		if err != nil {
			found.add("%s: %v", name, err)
		}
	}
}

func (f *fleet) checkSlotsOf(worker string) error {
	client := http.Client{Timeout: 5 * time.Second}
	text, err := get(&client, "http://"+f.metricsAddress[worker]+"/metrics")
	if err != nil {
		return fmt.Errorf("read its metrics: %w", err)
	}

	is := map[string]float64{}
	for _, hit := range metric.FindAllSubmatch(text, -1) {
		is[string(hit[1])], _ = strconv.ParseFloat(string(hit[2]), 64) // it is a number there
	}

	switch {
	case len(is) != 2:
		return errors.New("its metrics do not tell its requests in flight and its goroutines")
	case is["promptmill_worker_in_flight"] != 0:
		return fmt.Errorf("%.0f requests in flight, and nothing is left to do", is["promptmill_worker_in_flight"])
	case is["go_goroutines"] > mostGoroutines:
		return fmt.Errorf("%.0f goroutines, and nothing is left to do", is["go_goroutines"])
	}

	return nil
}

func get(client *http.Client, url string) ([]byte, error) {
	answer, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(answer.Body)
}

var hang = regexp.MustCompile(`has answered none for (\w+)`)

var crash = regexp.MustCompile(`^(panic: |fatal error: |WARNING: DATA RACE)`)

// checkLogs wants no crash in any log, and no model server that hung before it was there.
func (f *fleet) checkLogs(found *findings) {
	files, _ := filepath.Glob(f.log("*")) // the pattern is good
	for _, path := range files {
		file, err := os.Open(path)
		if err != nil {
			found.add("%v", err)
			continue
		}

		lines := bufio.NewScanner(file)
		lines.Buffer(nil, 1<<24)

		for lines.Scan() {
			if crash.MatchString(lines.Text()) {
				found.add("%s: %s", path, lines.Text())
			}

			if hit := hang.FindStringSubmatch(lines.Text()); hit != nil {
				if still, err := time.ParseDuration(hit[1]); err != nil || still > time.Since(f.begin) {
					found.add("%s: %s", path, lines.Text())
				}
			}
		}

		file.Close()
	}
}
