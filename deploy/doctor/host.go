package doctor

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/worker/gpu"
)

// checkVersions reports the versions of the program and of its parts.
func checkVersions(version string) Finding {
	return Finding{
		Name:   "versions",
		Status: StatusOK,
		Detail: fmt.Sprintf("promptmill %s, %s %s/%s, NATS server %s built in, client %s",
			version, runtime.Version(), runtime.GOOS, runtime.GOARCH, server.VERSION, nats.Version),
	}
}

// checkOpenFiles checks how many files, and so connections, this process may have open.
func checkOpenFiles(requests int) Finding {
	most, err := files.MostOpen()
	if err != nil {
		return Finding{
			Name:   "open files",
			Status: StatusWarn,
			Detail: "their limit cannot be read: " + err.Error(),
			Fix:    "ulimit -n shows it",
		}
	}

	if most == 0 {
		return Finding{Name: "open files", Status: StatusOK, Detail: "the system sets no limit"}
	}

	return judgeOpenFiles(most, uint64(requests))
}

// otherFiles is the number of files that a process needs besides its requests: a run with its own
// bus had 19 at 2,048 requests; the rest is for more runs and workers on that bus.
const otherFiles = 100

// judgeOpenFiles judges the limit. Go has raised the soft limit to the hard one already.
func judgeOpenFiles(limit, requests uint64) Finding {
	f := Finding{
		Name:   "open files",
		Status: StatusOK,
		Detail: fmt.Sprintf("%d may be open, %d requests at once take %d", limit, requests, requests+otherFiles),
	}
	if limit < requests+otherFiles {
		f.Status, f.Fix = StatusWarn,
			fmt.Sprintf("raise the hard limit: ulimit -Hn %d, LimitNOFILE= in systemd, or --ulimit nofile= of the container; or give --max-concurrency to the worker",
				requests+otherFiles)
	}

	return f
}

// checkGPUs checks the graphics cards. A machine without one is fine: its model server may be
// elsewhere, or may not need one.
func checkGPUs(ctx context.Context) Finding {
	cards, driver, err := gpu.Query(ctx)
	switch {
	case errors.Is(err, gpu.ErrNone):
		return Finding{Name: "GPU", Status: StatusOK, Detail: "nvidia-smi finds none; runs have no GPU readings"}
	case err != nil:
		return Finding{
			Name:   "GPU",
			Status: StatusWarn,
			Detail: err.Error(),
			Fix:    "try nvidia-smi by hand; without it runs have no GPU readings",
		}
	}

	var names []string
	for _, c := range cards {
		name := c.Name
		if c.MemoryBytes > 0 {
			name += fmt.Sprintf(" (%d of %d MiB used)", c.MemoryUsedBytes>>20, c.MemoryBytes>>20)
		}
		names = append(names, name)
	}

	return Finding{
		Name:   "GPU",
		Status: StatusOK,
		Detail: fmt.Sprintf("driver %s, %s", driver, strings.Join(names, ", ")),
	}
}
