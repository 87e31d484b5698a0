package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// meta holds the parts of a run's metadata that the bench reads.
type meta struct {
	Results struct {
		SuccessCount int     `json:"success_count"`
		PerSecond    float64 `json:"throughput_requests_per_sec"`
		Lines        int64   `json:"output_bytes_uncompressed"`
		Bytes        int64   `json:"output_bytes"`
	} `json:"results"`
}

// readMeta reads the metadata of a run, all of whose requests must have an answer.
func readMeta(path string, requests int) (m meta, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return m, fmt.Errorf("read the metadata: %w", err)
	}

	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("read the metadata: %w", err)
	}

	if m.Results.SuccessCount != requests {
		return m, fmt.Errorf("%d of %d requests are answered", m.Results.SuccessCount, requests)
	}

	return m, nil
}
