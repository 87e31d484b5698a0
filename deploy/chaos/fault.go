package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// faultKind is a kind of fault.
type faultKind struct {
	name    string
	weight  int
	targets func(shape) []string
	// conflicts are the parts to which nothing else is done at the same time.
	conflicts        func(target string) []string
	minTime, maxTime time.Duration                                // how long it lasts
	lasting          bool                                         // it may outlast a shard's patience with its worker
	rest             time.Duration                                // that the parts have afterwards
	steps            func(s shape, target string) []time.Duration // one of which its clock makes
	inject, clear    func(f *deployment, e event) error
}

// clearNothing clears faults that end by themselves.
func clearNothing(*deployment, event) error { return nil }

func conflictsWithNone(string) []string { return nil }

func conflictsWithTarget(target string) []string { return []string{target} }

// conflictsWithNodes keeps two nodes of a cluster from failing at the same time: messages that both
// confirmed could be lost.
func conflictsWithNodes(target string) []string {
	if strings.HasPrefix(target, "node") {
		return []string{target, "a node"}
	}
	return []string{target}
}

func targetsOf(names ...string) func(shape) []string {
	return func(shape) []string { return slices.Clone(names) }
}

// faultKinds are all kinds, with their weights.
var faultKinds = []*faultKind{
	{
		name:      "submit",
		targets:   targetsOf(),
		conflicts: conflictsWithNone,
		inject:    injectSubmit,
	},
	{
		name:      "kill",
		weight:    30,
		targets:   shape.processNames,
		conflicts: conflictsWithNodes,
		minTime:   0,
		maxTime:   6 * time.Second,
		rest:      time.Second,
		inject:    injectKill,
		clear:     clearKill,
	},
	{
		name:      "freeze",
		weight:    14,
		targets:   shape.processNames,
		conflicts: conflictsWithNodes,
		minTime:   time.Second,
		maxTime:   8 * time.Second,
		lasting:   true,
		rest:      time.Second,
		inject: func(f *deployment, e event) error {
			f.processes[e.target].signal(syscall.SIGSTOP)
			return nil
		},
		clear: func(f *deployment, e event) error { f.processes[e.target].signal(syscall.SIGCONT); return nil },
	},
	{
		name:      "end",
		weight:    5,
		targets:   func(s shape) []string { return append(s.workerNames(), "serve") },
		conflicts: conflictsWithTarget,
		minTime:   0,
		maxTime:   3 * time.Second,
		rest:      time.Second,
		inject:    injectTerm,
		clear:     clearKill,
	},

	{
		name:      "cut",
		weight:    8,
		targets:   shape.linkNames,
		conflicts: conflictsWithTarget,
		minTime:   time.Second,
		maxTime:   8 * time.Second,
		lasting:   true,
		rest:      time.Second,
		inject:    addToxic(toxic{cut: true}),
		clear:     clearToxic,
	},
	{
		name:      "block",
		weight:    8,
		targets:   shape.linkNames,
		conflicts: conflictsWithTarget,
		minTime:   time.Second,
		maxTime:   8 * time.Second,
		lasting:   true,
		rest:      time.Second,
		inject:    addToxic(toxic{hang: true}),
		clear:     clearToxic,
	},
	{
		name:      "slow",
		weight:    6,
		targets:   shape.linkNames,
		conflicts: conflictsWithTarget,
		minTime:   2 * time.Second,
		maxTime:   15 * time.Second,
		lasting:   true,
		inject:    addToxic(toxic{delay: 150 * time.Millisecond, rate: 200_000}),
		clear:     clearToxic,
	},
	{
		name:      "lossy",
		weight:    6,
		targets:   shape.linkNames,
		conflicts: conflictsWithTarget,
		minTime:   2 * time.Second,
		maxTime:   15 * time.Second,
		inject:    addToxic(toxic{delay: 5 * time.Millisecond, loss: lossPerByte}),
		clear:     clearToxic,
	},

	{
		name:      "hang",
		weight:    6,
		targets:   shape.modelNames,
		conflicts: conflictsWithTarget,
		minTime:   2 * time.Second,
		maxTime:   15 * time.Second,
		inject:    controlModel("hang=true"),
		clear:     controlModel("hang=false"),
	},
	{
		name:      "slow model",
		weight:    4,
		targets:   shape.modelNames,
		conflicts: conflictsWithTarget,
		minTime:   5 * time.Second,
		maxTime:   20 * time.Second,
		inject:    controlModel("slow=50"),
		clear:     controlModel("slow=10"),
	},
	{
		name:      "faults",
		weight:    6,
		targets:   shape.modelNames,
		conflicts: conflictsWithTarget,
		minTime:   5 * time.Second,
		maxTime:   20 * time.Second,
		inject:    injectModelFaults,
		clear:     clearModelFaults,
	},

	{
		name:      "full disk",
		weight:    4,
		targets:   diskNames,
		conflicts: conflictsOfDisk,
		minTime:   2 * time.Second,
		maxTime:   6 * time.Second,
		rest:      3 * time.Second,
		inject:    injectFullDisk,
		clear:     clearDisk,
	},
	{
		name:      "read-only disk",
		weight:    3,
		targets:   targetsOf("out"),
		conflicts: conflictsOfDisk,
		minTime:   2 * time.Second,
		maxTime:   6 * time.Second,
		rest:      3 * time.Second,
		inject:    injectReadOnlyDisk,
		clear:     clearDisk,
	},
	{
		name:      "torn output",
		weight:    4,
		targets:   targetsOf("serve"),
		conflicts: conflictsWithTarget,
		minTime:   0,
		maxTime:   3 * time.Second,
		rest:      2 * time.Second,
		inject:    injectTornJournal,
		clear:     clearKill,
	},
	{
		name:      "flipped output",
		weight:    4,
		targets:   targetsOf("serve"),
		conflicts: conflictsWithTarget,
		minTime:   0,
		maxTime:   3 * time.Second,
		rest:      2 * time.Second,
		inject:    injectBitFlip,
		clear:     clearKill,
	},
	{
		name:      "clock",
		weight:    6,
		targets:   clockNames,
		conflicts: conflictsOfClock,
		minTime:   time.Second,
		maxTime:   15 * time.Second,
		steps:     clockStepsOf,
		inject:    injectClockStep,
		clear:     clearClockStep,
	},
	{
		name:      "used id",
		weight:    5,
		targets:   targetsOf("a", "b"),
		conflicts: conflictsWithTarget,
		inject:    injectRunIDReuse,
	},
	{
		name:      "changed input",
		weight:    3,
		targets:   targetsOf("c"),
		conflicts: conflictsWithTarget,
		rest:      15 * time.Second,
		inject:    injectInputChange,
	},
	{
		name:      "foreign worker",
		weight:    5,
		targets:   targetsOf("results"),
		conflicts: conflictsWithTarget,
		minTime:   time.Second,
		maxTime:   6 * time.Second,
		inject:    injectForeignWorker,
		clear:     clearNothing,
	},
	{
		name:      "foreign reader",
		weight:    5,
		targets:   targetsOf("positions"),
		conflicts: conflictsWithTarget,
		minTime:   time.Second,
		maxTime:   6 * time.Second,
		inject:    injectForeignReader,
		clear:     clearNothing,
	},
	{
		name:      "answers twice",
		weight:    4,
		targets:   shape.modelNames,
		conflicts: conflictsWithTarget,
		minTime:   2 * time.Second,
		maxTime:   10 * time.Second,
		inject:    injectDoubleAnswers,
		clear:     clearDoubleAnswers,
	},
	{
		name:      "unreadable store",
		weight:    4,
		targets:   storeNames,
		conflicts: conflictsWithNodes,
		minTime:   time.Second,
		maxTime:   5 * time.Second,
		rest:      3 * time.Second,
		inject:    injectUnreadableStore,
		clear:     clearUnreadableStore,
	},
	{
		name:      "lost store",
		weight:    2,
		targets:   storeNames,
		conflicts: conflictsWithNodes,
		minTime:   0,
		maxTime:   3 * time.Second,
		rest:      20 * time.Second,
		inject:    injectStoreLoss,
		clear:     clearStoreLoss,
	},
}

// storeNames are the parts with a store of the bus.
func storeNames(s shape) []string {
	if s.nodes > 0 {
		return s.nodeNames()
	}
	return []string{"serve"}
}

// diskNames are the disks. Nodes of a cluster have none of their own.
func diskNames(s shape) []string {
	if s.nodes > 0 {
		return []string{"out"}
	}
	return []string{"out", "store"}
}

// conflictsOfDisk returns the part that a fault of a disk ends.
func conflictsOfDisk(string) []string { return []string{"serve"} }

// injectKill sends SIGKILL; the process stays down until the fault is cleared.
func injectKill(d *deployment, e event) error {
	d.processes[e.target].kill()
	return nil
}

func clearKill(d *deployment, e event) error {
	d.processes[e.target].start()
	return nil
}

// injectTerm ends a process by SIGTERM, as an operator does.
func injectTerm(d *deployment, e event) error {
	return d.processes[e.target].terminate(endTime)
}

// lossPerByte resets a connection every 40 kB.
const lossPerByte = 1.0 / 40_000

func addToxic(kind toxic) func(*deployment, event) error {
	return func(f *deployment, e event) error {
		h := kind // several links may have one kind
		h.seed = e.seed
		f.links[e.target].setToxic(h)

		return nil
	}
}

func clearToxic(f *deployment, e event) error {
	f.links[e.target].setToxic(toxic{})
	return nil
}

// controlModel sets the behaviour of a model server. A server that is down is left alone.
func controlModel(how string) func(*deployment, event) error {
	return func(f *deployment, e event) error {
		client := http.Client{Timeout: 2 * time.Second}
		answer, err := client.Post("http://"+f.modelAddress[e.target]+"/chaos?"+how, "", nil)
		if err != nil {
			return nil //nolint:nilerr // see above
		}
		return answer.Body.Close()
	}
}

// injectModelFaults restarts a model server with faults; clearModelFaults restarts it without.
func injectModelFaults(d *deployment, e event) error {
	kinds := []string{"all=0.2", "429=0.3", "500=0.2,reset=0.1", "truncated=0.2", "garbage=0.1,empty=0.1", "503=0.5"}
	return d.restartModel(e, kinds[e.seed%uint64(len(kinds))])
}

func clearModelFaults(d *deployment, e event) error { return d.restartModel(e, "") }

func (d *deployment) restartModel(e event, faults string) error {
	p := d.processes[e.target]
	p.kill()
	d.setFaults(e.target, faults, e.seed)
	p.start()
	return nil
}

func injectFullDisk(d *deployment, e event) error {
	return d.disks[e.target].fillUp()
}

// injectReadOnlyDisk stops serve first, since a disk with open files cannot become read-only. Serve
// is then started on it.
func injectReadOnlyDisk(d *deployment, e event) error {
	d.processes["serve"].kill()
	err := d.disks[e.target].makeReadOnly()
	d.processes["serve"].start()
	return err
}

func clearDisk(d *deployment, e event) error { return d.disks[e.target].restore() }

// injectTornJournal cuts the end of each journal off, as a power cut does.
func injectTornJournal(d *deployment, e event) error {
	return d.damageJournals(e, func(file *os.File, size int64, dice uint64) error {
		return file.Truncate(max(0, size-int64(dice%20_000)))
	})
}

// injectBitFlip flips a bit near the end of each journal.
func injectBitFlip(d *deployment, e event) error {
	return d.damageJournals(e, func(file *os.File, size int64, dice uint64) error {
		at, b := size-1-int64(dice%uint64(min(size, 20_000))), []byte{0}
		if _, err := file.ReadAt(b, at); err != nil {
			return err
		}
		b[0] ^= 1 << (dice >> 32 % 8)
		_, err := file.WriteAt(b, at)
		return err
	})
}

// damageJournals kills the collector and does something to the journals.
func (d *deployment) damageJournals(e event, how func(file *os.File, size int64, dice uint64) error) error {
	d.processes["serve"].kill()

	paths, _ := filepath.Glob(filepath.Join(d.outputDir(), "*.part.zst")) // the pattern is good
	for i, path := range paths {
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}

		info, err := file.Stat()
		if err == nil && info.Size() > 0 {
			err = how(file, info.Size(), e.seed+uint64(i)*7919)
		}

		if file.Close(); err != nil {
			return err
		}
	}

	d.noteJournalDamage()

	return nil
}

// injectStoreLoss deletes the store of the bus, or of one node, while it is down.
func injectStoreLoss(d *deployment, e event) error {
	d.producing.Lock() // a producer would complete a half submitted run by itself
	defer d.producing.Unlock()

	d.processes[e.target].kill()
	if err := os.RemoveAll(d.storePath(e.target)); err != nil || d.shape.nodes > 0 {
		return err
	}

	d.noteStoreLoss()

	return nil
}

// clearStoreLoss starts it again. A cluster has all that the node had; without one, the
// producers come again with their runs, as their owners would have them do.
func clearStoreLoss(d *deployment, e event) error {
	d.processes[e.target].start()
	if d.shape.nodes > 0 {
		return nil
	}
	d.resubmitAll()
	return nil
}

func injectSubmit(d *deployment, e event) error {
	d.startProducer(e.target, e.seed)
	return nil
}

// skipped is returned by faults that this machine cannot inject.
type skipped string

func (s skipped) Error() string { return fmt.Sprintf("skipped: %s", string(s)) }
