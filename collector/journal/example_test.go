package journal_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// A program reads which requests of an incomplete run have their line. Opening a journal
// reads the frames' headers, and no lines.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "promptmill-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	path := filepath.Join(dir, "run.part.zst")
	writeJournal(path)

	j, err := journal.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer j.Close()

	s := j.State()
	fmt.Println("run:", s.Manifest.Run)
	fmt.Println("done:", s.Done)
	fmt.Println("missing:", s.Missing())
	fmt.Println("failed:", s.Counts.Failed)

	// Output:
	// run: r
	// done: {0,1,2,4}
	// missing: {3,5}
	// failed: 1
}

// writeJournal writes a journal of a run of six requests, with two frames.
func writeJournal(path string) {
	j, err := journal.Create(path, fixture.Manifest(6))
	if err != nil {
		log.Fatal(err)
	}
	defer j.Close()

	var scan jsonscan.Scanner
	for _, indexes := range [][]uint32{{0, 1, 4}, {2}} {
		var f journal.Frame
		for _, index := range indexes {
			line := fixture.Line(index, 0)

			info, err := proto.ParseLine(&scan, line)
			if err != nil {
				log.Fatal(err)
			}

			f.Add(index, line, info)
		}

		if err := j.Append(&f); err != nil {
			log.Fatal(err)
		}
	}
}
