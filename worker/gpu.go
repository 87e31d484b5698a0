package worker

import (
	"context"
	"encoding/csv"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// GPUs are this machine's graphics cards, as nvidia-smi names them; none where that
// program is not there.
func GPUs(ctx context.Context) ([]proto.GPU, error) {
	path, err := exec.LookPath("nvidia-smi")
	if err != nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // it loads the driver, if need be
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits").Output()
	if err != nil {
		return nil, fmt.Errorf("nvidia-smi: %w", err)
	}
	return parseGPUs(string(out))
}

// parseGPUs reads lines such as "NVIDIA H200, 143771": the name, and the memory in MiB,
// or [N/A] where the memory is the machine's own.
func parseGPUs(text string) ([]proto.GPU, error) {
	r := csv.NewReader(strings.NewReader(text))
	r.TrimLeadingSpace = true
	records, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("nvidia-smi: %w", err)
	}
	var list []proto.GPU
	for _, record := range records {
		if len(record) != 2 {
			return nil, fmt.Errorf("nvidia-smi: a line of %d fields", len(record))
		}
		gpu := proto.GPU{Name: record[0]}
		if mib, err := strconv.ParseInt(record[1], 10, 64); err == nil {
			gpu.MemoryBytes = mib << 20
		}
		list = append(list, gpu)
	}
	return list, nil
}
