package collector

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"github.com/promptmill/promptmill/proto/prototest"
)

func TestActivityTimer(t *testing.T) {
	t.Parallel()

	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		name         string
		seconds      []float64 // at which a worker was at work
		worked, idle float64
	}{
		{"always at work", []float64{1, 5, 14}, 14, 0},
		{"never", nil, 0, 0},
		{"the model loads first", []float64{100, 101, 103}, 3, 100},
		{"a pause in the middle", []float64{1, 2, 60, 61}, 3, 58},
		{"two results out of order", []float64{2, 1, 3}, 3, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			k := newActivityTimer(begin)
			var got times
			for i, s := range tt.seconds {
				k.noteWork(begin.Add(time.Duration(s * float64(time.Second))))
				if i%2 == 0 {
					d := k.take()
					got.worked, got.idle = got.worked+d.worked, got.idle+d.idle
				}
			}

			d := k.take()
			got.worked, got.idle = got.worked+d.worked, got.idle+d.idle
			if got.worked.Seconds() != tt.worked || got.idle.Seconds() != tt.idle {
				t.Errorf("worked %v and idle %v, want %v s and %v s", got.worked, got.idle, tt.worked, tt.idle)
			}
		})
	}
}

// Time in which the bus does not answer is not idle, whatever came before and after it.
func TestActivityTimerBlind(t *testing.T) {
	t.Parallel()

	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(seconds float64) time.Time { return begin.Add(time.Duration(seconds * float64(time.Second))) }
	for _, tt := range []struct {
		name         string
		before       float64    // when a worker was at work
		blind        [2]float64 // from and to
		after        float64    // when a worker was at work again
		worked, idle float64
	}{
		{"results come once the bus is back", 1, [2]float64{2, 62}, 63, 63, 0},
		{"workers begin slowly", 1, [2]float64{2, 62}, 80, 62, 18},
		{"in a pause", 1, [2]float64{30, 40}, 60, 11, 49},
		{"for a moment in a pause", 1, [2]float64{30, 30}, 39, 10, 29},
		{"a worker was seen at work meanwhile", 9, [2]float64{2, 8}, 10, 10, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			k := newActivityTimer(begin)
			k.noteWork(at(tt.before))
			k.noteBlind(at(tt.blind[0]), at(tt.blind[1]))
			k.noteWork(at(tt.after))
			if got := k.take(); got.worked.Seconds() != tt.worked || got.idle.Seconds() != tt.idle {
				t.Errorf("worked %v and idle %v, want %v s and %v s", got.worked, got.idle, tt.worked, tt.idle)
			}
		})
	}
}

// A result that comes while the bus still owes an answer does not make the time before it
// idle.
func TestActivityTimerStillBlind(t *testing.T) {
	t.Parallel()

	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	k := newActivityTimer(begin)
	k.noteAsk(begin.Add(time.Second))
	k.noteBlind(begin.Add(30*time.Second), begin.Add(31*time.Second))
	k.noteWork(begin.Add(60 * time.Second))
	k.noteAnswer(begin.Add(61*time.Second), nil)
	if got := k.take(); got.worked != 61*time.Second || got.idle != 0 {
		t.Errorf("worked %v and idle %v, want 61 s and none", got.worked, got.idle)
	}
}

// The time in which the run was not collected is lost only from its last result on.
func TestTimeLost(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		during []uint32 // requests that were answered while the run was not collected
		lost   bool
	}{
		{"no worker was at work", nil, true},
		{"workers went on", []uint32{3, 4, 5}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 9, 16<<20)
			j := openJournal(t, b.out.Journal())
			appendLines(t, j, 0, 1, 2)
			fixture.Must(t, j.Append(&journal.Frame{At: time.Now().Add(-time.Hour).UTC()}))
			fixture.Must(t, j.Close())
			before := j.State().Worked
			rest := []uint32{3, 4, 5, 6, 7, 8}[len(tt.during):]

			if len(tt.during) > 0 {
				var lines []byte
				for _, index := range tt.during {
					lines = append(lines, fixture.ResultLine(index, func(r *proto.Result) { r.Latency = time.Hour })...)
				}
				b.PublishMsg(proto.EncodeResults("r", "0-1", tt.during, lines))
			}

			info, err := os.Stat(b.out.Journal())
			fixture.Must(t, err)
			size := info.Size()

			c := b.start()
			prototest.Poll(t, testrun.Patience, "the session in the journal", func() bool {
				info, err := os.Stat(b.out.Journal())
				return err == nil && info.Size() > size
			})

			b.Publish("0-2", rest...)
			r := b.waitCompleted(c).Results
			hour := time.Hour.Seconds()
			worked, lost := r.InferenceTimeSeconds-before.Seconds(), *r.LostTimeSeconds
			if tt.lost && (lost < hour-60 || worked > 60) || !tt.lost && (worked < hour || lost > 60) ||
				worked < 0 || lost < 0 {
				t.Errorf("of an hour, %.1f s are lost and %.1f s worked", lost, worked)
			}

			if r.Interruptions != 1 {
				t.Errorf("%d interruptions", r.Interruptions)
			}
		})
	}
}

// A run that is interrupted while it is paused was idle until then.
func TestPausedAndInterrupted(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "out.part.zst")
	j, err := journal.Create(path, fixture.Manifest(3))
	fixture.Must(t, err)
	fixture.Must(t, j.Append(&journal.Frame{At: time.Now().Add(-time.Hour)}))
	c := newCollector(Config{Journal: j})
	s := c.newSession()
	s.activity.restart(time.Now().Add(-time.Hour))
	fixture.Must(t, s.saveFinalState())
	fixture.Must(t, j.Close())
	j = openJournal(t, path)
	fixture.Must(t, j.BeginSession())

	state := j.State()
	if state.Idle.Round(time.Minute) != time.Hour || state.Worked != 0 || state.Lost > time.Minute {
		t.Errorf("of an hour's pause, %v are idle, %v worked and %v lost", state.Idle, state.Worked, state.Lost)
	}

	fixture.Must(t, j.Close())
}

// The time between the last result and the end of a session is no longer because the
// wall clock is put forward in it.
func TestRestOfSteppedClock(t *testing.T) {
	t.Parallel()

	j, err := journal.Create(filepath.Join(t.TempDir(), "out.part.zst"), fixture.Manifest(3))
	fixture.Must(t, err)
	c := newCollector(Config{Journal: j})
	session := c.newSession()
	session.activity.restart(prototest.Stepped(t, time.Now(), -3600)) // as it was
	fixture.Must(t, session.saveFinalState())

	if s := j.State(); s.Worked+s.Idle > time.Minute {
		t.Errorf("of a moment, %v are worked and %v idle", s.Worked, s.Idle)
	}

	fixture.Must(t, j.Close())
}

// Results that come while the run is collected say nothing of the time before, though the
// clock of the bus is behind.
func TestNothingFoundInWhatComesLate(t *testing.T) {
	t.Parallel()

	j, err := journal.Create(filepath.Join(t.TempDir(), "out.part.zst"), fixture.Manifest(3))
	fixture.Must(t, err)
	c := newCollector(Config{Journal: j})
	*c.gap = collectionGap{
		from:     fixture.Created,
		to:       fixture.Created.Add(time.Minute),
		lostFrom: fixture.Created,
	}
	s := c.newSession()
	s.source.backlog = 2

	var found []time.Duration
	for i, at := range []time.Duration{-time.Second, 2 * time.Second, 30 * time.Second} {
		s.noteSpent(&jetstream.MsgMetadata{
			Sequence:  jetstream.SequencePair{Stream: uint64(i) + 1},
			Timestamp: fixture.Created.Add(at),
		}, time.Second)
		found = append(found, s.frame.found.worked)
	}

	if diff := cmp.Diff([]time.Duration{0, 2 * time.Second, 2 * time.Second}, found); diff != "" {
		t.Errorf("found after each message (-want +got):\n%s", diff)
	}

	fixture.Must(t, j.Close())
}

// A run takes no less in all than it was worked on, by whatever clocks it begins and ends.
func TestTotalOfSteppedClock(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		after, want time.Duration
	}{{time.Minute, time.Minute}, {-time.Hour, 6 * time.Second}} {
		out := output.Prefix(filepath.Join(t.TempDir(), "out.jsonl.zst"))
		m := fixture.Manifest(3)
		m.CreatedAt = fixture.Created
		j, err := journal.Create(out.Journal(), m)
		fixture.Must(t, err)
		fixture.Must(t, j.Append(&journal.Frame{
			At:     fixture.Created,
			Worked: 3 * time.Second,
			Idle:   2 * time.Second,
			Lost:   time.Second,
		}))

		fixture.Must(t, os.WriteFile(out.Results(), nil, 0o644))
		meta, err := buildMetadata(&Config{Output: out}, j.State(), nil, metadata.Series{}, proto.StateCompleted,
			fixture.Created.Add(tt.after))
		fixture.Must(t, err)
		if got := meta.Results.TotalTimeSeconds; got != tt.want.Seconds() {
			t.Errorf("ended %s after it began, it took %v s, want %s", tt.after, got, tt.want)
		}

		fixture.Must(t, j.Close())
	}
}

// A run that was interrupted nine times has the figures of one that was not, but for the
// interruptions.
func TestInterruptedNineTimes(t *testing.T) {
	t.Parallel()

	run := func(interrupted bool) (*journal.State, metadata.Results) {
		path := filepath.Join(t.TempDir(), "out.part.zst")
		j, err := journal.Create(path, fixture.Manifest(40))
		fixture.Must(t, err)

		for i := range uint32(10) {
			f := &journal.Frame{
				Position: journal.Position{Created: fixture.Created, Sequence: uint64(i) + 1, Time: fixture.Created},
				Worked:   3 * time.Second,
				Idle:     time.Second,
			}
			for _, index := range []uint32{4 * i, 4*i + 1, 4*i + 2, 4*i + 3} {
				line := fixture.ResultLine(index, func(r *proto.Result) {
					r.Latency = time.Duration(index*index) * time.Millisecond
					r.Body = fmt.Appendf(nil, `{"choices":[{}],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}`,
						3+index, 100-index)
					if index%7 == 0 {
						fixture.FailWith("timeout", 5)(r)
					}
				})

				info, err := proto.ParseLine(new(jsonscan.Scanner), line)
				fixture.Must(t, err)
				f.Add(index, line, info)
			}

			f.Series.Add(fixture.Created.Add(time.Duration(i)*7*time.Second), metadata.Point{
				Requests:         4,
				CompletionTokens: int64(i),
				InFlight:         new(int64(9 - i)),
			})

			fixture.Must(t, j.Append(f))

			if interrupted && i < 9 {
				fixture.Must(t, j.Close())
				j = openJournal(t, path)
				fixture.Must(t, j.BeginSession())
			}
		}

		s := j.State()
		r := metadata.Results{SuccessCount: s.Counts.Done - s.Counts.Failed, InferenceTimeSeconds: s.Worked.Seconds()}
		addMeasures(&r, s, &s.Series, nil)

		return s, r
	}

	one, want := run(false)
	nine, got := run(true)
	if diff := cmp.Diff(want, got, cmpopts.EquateApprox(1e-9, 0)); diff != "" {
		t.Errorf("results (-not interrupted +interrupted):\n%s", diff)
	}

	if one.Sessions != 1 || nine.Sessions != 10 {
		t.Errorf("%d and %d sessions", one.Sessions, nine.Sessions)
	}

	if len(nine.Interruptions) != 9 || one.Interruptions != nil {
		t.Errorf("interruptions %v and %v", one.Interruptions, nine.Interruptions)
	}

	for i, gap := range nine.Interruptions {
		if gap.To.Before(gap.From) || i > 0 && gap.From.Before(nine.Interruptions[i-1].To) {
			t.Errorf("interruptions %v", nine.Interruptions)
		}
	}

	diff := cmp.Diff(one, nine, compareBitmaps, compareSketches, cmpopts.IgnoreFields(journal.State{},
		"At", "Began", "AccountedTo", "Lost", "Sessions", "Interruptions", "Latencies"))
	if diff != "" || want.LatencySeconds == nil || one.Worked != 30*time.Second || one.Idle != 10*time.Second {
		t.Errorf("state (-not interrupted +interrupted):\n%s", diff)
	}
}
