// Package history remembers the runs of a machine: an index of their metadata, one line
// of JSON for each, in the state folder.
package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// Entry is a run that has ended. The names are the metadata's; an unknown
// value is null.
type Entry struct {
	TestID                   string      `json:"test_id"`
	Label                    string      `json:"label,omitempty"` // the name that people gave the run; empty: none
	Timestamp                time.Time   `json:"timestamp"`       // when it began
	Model                    string      `json:"model"`
	Platform                 string      `json:"platform"`
	InputFile                string      `json:"input_file"`
	InputSHA256              string      `json:"input_sha256"`
	NumRequests              int         `json:"num_requests"`
	SuccessCount             int         `json:"success_count"`
	FailureCount             int         `json:"failure_count"`
	NotSentCount             int         `json:"not_sent_count,omitempty"` // of those, the ones that were never sent
	InferenceTimeSeconds     *float64    `json:"inference_time_seconds"`
	TotalTimeSeconds         float64     `json:"total_time_seconds"`
	ThroughputTokensPerSec   *float64    `json:"throughput_tokens_per_sec"`
	OutputTokensPerSec       *float64    `json:"output_tokens_per_sec"`
	ThroughputRequestsPerSec *float64    `json:"throughput_requests_per_sec"`
	Status                   proto.State `json:"status"`
	Meta                     string      `json:"meta"` // path of its metadata; empty if that is not on this machine
}

// Of is the entry of a run whose metadata is in a file.
func Of(meta string, run *metadata.Run) Entry {
	r := run.Results

	return Entry{
		TestID:                   run.TestID,
		Label:                    run.Label,
		Timestamp:                run.Timestamp,
		Model:                    run.Model,
		Platform:                 run.Platform,
		InputFile:                run.Test.InputFile,
		InputSHA256:              run.Test.InputSHA256,
		NumRequests:              run.Test.NumRequests,
		SuccessCount:             r.SuccessCount,
		FailureCount:             r.FailureCount,
		NotSentCount:             r.NotSentCount,
		InferenceTimeSeconds:     &r.InferenceTimeSeconds,
		TotalTimeSeconds:         r.TotalTimeSeconds,
		ThroughputTokensPerSec:   r.ThroughputTokensPerSec,
		OutputTokensPerSec:       r.OutputTokensPerSec,
		ThroughputRequestsPerSec: r.ThroughputRequestsPerSec,
		Status:                   run.Status,
		Meta:                     meta,
	}
}

// CountFailed returns how many requests were sent and failed.
func (e Entry) CountFailed() int { return max(0, e.FailureCount-e.NotSentCount) }

// InputName names the input for people: by its first file, without the folder.
func (e Entry) InputName() string {
	if e.InputFile == "" {
		return ""
	}
	return path.Base(e.InputFile)
}

// File is the name of the index in the state folder.
const File = "history.jsonl"

// Append adds the entry of an ended run. It is one write, so that lines of several processes
// do not mix. An entry replaces an older one of the same run, whose failed requests ran again.
func Append(stateDir string, e Entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("note the run in the history: %w", err)
	}

	if err := os.MkdirAll(stateDir, 0o700); err != nil { // the first run of this machine
		return fmt.Errorf("note the run in the history: %w", err)
	}

	file, err := os.OpenFile(filepath.Join(stateDir, File), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("note the run in the history: %w", err)
	}

	line = append(line, '\n')
	if endsTorn(file) {
		line = append([]byte{'\n'}, line...)
	}

	if _, err = file.Write(line); err == nil {
		err = file.Sync()
	}

	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("note the run in the history: %w", err)
	}

	return nil
}

// endsTorn reports whether the last line has no end: the machine went down as it was written.
func endsTorn(file *os.File) bool {
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return false
	}
	var last [1]byte
	_, err = file.ReadAt(last[:], info.Size()-1)
	return err == nil && last[0] != '\n'
}

// Load returns the runs, each once, in the order of their ends. Lines that cannot be
// read are left out. It is no error if there is no history.
func Load(stateDir string) ([]Entry, error) {
	file, err := os.Open(filepath.Join(stateDir, File))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the history: %w", err)
	}

	defer file.Close()

	list, err := readEntries(file)
	if err != nil {
		return nil, fmt.Errorf("read the history: %w", err)
	}

	return list, nil
}

func readEntries(r io.Reader) ([]Entry, error) {
	type key struct{ id, meta string }
	var all []Entry
	last := map[key]int{}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		var e Entry
		if line = bytes.TrimSpace(line); len(line) > 0 && json.Unmarshal(line, &e) == nil && e.Meta != "" {
			last[key{e.TestID, e.Meta}] = len(all)
			all = append(all, e)
		}

		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}

	var list []Entry
	for i, e := range all {
		if last[key{e.TestID, e.Meta}] == i {
			list = append(list, e)
		}
	}

	return list, nil
}

// Baselines are the runs of other models on the same input, the last first.
func Baselines(list []Entry, run *metadata.Run) (others []Entry) {
	for _, e := range slices.Backward(list) {
		if run.Test.InputSHA256 != "" && e.InputSHA256 == run.Test.InputSHA256 && e.Model != run.Model &&
			e.SuccessCount > 0 {
			others = append(others, e)
		}
	}
	return others
}
