package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/proto/jsonl"
)

// place is a folder that a run writes to.
type place struct {
	what   string
	dir    string // the folder, or what there is of its path
	need   int64  // bytes, as estimated
	strict bool   // without that a run cannot end
}

// lookAtDisks looks at the disks of the state and of the output.
func lookAtDisks(state, output string, inputs []string, external bool) []finding {
	output, err := filepath.Abs(output)
	if err != nil {
		return []finding{failed("disk", err)}
	}

	out, store := place{what: "output", dir: existing(output)}, place{what: "state", dir: existing(state)}
	var how string
	if len(inputs) > 0 {
		e, err := estimateSpace(inputs)
		if err != nil {
			return []finding{failed("disk", err)}
		}
		how = e.String()
		out.need, out.strict, store.need = e.output(), true, e.store()
	} else {
		out.need, store.need = natsserver.MaxWorkBytes, natsserver.MaxWorkBytes+natsserver.MaxResultsBytes
	}

	if external {
		store.need = 0 // the bus has its store elsewhere
	}

	if sameDisk(out.dir, store.dir) {
		both := out.need + store.need
		out.need, store.need = both, both
	}

	list := []finding{out.look(), store.look()}
	if how != "" {
		list = append([]finding{{Name: "input", Status: fine, Detail: how}}, list...)
	}

	return list
}

// look measures free space and the time of a sync.
func (p place) look() finding {
	free, err := natsserver.FreeBytes(p.dir)
	if err != nil {
		return failed("disk: "+p.what, err)
	}

	sync, err := syncTime(p.dir)
	if err != nil {
		return finding{
			Name:   "disk: " + p.what,
			Status: broken,
			Detail: fmt.Sprintf("cannot write in %s: %v", p.dir, unwrapPath(err)),
			Mend:   "choose another place with --state DIR or -o NAME, or let this user write there",
		}
	}

	return p.judge(free, sync)
}

// slowSync is a time for a sync that only an ailing or a far disk takes: the bus syncs
// every second, and the collector with each frame.
const slowSync = 100 * time.Millisecond

// judge judges free bytes and the median time of a sync.
func (p place) judge(free int64, sync time.Duration) finding {
	f := finding{
		Name:   "disk: " + p.what,
		Status: fine,
		Detail: fmt.Sprintf("%s: %s free, %s wanted, a sync takes %s", p.dir, size(free), size(p.need), brief(sync)),
	}
	switch {
	case free < p.need && p.strict:
		f.Status, f.Mend = broken, "free some space, or choose another disk with -o NAME"
	case free < p.need:
		f.Status, f.Mend = doubtful,
			"free some space, or choose another disk with --state DIR or -o NAME: a bus takes less if it must, and then the producer waits for it"
	case sync > slowSync:
		f.Status, f.Mend = doubtful,
			fmt.Sprintf("choose a local disk with --state DIR or -o NAME: a sync over %s holds the bus and the collector up",
				brief(slowSync))
	}

	return f
}

// existing is the folder itself or, if it is not made yet, what there is above it.
func existing(dir string) string {
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}

		up := filepath.Dir(dir)
		if up == dir {
			return dir
		}

		dir = up
	}
}

func sameDisk(a, b string) bool {
	var x, y syscall.Stat_t
	return syscall.Stat(a, &x) == nil && syscall.Stat(b, &y) == nil && x.Dev == y.Dev
}

// syncTime is the median time to write a block and sync it, of twenty.
func syncTime(dir string) (time.Duration, error) {
	file, err := os.CreateTemp(dir, ".promptmill-doctor-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(file.Name())
	defer file.Close()

	block := make([]byte, 4096)
	var times []time.Duration
	for range 20 {
		begin := time.Now()
		if _, err := file.Write(block); err != nil {
			return 0, err
		}

		if err := file.Sync(); err != nil {
			return 0, err
		}

		times = append(times, time.Since(begin))
	}

	slices.Sort(times)

	return times[len(times)/2], nil
}

// What an estimate of the output assumes, since only the run can tell.
const (
	assumedLine    = 4000 // bytes of an output line
	assumedPacking = 3    // to 1, of text by zstd
)

// space is how large an input is: requests, and bytes of text.
type space struct {
	requests, text int64
	exact          bool // all of it was read
}

// sampleSize is how much of each file is read for an estimate.
const sampleSize = 4 << 20

// estimateSpace reads the beginnings of files. A packed one counts as assumedPacking
// times its size.
func estimateSpace(inputs []string) (space, error) {
	all := space{exact: true}
	for _, path := range inputs {
		if path == "-" {
			return all, exit.Usage("name a file", "how large standard input is cannot be told before it is read")
		}

		s, err := sampleFile(path)
		if err != nil {
			return all, err
		}

		all.requests, all.text, all.exact = all.requests+s.requests, all.text+s.text, all.exact && s.exact
	}

	return all, nil
}

func sampleFile(path string) (space, error) {
	in, err := jsonl.Open(path)
	if err != nil {
		return space{}, err
	}
	defer in.Close()

	sample, err := io.ReadAll(io.LimitReader(in, sampleSize))
	if err != nil {
		return space{}, fmt.Errorf("read %s: %w", path, err)
	}

	lines := int64(bytes.Count(sample, []byte("\n")))
	if len(sample) > 0 && sample[len(sample)-1] != '\n' {
		lines++
	}

	if len(sample) < sampleSize {
		return space{lines, int64(len(sample)), true}, nil
	}

	info, err := os.Stat(path)
	packed, err2 := jsonl.IsCompressed(path)
	if err := errors.Join(err, err2); err != nil {
		return space{}, err
	}

	text := info.Size()
	if packed {
		text *= assumedPacking
	}

	return space{requests: int64(float64(text) / float64(len(sample)) * float64(lines)), text: text}, nil
}

// output is what the output takes in bytes: twice, while the final files are written
// next to the journal.
func (s space) output() int64 { return 2 * s.requests * assumedLine / assumedPacking }

// store is what a bus of this run alone takes in bytes.
func (s space) store() int64 {
	return min(s.text/assumedPacking, natsserver.MaxWorkBytes) + natsserver.MaxResultsBytes
}

func (s space) String() string {
	about := "about "
	if s.exact {
		about = ""
	}
	return fmt.Sprintf("%s%d requests, %s of text; assumed: %s an answer, packed %d to 1, and room for journal and final files at once",
		about, s.requests, size(s.text), size(assumedLine), assumedPacking)
}

// size is a number of bytes for people.
func size(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}

	value, unit := float64(n)/1000, 0
	for ; value >= 999.5; unit++ {
		value /= 1000
	}

	if value < 9.95 {
		return fmt.Sprintf("%.1f %cB", value, units[unit])
	}

	return fmt.Sprintf("%.0f %cB", value, units[unit])
}

// brief is a short time for people.
func brief(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
