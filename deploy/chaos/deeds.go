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

// deed is a kind of what the world does.
type deed struct {
	name    string
	weight  int
	targets func(shape) []string
	// harms are the parts to which nothing else is done at the same time.
	harms       func(target string) []string
	short, long time.Duration                                // how long it lasts
	lasting     bool                                         // it may outlast a shard's patience with its worker
	rest        time.Duration                                // that the parts have afterwards
	steps       func(s shape, target string) []time.Duration // one of which its clock makes
	do, undo    func(f *fleet, e event) error
}

// over undoes what ends by itself.
func over(*fleet, event) error { return nil }

func nobody(string) []string { return nil }

func itself(target string) []string { return []string{target} }

// oneNode has two nodes of a cluster never hurt at the same time: what they have both
// confirmed could be lost.
func oneNode(target string) []string {
	if strings.HasPrefix(target, "node") {
		return []string{target, "a node"}
	}
	return []string{target}
}

func only(names ...string) func(shape) []string {
	return func(shape) []string { return slices.Clone(names) }
}

// deeds are all kinds, with their weights.
var deeds = []*deed{
	{
		name:    "submit",
		targets: only(),
		harms:   nobody,
		do:      (*fleet).doSubmit,
	},
	{
		name:    "kill",
		weight:  30,
		targets: shape.processNames,
		harms:   oneNode,
		short:   0,
		long:    6 * time.Second,
		rest:    time.Second,
		do:      (*fleet).doKill,
		undo:    (*fleet).undoKill,
	},
	{
		name:    "freeze",
		weight:  14,
		targets: shape.processNames,
		harms:   oneNode,
		short:   time.Second,
		long:    8 * time.Second,
		lasting: true,
		rest:    time.Second,
		do: func(f *fleet, e event) error {
			f.processes[e.target].signal(syscall.SIGSTOP)
			return nil
		},
		undo: func(f *fleet, e event) error { f.processes[e.target].signal(syscall.SIGCONT); return nil },
	},
	{
		name:    "end",
		weight:  5,
		targets: func(s shape) []string { return append(s.workerNames(), "serve") },
		harms:   itself,
		short:   0,
		long:    3 * time.Second,
		rest:    time.Second,
		do:      (*fleet).doEnd,
		undo:    (*fleet).undoKill,
	},

	{
		name:    "cut",
		weight:  8,
		targets: shape.linkNames,
		harms:   itself,
		short:   time.Second,
		long:    8 * time.Second,
		lasting: true,
		rest:    time.Second,
		do:      hurting(hurt{cut: true}),
		undo:    healing,
	},
	{
		name:    "block",
		weight:  8,
		targets: shape.linkNames,
		harms:   itself,
		short:   time.Second,
		long:    8 * time.Second,
		lasting: true,
		rest:    time.Second,
		do:      hurting(hurt{hang: true}),
		undo:    healing,
	},
	{
		name:    "slow",
		weight:  6,
		targets: shape.linkNames,
		harms:   itself,
		short:   2 * time.Second,
		long:    15 * time.Second,
		lasting: true,
		do:      hurting(hurt{delay: 150 * time.Millisecond, rate: 200_000}),
		undo:    healing,
	},
	{
		name:    "lossy",
		weight:  6,
		targets: shape.linkNames,
		harms:   itself,
		short:   2 * time.Second,
		long:    15 * time.Second,
		do:      hurting(hurt{delay: 5 * time.Millisecond, loss: lossPerByte}),
		undo:    healing,
	},

	{
		name:    "hang",
		weight:  6,
		targets: shape.modelNames,
		harms:   itself,
		short:   2 * time.Second,
		long:    15 * time.Second,
		do:      telling("hang=true"),
		undo:    telling("hang=false"),
	},
	{
		name:    "slow model",
		weight:  4,
		targets: shape.modelNames,
		harms:   itself,
		short:   5 * time.Second,
		long:    20 * time.Second,
		do:      telling("slow=50"),
		undo:    telling("slow=10"),
	},
	{
		name:    "faults",
		weight:  6,
		targets: shape.modelNames,
		harms:   itself,
		short:   5 * time.Second,
		long:    20 * time.Second,
		do:      (*fleet).doFaults,
		undo:    (*fleet).undoFaults,
	},

	{
		name:    "full disk",
		weight:  4,
		targets: diskNames,
		harms:   diskHarms,
		short:   2 * time.Second,
		long:    6 * time.Second,
		rest:    3 * time.Second,
		do:      (*fleet).doFull,
		undo:    (*fleet).undoDisk,
	},
	{
		name:    "read-only disk",
		weight:  3,
		targets: only("out"),
		harms:   diskHarms,
		short:   2 * time.Second,
		long:    6 * time.Second,
		rest:    3 * time.Second,
		do:      (*fleet).doReadOnly,
		undo:    (*fleet).undoDisk,
	},
	{
		name:    "torn output",
		weight:  4,
		targets: only("serve"),
		harms:   itself,
		short:   0,
		long:    3 * time.Second,
		rest:    2 * time.Second,
		do:      (*fleet).doTear,
		undo:    (*fleet).undoKill,
	},
	{
		name:    "flipped output",
		weight:  4,
		targets: only("serve"),
		harms:   itself,
		short:   0,
		long:    3 * time.Second,
		rest:    2 * time.Second,
		do:      (*fleet).doFlip,
		undo:    (*fleet).undoKill,
	},
	{
		name:    "clock",
		weight:  6,
		targets: clockNames,
		harms:   itsClock,
		short:   time.Second,
		long:    15 * time.Second,
		steps:   stepsOf,
		do:      (*fleet).doClock,
		undo:    (*fleet).undoClock,
	},
	{
		name:    "used id",
		weight:  5,
		targets: only("a", "b"),
		harms:   itself,
		do:      (*fleet).doReuse,
	},
	{
		name:    "changed input",
		weight:  3,
		targets: only("c"),
		harms:   itself,
		rest:    15 * time.Second,
		do:      (*fleet).doChange,
	},
	{
		name:    "foreign worker",
		weight:  5,
		targets: only("results"),
		harms:   itself,
		short:   time.Second,
		long:    6 * time.Second,
		do:      (*fleet).doForeignWorker,
		undo:    over,
	},
	{
		name:    "foreign reader",
		weight:  5,
		targets: only("positions"),
		harms:   itself,
		short:   time.Second,
		long:    6 * time.Second,
		do:      (*fleet).doForeignReader,
		undo:    over,
	},
	{
		name:    "answers twice",
		weight:  4,
		targets: shape.modelNames,
		harms:   itself,
		short:   2 * time.Second,
		long:    10 * time.Second,
		do:      (*fleet).doTwice,
		undo:    (*fleet).undoTwice,
	},
	{
		name:    "unreadable store",
		weight:  4,
		targets: storeNames,
		harms:   oneNode,
		short:   time.Second,
		long:    5 * time.Second,
		rest:    3 * time.Second,
		do:      (*fleet).doUnreadable,
		undo:    (*fleet).undoUnreadable,
	},
	{
		name:    "lost store",
		weight:  2,
		targets: storeNames,
		harms:   oneNode,
		short:   0,
		long:    3 * time.Second,
		rest:    20 * time.Second,
		do:      (*fleet).doLose,
		undo:    (*fleet).undoLose,
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

// diskHarms is who does not survive that something happens to a disk.
func diskHarms(string) []string { return []string{"serve"} }

// kill -9, and down until it is undone.
func (f *fleet) doKill(e event) error {
	f.processes[e.target].kill()
	return nil
}

func (f *fleet) undoKill(e event) error {
	f.processes[e.target].start()
	return nil
}

// End by SIGTERM, as an operator does.
func (f *fleet) doEnd(e event) error {
	return f.processes[e.target].end(endTime)
}

// lossPerByte resets a connection every 40 kB.
const lossPerByte = 1.0 / 40_000

func hurting(kind hurt) func(*fleet, event) error {
	return func(f *fleet, e event) error {
		h := kind // links are hurt at the same time
		h.dice = e.dice
		f.links[e.target].set(h)

		return nil
	}
}

func healing(f *fleet, e event) error {
	f.links[e.target].set(hurt{})
	return nil
}

// telling tells a model server how to be. One that is away right now is not hurt.
func telling(how string) func(*fleet, event) error {
	return func(f *fleet, e event) error {
		client := http.Client{Timeout: 2 * time.Second}
		answer, err := client.Post("http://"+f.modelAddress[e.target]+"/chaos?"+how, "", nil)
		if err != nil {
			return nil //nolint:nilerr // see above
		}
		return answer.Body.Close()
	}
}

// With faults, and then without, in a new life each.
func (f *fleet) doFaults(e event) error {
	kinds := []string{"all=0.2", "429=0.3", "500=0.2,reset=0.1", "truncated=0.2", "garbage=0.1,empty=0.1", "503=0.5"}
	return f.relive(e, kinds[e.dice%uint64(len(kinds))])
}

func (f *fleet) undoFaults(e event) error { return f.relive(e, "") }

func (f *fleet) relive(e event, faults string) error {
	p := f.processes[e.target]
	p.kill()
	f.setFaults(e.target, faults, e.dice)
	p.start()
	return nil
}

func (f *fleet) doFull(e event) error {
	return f.disks[e.target].fill()
}

// A disk that nobody writes to can be made read-only: so it is with serve down, which
// is then started on it.
func (f *fleet) doReadOnly(e event) error {
	f.processes["serve"].kill()
	err := f.disks[e.target].readOnly()
	f.processes["serve"].start()
	return err
}

func (f *fleet) undoDisk(e event) error { return f.disks[e.target].mend() }

// doTear cuts the end of each journal off, as a power cut does.
func (f *fleet) doTear(e event) error {
	return f.damage(e, func(file *os.File, size int64, dice uint64) error {
		return file.Truncate(max(0, size-int64(dice%20_000)))
	})
}

// doFlip flips a bit near the end of each journal.
func (f *fleet) doFlip(e event) error {
	return f.damage(e, func(file *os.File, size int64, dice uint64) error {
		at, b := size-1-int64(dice%uint64(min(size, 20_000))), []byte{0}
		if _, err := file.ReadAt(b, at); err != nil {
			return err
		}
		b[0] ^= 1 << (dice >> 32 % 8)
		_, err := file.WriteAt(b, at)
		return err
	})
}

// damage kills the collector and does something to the journals.
func (f *fleet) damage(e event, how func(file *os.File, size int64, dice uint64) error) error {
	f.processes["serve"].kill()

	paths, _ := filepath.Glob(filepath.Join(f.out(), "*.part.zst")) // the pattern is good
	for i, path := range paths {
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}

		info, err := file.Stat()
		if err == nil && info.Size() > 0 {
			err = how(file, info.Size(), e.dice+uint64(i)*7919)
		}

		if file.Close(); err != nil {
			return err
		}
	}

	f.damaged()

	return nil
}

// doLose deletes the store of the bus, or of one node, while it is down.
func (f *fleet) doLose(e event) error {
	f.producing.Lock() // what is half submitted, its producer would complete by itself
	defer f.producing.Unlock()

	f.processes[e.target].kill()
	if err := os.RemoveAll(f.store(e.target)); err != nil || f.shape.nodes > 0 {
		return err
	}

	f.lose()

	return nil
}

// undoLose starts it again. A cluster has all that the node had; without one, the
// producers come again with their runs, as their owners would have them do.
func (f *fleet) undoLose(e event) error {
	f.processes[e.target].start()
	if f.shape.nodes > 0 {
		return nil
	}
	f.forget()
	return nil
}

func (f *fleet) doSubmit(e event) error {
	f.submit(e.target, e.dice)
	return nil
}

// skipped is returned by deeds that cannot be done here.
type skipped string

func (s skipped) Error() string { return fmt.Sprintf("skipped: %s", string(s)) }
