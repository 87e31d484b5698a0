package gpu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// ErrNone is returned on a machine without graphics cards that nvidia-smi knows.
var ErrNone = errors.New("no graphics cards")

// The waits before a restart of nvidia-smi double from restartWaitMin to restartWaitMax. After
// a run of restartWaitMax they start again at restartWaitMin.
const (
	restartWaitMin = time.Second
	restartWaitMax = time.Minute
)

// maxEndTime is the time that [Watch.Run] waits for a killed nvidia-smi. One that hangs in its
// driver, as they do when a card fails, ends for no signal.
const maxEndTime = 5 * time.Second

// Card is a graphics card as it was read last.
type Card struct {
	Reading
	// Joules is the energy that the card took since [Watch.Run] began: its power over the time
	// between readings. Nil if the card does not report its power. Gaps of more than 5 seconds
	// between readings, which are logged, count nothing.
	Joules *float64
}

// Watch keeps the latest readings of all cards. It is safe for concurrent use.
type Watch struct {
	log         zerolog.Logger
	command     string        // a path, or a name to look for
	restartWait time.Duration // the first wait before a restart
	running     atomic.Bool

	// mu guards the fields below.
	mu     sync.Mutex
	cards  []Reading // the last complete set
	at     time.Time // when it was complete
	meters map[string]*energyMeter
}

// New returns a watch without readings.
func New(log zerolog.Logger) *Watch {
	return &Watch{log: log, command: "nvidia-smi", restartWait: restartWaitMin}
}

// Now returns the cards as they were read last, by index; nil before the first reading. Cards
// that were not read for 5 seconds keep their names, sizes and energy, and nothing else is
// known of them.
func (w *Watch) Now() []Card {
	w.mu.Lock()
	defer w.mu.Unlock()

	stale := time.Since(w.at) > longestGap
	var cards []Card
	for _, r := range w.cards {
		if stale {
			r = Reading{
				Index:       r.Index,
				Name:        r.Name,
				UUID:        r.UUID,
				MemoryBytes: r.MemoryBytes,
			}
		}

		card := Card{Reading: r}
		if m := w.meters[cardKey(r)]; m != nil {
			card.Joules = m.totalJoules()
		}

		cards = append(cards, card)
	}

	return cards
}

// Run reads the cards until ctx ends and then returns nil, with no process left. It returns an
// error that wraps [ErrNone] at once if there is no nvidia-smi or if it finds no card. An
// nvidia-smi that ends otherwise is started again. Only one Run of a watch is possible at a
// time: another one fails.
func (w *Watch) Run(ctx context.Context) error {
	path, err := exec.LookPath(w.command)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNone, err)
	}

	if !w.running.CompareAndSwap(false, true) {
		return errors.New("the graphics cards are being read already")
	}

	w.mu.Lock()
	w.cards, w.meters = nil, make(map[string]*energyMeter)
	w.mu.Unlock()

	done := make(chan error, 1)
	go func() {
		// The kernel kills nvidia-smi when the thread that started it ends, so the thread
		// has to stay: it is never unlocked, and ends with this goroutine.
		runtime.LockOSThread()
		err := w.keepRunning(ctx, path)
		w.running.Store(false)
		done <- err
	}()

	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}

	select {
	case err := <-done:
		return err
	case <-time.After(maxEndTime):
		return errors.New("nvidia-smi does not end: it hangs in the driver")
	}
}

// keepRunning starts nvidia-smi again and again until ctx ends.
func (w *Watch) keepRunning(ctx context.Context, path string) error {
	wait, seen, last := w.restartWait, false, ""
	for {
		began := time.Now()
		out, err := w.runOnce(ctx, path)

		if ctx.Err() != nil {
			return nil //nolint:nilerr // nvidia-smi was killed
		}

		seen = seen || out.complete
		if errors.Is(err, ErrNone) && !seen {
			return err
		}

		if time.Since(began) > restartWaitMax {
			wait, last = w.restartWait, ""
		}

		if err.Error() != last { // log it once
			last = err.Error()
			w.log.Warn().Err(err).Msg("nvidia-smi ended; restarting it")
		}

		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}

		wait = min(2*wait, restartWaitMax)
	}
}

// runOnce runs nvidia-smi to its end and returns why it ended. In a container without a C library the one that the
// container engine has put there cannot be started: the system says that there is no such file.
func (w *Watch) runOnce(ctx context.Context, path string) (*outputParser, error) {
	out := &outputParser{watch: w}
	cmd := exec.CommandContext(ctx, path, "--query-gpu="+queryFields, "--format=csv,noheader,nounits", "--loop=1")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = dieWithParent()
	cmd.WaitDelay = time.Second // for its pipes, if it is a script and has children
	err := cmd.Run()
	out.flushLine()

	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		err = errors.New("it ended by itself")
	case ok && slices.Contains(noCardExits, exit.ExitCode()) && !out.complete:
		err = ErrNone
	case errors.Is(err, fs.ErrNotExist) && !out.complete:
		err = fmt.Errorf("%w: %w", ErrNone, err)
	}

	if out.message != "" {
		err = fmt.Errorf("%w: %s", err, out.message)
	}

	return out, err
}

// noCardExits are the exit codes of nvidia-smi for: no device was found, the driver is not
// loaded, its library is not there.
var noCardExits = []int{6, 9, 12}

// setReadings takes a complete set of readings.
func (w *Watch) setReadings(readings []Reading, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cards, w.at = readings, at
}

// addEnergy adds a reading to the energy of its card.
func (w *Watch) addEnergy(r Reading, at time.Time) {
	if r.PowerWatts == nil {
		return
	}

	w.mu.Lock()
	defer w.mu.Unlock()

	m := w.meters[cardKey(r)]
	if m == nil {
		m = new(energyMeter)
		w.meters[cardKey(r)] = m
	}

	if gap := m.addPower(*r.PowerWatts, at); gap > 0 {
		w.log.Warn().Int("gpu", r.Index).Float64("seconds", gap.Seconds()).
			Msg("graphics card not read for a while; its energy during that time is not counted")
	}
}

// cardKey returns a key of the card of a reading. An index may go over to another card when one
// fails.
func cardKey(r Reading) string {
	if r.UUID != "" {
		return r.UUID
	}
	return strconv.Itoa(r.Index)
}
