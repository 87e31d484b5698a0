package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// at is a time of a test's history, in seconds.
func at(seconds float64) time.Time {
	return time.Unix(1000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

// by is an execution at a worker.
func by(worker string, begin, end float64) execution {
	return execution{worker: worker, start: at(begin), end: at(end)}
}

func TestCheckExecuted(t *testing.T) {
	t.Parallel()

	kill := func(worker string, from, to float64) disruption {
		return disruption{
			what:     "kill " + worker,
			workers:  []string{worker},
			from:     at(from),
			to:       at(to),
			recovery: recoveryOfLink,
		}
	}

	tests := []struct {
		name           string
		list           []execution // of the first request
		disruptions    []disruption
		losses         []storeLoss
		again, allowed int
		want           string
	}{
		{"once", []execution{by("worker1", 1, 2)}, nil, nil, 0, 0, ""},
		{"in flight when its worker died", []execution{by("worker1", 1, 2), by("worker2", 31, 32)},
			[]disruption{kill("worker1", 1.5, 3)}, nil, 1, 1, ""},
		{"answered, not stored, when its worker died", []execution{by("worker1", 1, 2), by("worker1", 31, 32)},
			[]disruption{kill("worker1", 2.3, 3)}, nil, 1, 1, ""},
		{"in flight when another worker died", []execution{by("worker1", 1, 2), by("worker1", 31, 32)},
			[]disruption{kill("worker2", 1.5, 3)}, nil, 1, 0, "q-0 was answered again"},
		{"stored long before its worker died", []execution{
			by("worker1", 1, 2), by("worker2", 31, 32),
		}, []disruption{kill("worker1", 5, 6)}, nil, 1, 0,
			"q-0 was answered again by the server of worker2, though nothing had happened to its answer before: worker1 1.00s-2.00s, worker2 31.00s-32.00s"},
		{"again while its second worker fails", []execution{by("worker1", 1, 2), by("worker2", 31, 32)},
			[]disruption{kill("worker2", 31.5, 35)}, nil, 1, 1, "q-0 was answered again"},
		{"again without any disruption", []execution{by("worker1", 1, 2), by("worker1", 3, 4)}, nil, nil, 1, 0,
			"q-0 was answered again"},
		{"once too often", []execution{by("worker1", 1, 2), by("worker2", 31, 32), by("worker2", 40, 41)},
			[]disruption{kill("worker1", 1.5, 3)}, nil, 2, 1, "q-0 was answered again"},
		{"lost twice", []execution{by("worker1", 1, 2), by("worker2", 31, 32), by("worker2", 61, 62)},
			[]disruption{kill("worker1", 1.5, 3), kill("worker2", 31.5, 33)}, nil, 2, 2, ""},
		{"the first worker was away, and did not know", []execution{by("worker2", 31, 32), by("worker1", 45, 46)},
			[]disruption{kill("worker1", 1, 44)}, nil, 1, 1, ""},
		{"the first worker was away, and had long been back", []execution{by("worker2", 31, 32), by("worker1", 70, 71)},
			[]disruption{kill("worker1", 1, 44)}, nil, 1, 0, "q-0 was answered again"},
		{"its answer went with the store", []execution{by("worker1", 1, 2), by("worker1", 31, 32)}, nil,
			[]storeLoss{{run: "run", at: at(20), kept: map[int]bool{1: true}}}, 1, 1, ""},
		{"its line was in the journal when the store was lost", []execution{by("worker1", 1, 2), by("worker1", 31, 32)},
			nil, []storeLoss{{run: "run", at: at(20), kept: map[int]bool{0: true}}}, 1, 0, "q-0 was answered again"},
		{"the store of another run was lost", []execution{by("worker1", 1, 2), by("worker1", 31, 32)}, nil,
			[]storeLoss{{run: "other", at: at(20)}}, 1, 0, "q-0 was answered again"},
		{"it was answered after the store was lost", []execution{by("worker1", 21, 22), by("worker1", 31, 32)}, nil,
			[]storeLoss{{run: "run", at: at(20)}}, 1, 0, "q-0 was answered again"},
		{"never", nil, nil, nil, 0, 0, "q-0 was never answered"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			input, _ := evidence(t)
			executed := map[string][]execution{}
			for _, w := range input[1:4] {
				executed[w.answer] = []execution{by("worker3", 1, 2)}
			}

			if test.list != nil {
				slices.Reverse(test.list) // the order of the logs says nothing
				executed[input[0].answer] = test.list
			}

			var found findings
			again, allowed := checkExecuted(map[string][]expected{"run": input}, map[string][]expected{"run": input},
				executed, disruptions{test.disruptions, test.losses}, at(0), &found)
			wantFinding(t, found, test.want)
			if again != test.again {
				t.Errorf("%d again, want %d", again, test.again)
			}

			if test.losses == nil && allowed != test.allowed {
				t.Errorf("%d were in flight when something happened, want %d", allowed, test.allowed)
			}
		})
	}

	var found findings
	checkExecuted(nil, nil, map[string][]execution{"x": {by("worker1", 1, 2)}}, disruptions{}, at(0), &found)
	wantFinding(t, found, "x is of no request")
}

// A worker that runs a whole shard again after its death is found out by the requests of
// the shard that had been stored before, and by them alone.
func TestShardRunAgain(t *testing.T) {
	t.Parallel()

	const size = 32
	var input []expected
	executed := map[string][]execution{}
	for i := range size {
		w := expected{customID: fmt.Sprintf("q-%d", i), answer: fmt.Sprintf("%016x", i)}
		input = append(input, w)
		begin := float64(i) * 0.25 // one after the other, each takes half a second
		executed[w.answer] = []execution{by("worker1", begin, begin+0.5), by("worker2", 40+begin, 40.5+begin)}
	}

	death := disruption{
		what:     "kill worker1",
		workers:  []string{"worker1"},
		from:     at(size * 0.25),
		to:       at(size*0.25 + 2),
		recovery: recoveryOfLink,
	}

	var found findings
	again, allowed := checkExecuted(map[string][]expected{"run": input}, map[string][]expected{"run": input}, executed,
		disruptions{list: []disruption{death}}, at(0), &found)
	// Those that ended within the second before its death, or were in flight.
	if want := 5; again != size || allowed != want {
		t.Errorf("%d again, of %d that were in flight; want %d and %d", again, allowed, size, want)
	}

	wantFinding(t, found, "q-0 was answered again")
	wantFinding(t, found, "27 answers were given again so")

	if len(found) != fewRepetitions+1 {
		t.Errorf("%d findings, want a few, and how many there are", len(found))
	}
}

// Each part is a part of the ways of the right workers.
func TestHarmTo(t *testing.T) {
	t.Parallel()

	all := []string{"worker1", "worker2", "worker3"}
	tests := []struct {
		part            string
		nodes           int
		workers, models []string
	}{
		{"worker2", 0, []string{"worker2"}, nil},
		{"worker2-bus", 0, []string{"worker2"}, nil},
		{"worker2-model", 0, nil, []string{"worker2"}},
		{"model2", 0, nil, []string{"worker2"}},
		{"serve", 0, all, nil},
		{"store", 0, all, nil},
		{"serve", 3, nil, nil}, // it is a client there
		{"serve-bus", 3, nil, nil},
		{"out", 3, nil, nil},
		{"node1", 3, all, nil},
		{"reader", 0, nil, nil},
		{"reader-bus", 0, nil, nil},
		{"submit-bus", 0, nil, nil},
	}
	for _, test := range tests {
		h := shape{workers: 3, nodes: test.nodes}.disruptionOf(test.part)
		if !slices.Equal(h.workers, test.workers) || !slices.Equal(h.models, test.models) {
			t.Errorf("%s, %d nodes: disruption of the workers %v and the model servers of %v, want %v and %v",
				test.part, test.nodes, h.workers, h.models, test.workers, test.models)
		}
	}
}

// The log of a model server that was killed in the middle of a line is read up to there.
func TestReadExecutions(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "model1")
	log, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()

	writeExecution(log, "00000000000000aa", at(1), at(2))
	writeExecution(log, "00000000000000bb", at(2), at(4))
	fmt.Fprint(log, "00000000000000cc 17")
	all := map[string][]execution{}
	n, err := readExecutions(path, "worker1", all)
	if err != nil || n != 2 || len(all) != 2 {
		t.Fatalf("%d executions of %d requests, %v; want 2 of 2", n, len(all), err)
	}

	if want := []execution{by("worker1", 2, 4)}; !slices.Equal(all["00000000000000bb"], want) {
		t.Errorf("read %v, want %v", all["00000000000000bb"], want)
	}
}
