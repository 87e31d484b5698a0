package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A process cannot be given a clock of its own, but a Go program can be given a package
// time of its own. That of what chaos builds adds to the wall clock, and to nothing
// else, a number from a file that is mapped into its memory. As after settimeofday on
// Linux, the monotonic clock continues, and with it timers and differences of times.

// clockEnv names the file with the offset of a process' wall clock: nanoseconds, as 8
// bytes in the order of the machine.
const clockEnv = "PROMPTMILL_CHAOS_CLOCK"

// nowReading is the line in which [time.Now] reads the clocks.
const nowReading = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"

const nowStepping = nowReading + "\tsec, nsec = stepped(sec, nsec)\n"

// stepping is one more file of package time.
const stepping = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var wallOffset = mapWallOffset()

func mapWallOffset() *int64 {
	path, ok := syscall.Getenv("` + clockEnv + `")
	if !ok {
		return nil
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("open " + path + ": " + err.Error())
	}
	defer syscall.Close(fd)
	offset, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("map " + path + ": " + err.Error())
	}
	return (*int64)(unsafe.Pointer(&offset[0]))
}

func stepped(sec int64, nsec int32) (int64, int32) {
	if wallOffset == nil {
		return sec, nsec
	}
	offset := atomic.LoadInt64(wallOffset)
	sec, nsec = sec+offset/1e9, nsec+int32(offset%1e9)
	switch {
	case nsec < 0:
		return sec - 1, nsec + 1e9
	case nsec >= 1e9:
		return sec + 1, nsec - 1e9
	}
	return sec, nsec
}
`

// overlayTime writes into dir what go build -overlay needs for the package time with
// such a clock, and returns the path for the flag. It returns a skipped if the package
// is not one that is known here.
func overlayTime(dir string) (string, error) {
	if runtime.GOOS != "linux" {
		return "", skipped("steps of the clock, since package time is made to take them on Linux only")
	}

	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the package time: %w", err)
	}

	from := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	text, err := os.ReadFile(filepath.Join(from, "time.go"))
	if err != nil {
		return "", fmt.Errorf("read the package time: %w", err)
	}

	if strings.Count(string(text), nowReading) != 1 {
		return "", skipped("steps of the clock, since time.Now of this version of Go reads it in another way")
	}

	files := map[string]string{
		"time.go":     strings.Replace(string(text), nowReading, nowStepping, 1),
		"stepping.go": stepping,
	}

	replace := map[string]string{}
	for name, text := range files {
		to := filepath.Join(dir, name)
		if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(from, name)] = to
	}

	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}

	path := filepath.Join(dir, "overlay.json")

	return path, os.WriteFile(path, overlay, 0o644)
}

// canStep reports whether a program has a clock that can be stepped: such a program ends if
// that is not there.
func canStep(ctx context.Context, program string) bool {
	const nowhere = "/nowhere/clock"
	cmd := exec.CommandContext(ctx, program, "--help")
	cmd.Env = append(os.Environ(), clockEnv+"="+nowhere)
	out, err := cmd.CombinedOutput()

	return err != nil && strings.Contains(string(out), nowhere)
}

// setClock puts the wall clocks of the processes that have path as theirs off by an
// amount. It writes into the file that they have mapped, and never shortens it.
func setClock(path string, by time.Duration) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(by)), 0)
	return errors.Join(err, file.Close())
}

// steps are the amounts by which clocks step, forward or back.
var steps = []time.Duration{
	-24 * time.Hour, -time.Hour, -30 * time.Second, -10 * time.Second, -2 * time.Second,
	2 * time.Second, 10 * time.Second, 30 * time.Second, time.Hour, 24 * time.Hour,
}

// clockNames are the parts whose clocks are stepped. The clock of a model server matters to no part.
func clockNames(s shape) []string {
	return append(append(s.nodeNames(), s.workerNames()...), "serve", "reader")
}

// clockStepsOf are the steps that a part's clock may make.
func clockStepsOf(s shape, part string) []time.Duration {
	ahead := 24 * time.Hour
	switch {
	case slices.Contains(storeNames(s), part):
		// NATS counts by the wall clock how long a shard has been with its worker. One that
		// was given while the clock was ahead, to a worker that dies, stays there longer by as
		// much when the clock is right again. A run is not waited for that long.
		ahead = 30 * time.Second
	case part == "serve":
		ahead = time.Hour // a run that has ended leaves the bus after a day
	}

	return slices.DeleteFunc(slices.Clone(steps), func(d time.Duration) bool { return d > ahead })
}

// conflictsOfClock has all else happen to a part while its clock is wrong.
func conflictsOfClock(target string) []string { return []string{"clock of " + target} }

func injectClockStep(d *deployment, e event) error { return d.stepClock(e, e.clockStep) }

func clearClockStep(d *deployment, e event) error { return d.stepClock(e, 0) }

func (d *deployment) stepClock(e event, by time.Duration) error {
	if d.clockSkipped != nil {
		return d.clockSkipped
	}
	return setClock(d.clockPath(e.target), by)
}
