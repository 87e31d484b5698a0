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

	"github.com/promptmill/promptmill/proto/bus"
)

// auditor checks the files of a deployment against the promises of promptmill.
type auditor struct {
	*deployment
	found *findings
}

// checkJournals checks the journals of the runs while they grow.
func (a *auditor) checkJournals() {
	counts, before := []string{}, len(*a.found)
	for _, run := range []string{"a", "b"} {
		input, err := a.readInput(run)
		if err != nil {
			a.found.add("%v", err)
			return
		}

		lines, err := readJournal(a.runFile(run, ".part.zst"))
		if err != nil {
			a.found.add("%v", err)
		}

		checkNoDuplicates("journal of "+run, input, lines, a.found)
		counts = append(counts, fmt.Sprintf("%d of %s", len(lines), run))
	}

	a.logf("a look at the journals: lines of %s, %d findings", strings.Join(counts, ", "), len(*a.found)-before)
}

// readInput is the input of a run, and how often model servers were killed until now.
func (a *auditor) readInput(run string) ([]expected, error) {
	input, err := readInput(a.inputPath(run))
	if err != nil {
		return nil, err
	}

	a.mu.Lock()
	defer a.mu.Unlock()

	for i := range input {
		input[i].deaths = a.disrupted.countModelCrashes()
	}

	return input, nil
}

// checkAll holds all that is left against each other, and returns the figures in one line.
func (a *auditor) checkAll() string {
	inputs, outputs, lines := map[string][]expected{}, map[string]output{}, map[string][]line{}
	for _, run := range []string{"a", "b"} {
		input, err := a.readInput(run)
		if err != nil {
			a.found.add("%v", err)
			return ""
		}

		inputs[run] = input
		if !a.isComplete(run) {
			continue // that was said
		}

		o, err := a.readRun(run)
		if err != nil {
			a.found.add("%v", err)
			continue
		}

		o.elapsed = time.Since(a.begin)
		outputs[run], lines[run] = o, slices.Concat(o.results, o.errors)
	}

	executed, n, err := a.readExecuted()
	if err != nil {
		a.found.add("%v", err)
	}

	borne, wrong := findSwapped(inputs, lines, executed, a.listDoubleAnswers(), a.found)
	again, allowed := checkExecuted(inputs, borne, executed, a.disrupted, a.begin, a.found)

	inputs = borne
	for run, o := range outputs {
		checkOutput(run, inputs[run], o, a.found)
	}

	lives, err := a.readReaderOutputs()
	if err != nil {
		a.found.add("%v", err)
	}

	repeated, read := checkReader(inputs["a"], lives, a.afterStoreLoss, a.found)
	if !a.readerCannotFinish {
		checkNoneMissing("reader", inputs["a"], read, a.found)
	}

	a.checkWorkersIdle()
	a.checkForeign()
	a.checkReuse()
	a.checkReuseOfDeleted()

	return fmt.Sprintf("%d answers for %d requests, %d again of the %d that a fault may have lost, %d wrong after answers that came twice; the reader had %d incarnations and %d lines again",
		n, 2*a.shape.requests, again, allowed, wrong, len(lives), repeated)
}

// listDoubleAnswers are the times at which model servers answered twice.
func (a *auditor) listDoubleAnswers() (list []disruption) {
	for _, h := range a.disrupted.list {
		if strings.HasPrefix(h.what, "answers twice") {
			list = append(list, h)
		}
	}

	return list
}

// readRun reads the files of a complete run.
func (a *auditor) readRun(run string) (o output, err error) {
	results, errorsFile := a.runFile(run, ".jsonl.zst"), a.runFile(run, ".errors.jsonl.zst")
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

	data, err := os.ReadFile(a.inputPath(run))
	if err != nil {
		return o, err
	}

	sum := sha256.Sum256(data)
	o.inputSHA256 = hex.EncodeToString(sum[:])

	text, err := os.ReadFile(a.runFile(run, ".meta.json"))
	if err != nil {
		return o, err
	}

	if err := json.Unmarshal(text, &o.meta); err != nil {
		return o, fmt.Errorf("metadata of %s: %w", run, err)
	}

	return o, nil
}

// readReaderOutputs reads the output of each incarnation of the reader.
func (a *auditor) readReaderOutputs() (lives [][]line, err error) {
	a.mu.Lock()
	last := a.incarnations
	a.mu.Unlock()

	for n := 1; n <= last; n++ {
		data, err := os.ReadFile(a.readerOutput(n))
		if err != nil {
			return lives, err
		}

		lines, err := readLines(data)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) { // killed
			return lives, fmt.Errorf("reader's incarnation %d: %w", n, err)
		}

		lives = append(lives, lines)
	}

	return lives, nil
}

// mostGoroutines bounds the goroutines of an idle worker: two for each connection to its
// model server that is kept open.
const mostGoroutines = 100 + 2*mostInFlight

var metric = regexp.MustCompile(`(?m)^(promptmill_worker_in_flight|go_goroutines)(?:\{.*\})? (\S+)$`)

// settleTime bounds the time until a started worker reports its metrics.
const settleTime = 20 * time.Second

// checkWorkersIdle wants no request in flight at any worker, and no goroutine left of one, now
// that nothing is left to do.
func (a *auditor) checkWorkersIdle() {
	for _, name := range a.shape.workerNames() {
		err := a.checkWorkerIdle(name)
		for late := time.Now().Add(settleTime); err != nil && time.Now().Before(late); err = a.checkWorkerIdle(name) {
			bus.Sleep(a.stop, 100*time.Millisecond)
		}
		if err != nil {
			a.found.add("%s: %v", name, err)
		}
	}
}

func (a *auditor) checkWorkerIdle(worker string) error {
	client := http.Client{Timeout: 5 * time.Second}
	text, err := fetchURL(&client, "http://"+a.metricsAddress[worker]+"/metrics")
	if err != nil {
		return fmt.Errorf("read its metrics: %w", err)
	}

	is := map[string]float64{}
	for _, hit := range metric.FindAllSubmatch(text, -1) {
		is[string(hit[1])], _ = strconv.ParseFloat(string(hit[2]), 64) // it is a number there
	}

	switch {
	case len(is) != 2:
		return errors.New("its metrics lack the requests in flight or the goroutines")
	case is["promptmill_worker_in_flight"] != 0:
		return fmt.Errorf("%.0f requests in flight, and nothing is left to do", is["promptmill_worker_in_flight"])
	case is["go_goroutines"] > mostGoroutines:
		return fmt.Errorf("%.0f goroutines, and nothing is left to do", is["go_goroutines"])
	}

	return nil
}

func fetchURL(client *http.Client, url string) ([]byte, error) {
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
func (a *auditor) checkLogs() {
	files, _ := filepath.Glob(a.logPath("*")) // the pattern is good
	for _, path := range files {
		file, err := os.Open(path)
		if err != nil {
			a.found.add("%v", err)
			continue
		}

		lines := bufio.NewScanner(file)
		lines.Buffer(nil, 1<<24)

		for lines.Scan() {
			if crash.MatchString(lines.Text()) {
				a.found.add("%s: %s", path, lines.Text())
			}

			if hit := hang.FindStringSubmatch(lines.Text()); hit != nil {
				if still, err := time.ParseDuration(hit[1]); err != nil || still > time.Since(a.begin) {
					a.found.add("%s: %s", path, lines.Text())
				}
			}
		}

		file.Close()
	}
}
