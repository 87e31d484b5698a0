package filestore

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/rs/zerolog"
)

// Random calls and restarts leave what a map would have.
func TestRandomOperations(t *testing.T) {
	t.Parallel()

	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()

			dir := t.TempDir()
			a := &actor{
				rand:   rand.New(rand.NewPCG(seed, 0)),
				model:  newModel(),
				report: func(operation) {},
			}

			for range 4 {
				s, err := Open(dir, zerolog.New(zerolog.NewTestWriter(t)))
				must(t, err)
				checkStore(t, s, a.model, nil)

				a.store = s
				for range 25 {
					a.do(t, a.choose())
				}

				checkStore(t, s, a.model, nil)
				must(t, s.Close())
			}
		})
	}
}

// Actors at the same time do not disturb each other.
func TestConcurrentOperations(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	s := openTest(t, dir)

	all := newModel()
	actors := make([]*actor, 6)

	var calls sync.WaitGroup
	for i := range actors {
		actors[i] = &actor{
			number: i,
			rand:   rand.New(rand.NewPCG(uint64(i), 1)),
			model:  newModel(),
			report: func(operation) {},
			store:  s,
		}

		calls.Go(func() {
			for range 60 {
				actors[i].do(t, actors[i].choose())
				s.Usage()
			}
		})
	}

	calls.Wait()

	for _, a := range actors {
		for id, text := range a.model.files {
			all.files[id] = text
		}
		for id, u := range a.model.uploads {
			all.uploads[id] = u
		}
	}

	checkStore(t, s, all, nil)
	must(t, s.Close())
	checkStore(t, openTest(t, dir), all, nil)
}
