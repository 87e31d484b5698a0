package collector_test

import (
	"bufio"
	"context"
	"fmt"
	"iter"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// A program collects a run into files. Here the run has two requests, and their results are
// on the bus.
func ExampleCollector() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	js, stopBus := testrun.StartBus()
	defer stopBus()

	dir, err := os.MkdirTemp("", "promptmill-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	limits := bus.Limits{WorkBytes: 16 << 20, ResultsBytes: 16 << 20}
	manifest := createRun(ctx, js, limits)

	// A run that was begun is resumed with journal.Open.
	out := output.Prefix(filepath.Join(dir, "demo"))
	j, err := journal.Create(out.Journal(), manifest)
	if err != nil {
		log.Fatal(err)
	}
	defer j.Close()

	if err := j.Claim(out); err != nil {
		log.Fatal(err)
	}

	c, err := collector.New(collector.Config{
		JS:      js,
		Journal: j,
		Output:  out,
		Input:   questions,
		Limits:  limits,
	})
	if err != nil {
		log.Fatal(err)
	}

	if err := c.Run(ctx); err != nil {
		log.Fatal(err)
	}

	printLines(out.Results())
	fmt.Println("lines:", c.Progress().Durable)

	// Output:
	// "question-1" was answered by box-1
	// "question-2" was answered by box-2
	// lines: 2
}

// requests is the input of a run.
type requests []proto.Request

// Requests implements [collector.Input].
func (in requests) Requests(_ context.Context, wanted *roaring.Bitmap) iter.Seq2[proto.Request, error] {
	return func(yield func(proto.Request, error) bool) {
		for _, r := range in {
			if wanted.Contains(r.Index) && !yield(r, nil) {
				return
			}
		}
	}
}

var questions = requests{
	{Index: 0, CustomID: []byte(`"question-1"`), URL: "/v1/completions", Body: []byte(`{"prompt":"1 + 1 ="}`)},
	{Index: 1, CustomID: []byte(`"question-2"`), URL: "/v1/completions", Body: []byte(`{"prompt":"2 + 2 ="}`)},
}

// createRun puts a run and its results on the bus, as a producer and two workers do.
func createRun(ctx context.Context, js jetstream.JetStream, limits bus.Limits) proto.Manifest {
	manifest := proto.Manifest{
		Schema:    proto.ManifestSchema,
		Run:       "demo",
		State:     proto.StateInProgress,
		CreatedAt: time.Now().UTC(),
		Input:     proto.Input{Requests: len(questions), Models: map[string]int{"small": len(questions)}},
		Publish:   proto.PublishState{Done: true},
	}
	for _, r := range questions {
		manifest.Input.Digest.Add(r.Index, r.CustomID, r.Hash())
	}

	if err := bus.CreateBuckets(ctx, js, limits); err != nil {
		log.Fatal(err)
	}

	if err := bus.EnsureStreams(ctx, js, manifest, limits); err != nil {
		log.Fatal(err)
	}

	if err := bus.New(js).Runs.Create(ctx, manifest); err != nil {
		log.Fatal(err)
	}

	for _, r := range questions {
		line := proto.AppendResult(nil, proto.Result{
			Run:         manifest.Run,
			Index:       r.Index,
			CustomID:    r.CustomID,
			RequestHash: r.Hash(),
			Status:      200,
			Worker:      fmt.Sprintf("box-%d", r.Index+1),
			Attempts:    1,
			Body:        []byte(`{"choices":[{"text":"...","finish_reason":"stop"}]}`),
		})

		msg := proto.EncodeResults(manifest.Run, proto.ShardID(0, 0), []uint32{r.Index}, line)
		if _, err := js.PublishMsg(ctx, msg); err != nil {
			log.Fatal(err)
		}
	}

	return manifest
}

// printLines prints the lines of an output file.
func printLines(path string) {
	file, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()

	dec, err := zstd.NewReader(file)
	if err != nil {
		log.Fatal(err)
	}
	defer dec.Close()

	var scan jsonscan.Scanner
	for lines := bufio.NewScanner(dec); lines.Scan(); {
		line, err := proto.ParseLine(&scan, lines.Bytes())
		if err != nil {
			log.Fatal(err)
		}

		fmt.Printf("%s was answered by %s\n", line.CustomID, line.Worker)
	}
}
