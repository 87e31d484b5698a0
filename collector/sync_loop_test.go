package collector

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

// rival is another place that the run could be collected to.
func (b *bench) newRival() *bench {
	b.T.Helper()

	r := *b
	r.out = output.Prefix(filepath.Join(b.T.TempDir(), "rival"))
	j, err := journal.Create(r.out.Journal(), r.Manifest)
	if err != nil {
		b.T.Fatal(err)
	}

	fixture.Must(b.T, j.Close())

	return &r
}

func withHost(host string) func(*Config) { return func(cfg *Config) { cfg.Host = host } }

// checkHolder checks which collector has the lease of the run.
func (b *bench) checkHolder(want proto.CollectorInfo) {
	b.T.Helper()
	if got, ok, err := b.Bus.Leases.Holder(b.T.Context(), "r"); err != nil || !ok || got != want {
		b.T.Errorf("the run is collected by %v (%v, %v), want %v", got, ok, err, want)
	}
}

func TestSecondCollectorIsRefused(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, host string
		sameOutput bool
	}{
		{"another output of this machine", "box", false},
		{"the same path on another machine", "other", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 4, 16<<20)
			b.Publish("0-0", 0, 1)
			c := b.start(withHost("box"))
			c.waitDurable(2)
			first := proto.CollectorInfo{Host: "box", Output: string(b.out)}
			b.checkHolder(first)

			second := b.newRival()
			before, err := os.ReadFile(second.out.Journal())
			fixture.Must(t, err)

			refused := second.start(withHost(tt.host), func(cfg *Config) {
				if tt.sameOutput {
					cfg.Output = b.out
				}
			})
			if err := refused.wait(); !errors.Is(err, proto.ErrLeaseHeld) {
				t.Errorf("a second collector: %v, want ErrCollected", err)
			}

			after, err := os.ReadFile(second.out.Journal())
			if err != nil || !bytes.Equal(before, after) {
				t.Errorf("the second collector has changed its journal from %d to %d bytes (%v)",
					len(before), len(after), err)
			}

			b.checkHolder(first)

			m, err := b.Bus.Runs.Get(t.Context(), "r")
			if err != nil || m.Output != first.String() {
				t.Errorf("the bus says that the output is %s (%v), want %s", m.Output, err, first)
			}

			// Once the first has stopped, it may.
			c.stopped()
			c = second.start(withHost(tt.host))
			b.Publish("0-1", 2, 3)
			second.waitCompleted(c)

			if _, ok, err := b.Bus.Leases.Holder(t.Context(), "r"); ok || err != nil {
				t.Errorf("a run that is complete is being collected (%v)", err)
			}
		})
	}
}

// take gives the run to another collector behind the back of the one that has it.
func (b *bench) stealLease(other proto.CollectorInfo) {
	b.T.Helper()
	p := b.Bus
	prototest.Poll(b.T, testrun.Patience, "the claim on the run", func() bool {
		fixture.Must(b.T, p.Leases.Release(b.T.Context(), "r"))
		return p.Leases.Acquire(b.T.Context(), "r", other) == nil // else the one that has it was faster
	})
}

func TestCollectorLosesItsClaim(t *testing.T) {
	t.Parallel()

	b := newBench(t, 4, 16<<20)
	b.Publish("0-0", 0, 1)
	c := b.start(withHost("box"))
	c.waitDurable(2)
	other := proto.CollectorInfo{Host: "other", Output: "/elsewhere"}
	b.stealLease(other)
	if err := c.wait(); !errors.Is(err, proto.ErrLeaseHeld) {
		t.Errorf("Run: %v, want ErrCollected", err)
	}

	b.checkHolder(other)
}

func TestCollectorOfDeletedRun(t *testing.T) {
	t.Parallel()

	b := newBench(t, 4, 16<<20)
	b.Publish("0-0", 0, 1)
	c := b.start()
	c.waitDurable(2)
	fixture.Must(t, b.Bus.Runs.Delete(t.Context(), "r"))
	if err := c.wait(); !errors.Is(err, ErrDeleted) {
		t.Errorf("Run: %v, want ErrDeleted", err)
	}

	// Synced lines stay.
	if j := openJournal(t, b.out.Journal()); j.State().Counts.Done != 2 {
		t.Errorf("%d lines in the journal, want 2", j.State().Counts.Done)
	}
}

// Objects that requests came in are not needed any more once their results are synced.
func TestCollectorForgetsRequests(t *testing.T) {
	t.Parallel()

	b := newBench(t, 4, 16<<20)
	objects := bus.New(b.JS).Objects("r")
	for _, name := range []string{"work-0-0", "work-0-1", "input-0"} {
		fixture.Must(t, objects.Put(t.Context(), name, []byte("big requests")))
	}

	msg := proto.EncodeResults("r", "0-0", []uint32{0, 1}, []byte(fixture.AllLines(0, 1)))
	msg.Header.Set(proto.HeaderSource, "work-0-0")
	b.PublishMsg(msg)
	b.Publish("0-1", 2)

	for _, name := range []string{"work-0-1", "input-0"} { // not what shard 0-0 came in
		msg := proto.EncodeResults("r", "0-0", []uint32{0}, []byte(fixture.AllLines(0)))
		msg.Header.Set(proto.HeaderSource, name)
		b.PublishMsg(msg)
	}

	c := b.start()
	prototest.Poll(t, testrun.Patience, "the end of the object", func() bool {
		_, err := objects.Get(t.Context(), "work-0-0")
		return errors.Is(err, jetstream.ErrObjectNotFound)
	})

	if got := c.Progress().Durable; got < 2 {
		t.Errorf("the object is gone with %d lines on the disk", got)
	}

	if _, err := objects.Get(t.Context(), "work-0-1"); err != nil {
		t.Errorf("the object of a shard that is out: %v", err)
	}

	b.Publish("0-1", 3)
	b.waitCompleted(c)

	if _, err := objects.Get(t.Context(), "input-0"); err != nil {
		t.Errorf("the input, which a worker has named: %v", err)
	}
}
