package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/natsserver"
)

// place is a folder that a run writes into.
type place struct {
	what   string
	dir    string // the folder, or its nearest parent that exists
	need   int64  // bytes, as estimated
	strict bool   // a run cannot end without them
}

// checkDisks checks the disks of the state and of the output.
func (o Options) checkDisks(ctx context.Context) []Finding {
	output, err := filepath.Abs(o.Output)
	if err != nil {
		return []Finding{failedFinding("disk", err)}
	}

	out, store := place{what: "output", dir: nearestFolder(output)}, place{what: "state", dir: nearestFolder(o.State)}
	var how string
	if len(o.Inputs) > 0 {
		e, err := o.measureInputs(ctx)
		if err != nil {
			return []Finding{failedFinding("input", err)}
		}
		how = e.String()
		out.need, out.strict, store.need = e.outputBytes(), true, e.storeBytes()
	} else {
		out.need, store.need = natsserver.MaxWorkBytes, natsserver.MaxWorkBytes+natsserver.MaxResultsBytes
	}

	if o.Bus.External() {
		store.need = 0 // the bus has its store elsewhere
	}

	if isSameDisk(out.dir, store.dir) {
		both := out.need + store.need
		out.need, store.need = both, both
	}

	list := []Finding{out.check(), store.check()}
	if how != "" {
		list = append([]Finding{{Name: "input", Status: StatusOK, Detail: how}}, list...)
	}

	return list
}

// check measures the free space and the time of a sync.
func (p place) check() Finding {
	free, err := natsserver.FreeBytes(p.dir)
	if err != nil {
		return failedFinding("disk: "+p.what, err)
	}

	sync, err := measureSync(p.dir)
	if err != nil {
		return Finding{
			Name:   "disk: " + p.what,
			Status: StatusFail,
			Detail: fmt.Sprintf("cannot write in %s: %v", p.dir, files.WithoutPath(err)),
			Fix:    "choose another place with --state DIR or -o NAME, or let this user write there",
		}
	}

	return p.judge(free, sync)
}

// slowSync is a sync time that only a failing or a remote disk takes: the bus syncs every
// second and the collector with each frame.
const slowSync = 100 * time.Millisecond

// judge judges the free bytes and the median time of a sync.
func (p place) judge(free int64, sync time.Duration) Finding {
	f := Finding{
		Name:   "disk: " + p.what,
		Status: StatusOK,
		Detail: fmt.Sprintf("%s: %s free, %s wanted, a sync takes %s",
			p.dir, formatBytes(free), formatBytes(p.need), formatTime(sync)),
	}
	switch {
	case free < p.need && p.strict:
		f.Status, f.Fix = StatusFail, "free some space, or choose another disk with -o NAME"
	case free < p.need:
		f.Status, f.Fix = StatusWarn,
			"free some space, or choose another disk with --state DIR or -o NAME: a bus works with less, but the producer waits for it then"
	case sync > slowSync:
		f.Status, f.Fix = StatusWarn,
			fmt.Sprintf("choose a local disk with --state DIR or -o NAME: a sync of more than %s slows the bus and the collector down",
				formatTime(slowSync))
	}

	return f
}

// nearestFolder returns the folder or, if it does not exist yet, its nearest parent that does.
func nearestFolder(dir string) string {
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

// measureSync returns the median of the times of twenty writes of a block with a sync.
func measureSync(dir string) (time.Duration, error) {
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

// formatBytes formats a number of bytes with two digits.
func formatBytes(n int64) string {
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

// formatTime formats a short time.
func formatTime(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
