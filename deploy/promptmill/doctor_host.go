package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/promptmill/promptmill/worker/gpu"
)

// versions is what this program is made of.
func versions() finding {
	return finding{
		Name:   "versions",
		Status: fine,
		Detail: fmt.Sprintf("promptmill %s, %s %s/%s, NATS server %s built in, client %s",
			versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH, server.VERSION, nats.Version),
	}
}

// openFiles looks at how many files, and so connections, this process may have open.
func openFiles(requests int) finding {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return finding{
			Name:   "open files",
			Status: doubtful,
			Detail: "their limit cannot be read: " + err.Error(),
			Mend:   "ulimit -n shows it",
		}
	}

	return judgeFiles(uint64(limit.Cur), uint64(requests)) //nolint:unconvert // it is an int64 on FreeBSD
}

// otherFiles is what a process has open besides its requests: a run with a bus of its
// own had 19, at 2,048 requests; the rest is for more runs and workers on that bus.
const otherFiles = 100

// judgeFiles judges a limit. Go has raised the soft one to the hard one already.
func judgeFiles(limit, requests uint64) finding {
	f := finding{
		Name:   "open files",
		Status: fine,
		Detail: fmt.Sprintf("%d may be open, %d requests at once take %d", limit, requests, requests+otherFiles),
	}
	if limit < requests+otherFiles {
		f.Status, f.Mend = doubtful,
			fmt.Sprintf("raise the hard limit: ulimit -Hn %d, LimitNOFILE= in systemd, or --ulimit nofile= of the container; or give --max-concurrency to the worker",
				requests+otherFiles)
	}

	return f
}

// lookAtGPUs looks at the graphics cards. To have none is no fault: the model server
// may be elsewhere, or not need any.
func lookAtGPUs(ctx context.Context) finding {
	cards, driver, err := gpu.Query(ctx)
	switch {
	case errors.Is(err, gpu.ErrNone):
		return finding{Name: "GPU", Status: fine, Detail: "none that nvidia-smi knows of; runs have no GPU readings"}
	case err != nil:
		return finding{
			Name:   "GPU",
			Status: doubtful,
			Detail: err.Error(),
			Mend:   "try nvidia-smi by hand; without it runs have no GPU readings",
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

	return finding{Name: "GPU", Status: fine, Detail: fmt.Sprintf("driver %s, %s", driver, strings.Join(names, ", "))}
}
