package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/sim"
)

// The next submit with the same input, and no other, takes over the rest of a submit that was
// killed before its input was on the bus.
func TestSubmitGoesOn(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		name    string
		streams bool // were made already
	}{{"killed at once", false}, {"killed with its streams made", true}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			c := newCommand(t)
			c.serve()
			in, other := c.input("in.jsonl", 20), c.input("other.jsonl", 21)
			s := c.producer()
			m := proto.Manifest{
				Schema:    proto.ManifestSchema,
				Run:       "r",
				State:     proto.StateValidating,
				CreatedAt: time.Now().Add(-time.Minute),
				Settings:  proto.Settings{Model: "sim"},
				Policy:    proto.RunPolicy{KeepSeconds: 60},
			}

			var err error
			if m.Input, _, err = producer.Validate(
				t.Context(), producer.Source{Files: []string{filepath.Join(c.dir, in)}}, m.Settings, nil,
			); err != nil {
				t.Fatal(err)
			}

			if err := s.Runs.Create(t.Context(), m); err != nil {
				t.Fatal(err)
			}

			if test.streams {
				if err := bus.EnsureStreams(t.Context(), s.JS, m, s.Limits); err != nil {
					t.Fatal(err)
				}
			}

			if said := c.must("status"); !strings.Contains(said, "! r: its submit is still storing the input, or was stopped") {
				t.Errorf("status does not report it:\n%s", said)
			}

			if said, code := c.run("submit", other, "--model", "sim", "--run", "r"); code != exit.CodeError ||
				!strings.Contains(said, "made from another input") {
				t.Errorf("another input: exit code %d\n%s", code, said)
			}

			c.must("submit", in, "--model", "sim", "--run", "r")
			if said, code := c.run("submit", in, "--model", "sim", "--run", "r"); code != exit.CodeError ||
				!strings.Contains(said, "there is a run r on the bus already") {
				t.Errorf("again: exit code %d\n%s", code, said)
			}

			c.start("worker", "--url", newModel(t, sim.Config{Tokens: 5}).url)
			c.ended("r", pollTime)
			c.verified(in, "r")
		})
	}
}

// A run of an older version is left alone. status names it on standard error, and serve at its start.
func TestStatusNamesRunsOfOtherVersions(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	serving, out := c.serve()
	s := c.producer()

	old := []byte(`{"schema":2,"run":"old","state":"in_progress"}`)
	if _, err := s.JS.Publish(t.Context(), "$KV."+proto.RunsBucket+".old", old); err != nil {
		t.Fatal(err)
	}

	const want = "left out run old: another version of promptmill made the run " +
		"(schema 2, this version reads 3 to 5); finish or delete it with that version"
	if stdout, stderr, code := c.output("status"); code != exit.CodeOK || !strings.Contains(stderr, want) {
		t.Errorf("status does not name the run: exit code %d\n%s%s", code, stdout, stderr)
	}

	if said, code := c.run("status", "old"); code == 0 || !strings.Contains(said, "another version of promptmill") {
		t.Errorf("exit code %d\n%s", code, said)
	}

	kept, err := bus.LastMessage(t.Context(), s.JS, "KV_"+proto.RunsBucket, "$KV."+proto.RunsBucket+".old")
	if err != nil || string(kept.Data) != string(old) {
		t.Errorf("its manifest is now %v, %v", kept, err)
	}

	terminate(t, serving, out)
	_, out = c.serve()
	poll(t, pollTime, "the run in the output of serve", func() bool {
		return strings.Contains(out.String(), "run old is left alone: another version of promptmill made the run (schema 2")
	})
}

// producer is a connection to the bus of serve in the role of a producer.
func (c command) producer() *session {
	c.t.Helper()

	id, err := localbus.LoadIdentity(c.state)
	if err != nil {
		c.t.Fatal(err)
	}

	l, err := busconn.Join(id.Join(proto.RoleProducer, []string{localbus.List(c.state)[0].LocalAddress()}),
		zerolog.Nop())
	if err != nil {
		c.t.Fatal(err)
	}

	c.t.Cleanup(l.Close)

	opened, err := bus.Open(c.t.Context(), l.JS)
	if err != nil {
		c.t.Fatal(err)
	}

	return &session{l, opened}
}
