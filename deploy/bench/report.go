package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// ReportSchema is the version of the JSON's format.
const ReportSchema = 1

// Report is all that a go has found.
type Report struct {
	Schema     int     `json:"schema"`
	Machine    Machine `json:"machine"`
	Promptmill string  `json:"promptmill"` // its version
	Quick      bool    `json:"quick"`
	Rounds     int     `json:"rounds"`
	Tables     []Table `json:"tables"`
}

// Machine describes the machine of the measurement.
type Machine struct {
	CPU         string `json:"cpu"`
	Cores       int    `json:"cores"` // that this process may use
	MemoryBytes int64  `json:"memory_bytes"`
	Go          string `json:"go"`
	OS          string `json:"os"`
}

func thisMachine() Machine {
	m := Machine{
		CPU:   procField("/proc/cpuinfo", "model name"),
		Cores: runtime.NumCPU(),
		Go:    runtime.Version(),
		OS:    runtime.GOOS + "/" + runtime.GOARCH,
	}

	kb, _, _ := strings.Cut(procField("/proc/meminfo", "MemTotal"), " ")
	if n, err := strconv.ParseInt(kb, 10, 64); err == nil {
		m.MemoryBytes = n << 10
	}

	return m
}

// procField is a field of one of Linux's files, or "unknown".
func procField(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}

	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}

	return "unknown"
}

func (r Report) printHead(w io.Writer) error {
	rounds := fmt.Sprintf("medians of %d rounds (lowest-highest)", r.Rounds)
	if r.Rounds == 1 {
		rounds = "one round"
	}

	_, err := fmt.Fprintf(w, "%s\n%s, %d cores, %d GiB, %s, %s; client and server share them; %s\n",
		r.Promptmill, r.Machine.CPU, r.Machine.Cores, (r.Machine.MemoryBytes+1<<29)>>30, r.Machine.OS,
		r.Machine.Go, rounds)

	return err
}

// writeFile writes the report as JSON.
func (r Report) writeFile(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}

	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the figures: %w", err)
	}

	return nil
}
