package producer

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

func TestWindow(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		bodies []string
		want   []uint32
	}{
		{"messages that begin alike meet", []string{
			`{"model":"m","messages":[{"role":"system","content":"one"},{"role":"user","content":"a"}]}`,
			`{"model":"m","messages":[{"role":"system","content":"two"},{"role":"user","content":"a"}]}`,
			`{"model":"m","messages":[{"role":"system","content":"one"},{"role":"user","content":"b"}]}`,
			`{"model":"m","messages":[{"role":"system","content":"two"},{"role":"user","content":"b"}]}`,
		}, []uint32{0, 2, 1, 3}},
		{"however much they share", []string{
			`{"prompt":"a b c"}`, `{"prompt":"x"}`, `{"prompt":"a c"}`, `{"prompt":"a b d"}`,
		}, []uint32{0, 3, 2, 1}},
		{"whatever stands before the messages", []string{
			`{"temperature":0,"messages":["a"]}`, `{"messages":["b"]}`, `{"top_p":1,"messages":["a","c"]}`,
		}, []uint32{2, 0, 1}},
		{"tools come first in a prompt", []string{
			`{"messages":["a"],"tools":["t"]}`, `{"tools":["u"],"messages":["a"]}`, `{"messages":["b"],"tools":["t"]}`,
		}, []uint32{0, 2, 1}},
		{"instructions come before the input", []string{
			`{"input":"a","instructions":"i"}`, `{"input":"a","instructions":"j"}`, `{"input":"b","instructions":"i"}`,
		}, []uint32{0, 2, 1}},
		{"equal ones stay in order", []string{`{"input":"a"}`, `{"input":"a"}`, `{"input":"a"}`}, []uint32{0, 1, 2}},
		{"requests without a prompt are kept", []string{`{"prompt":"a"}`, `{}`, ``}, []uint32{1, 2, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			w := newWindow(100, 1000)
			for round := range 2 { // it can be filled again
				for i, body := range tt.bodies {
					w.add(proto.Request{Index: uint32(i), Body: []byte(body)}, "m")
				}

				var got []uint32
				for _, r := range w.sorted() {
					got = append(got, r.Index)
					if r.model != "m" || string(r.Body) != tt.bodies[r.Index] {
						t.Errorf("request %d came out as %s for %s", r.Index, r.Body, r.model)
					}
				}

				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("round %d: order (-want +got):\n%s", round, diff)
				}

				if w.reset(); !w.isEmpty() {
					t.Error("it is not empty afterwards")
				}
			}
		})
	}
}

func TestWindowIsFull(t *testing.T) {
	t.Parallel()

	w := newWindow(2, 100)
	for _, step := range []struct {
		bytes int
		full  bool
	}{{10, false}, {10, true}, {99, false}, {1, true}, {100, true}} {
		if w.add(proto.Request{Body: make([]byte, step.bytes)}, "m"); w.isFull() != step.full {
			t.Errorf("full: %t with %d requests of %d bytes", w.isFull(), len(w.requests), w.bytes)
		}

		if !step.full {
			continue
		}

		if w.reset(); w.isFull() {
			t.Error("it is still full")
		}
	}
}

const smallWindow = 4000 // requests

// grouping cuts an input from a checkpoint on, and returns the shards and the checkpoints.
func grouping(
	t *testing.T, file string, s proto.Settings, requests int, from proto.Checkpoint,
) (shards []proto.Shard, points []proto.Checkpoint) {
	t.Helper()

	in, err := NewReader(t.Context(), Source{Files: []string{file}}, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()

	if err := in.Seek(from); err != nil {
		t.Fatal(err)
	}

	r := roundPublisher{
		manifest: proto.Manifest{Settings: s},
		in:       in,
		window:   newWindow(smallWindow, 1<<20),
		cutter:   newCutter(s, 0, requests-int(from.Index)),
	}

	r.cutter.index = from.Shard

	for {
		item, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}

		cut, err := r.cutItem(item)
		if err != nil {
			t.Fatal(err)
		}

		for _, s := range cut {
			shards = append(shards, s.shard)
		}

		if r.isBetweenShards() {
			point := in.Checkpoint()
			point.Shard = r.cutter.index
			points = append(points, point)
		}
	}

	for _, s := range r.cutAll() {
		shards = append(shards, s.shard)
	}

	return shards, points
}

// A producer that continues at a checkpoint between two windows cuts the same shards. Each request
// is in them once, beside the requests that begin alike.
func TestGroupByPrefix(t *testing.T) {
	t.Parallel()

	s := proto.Settings{Model: "m", ShardSize: 32, ShardBytes: 64 << 10, Workers: 4, GroupByPrefix: true}
	rows := s
	rows.Rows = &proto.Rows{Prompt: "{{.text}}"}

	t.Run("lines", func(t *testing.T) {
		t.Parallel()
		testGroupByPrefix(t, s, "", `{"model":"m","prompt":"%d: %d"}`+"\n")
	})
	t.Run("rows", func(t *testing.T) {
		t.Parallel()
		testGroupByPrefix(t, rows, "text\n", "%d: %d\n")
	})
}

// testGroupByPrefix groups an input with a header and a line for each request.
func testGroupByPrefix(t *testing.T, s proto.Settings, header, line string) {
	t.Helper()

	const beginnings = 50
	requests := 2*smallWindow + 1000
	var text strings.Builder
	text.WriteString(header)

	random := rand.New(rand.NewPCG(1, 2))
	for i := range requests {
		fmt.Fprintf(&text, line, random.IntN(beginnings), i)
	}

	file := writeFile(t, "in", text.String())

	shards, points := grouping(t, file, s, requests, proto.Checkpoint{})
	seen, kinds := roaring.New(), 0
	for _, shard := range shards {
		here := map[string]bool{}
		for i, r := range shard.Requests {
			if !seen.CheckedAdd(r.Index) {
				t.Fatalf("request %d is in two shards", r.Index)
			}

			if i > 0 && r.Index <= shard.Requests[i-1].Index {
				t.Fatalf("shard %s does not ascend", shard.ID)
			}

			beginning, _, _ := strings.Cut(string(r.Body), ": ")
			here[beginning] = true
		}

		kinds += len(here)
	}

	if int(seen.GetCardinality()) != requests {
		t.Errorf("%d requests of %d are in shards", seen.GetCardinality(), requests)
	}

	// Each shard begins one, and each of a window's beginnings begins in one.
	if most := len(shards) + 3*beginnings; kinds > most {
		t.Errorf("shards hold %d beginnings, want %d at most", kinds, most)
	}

	if len(points) != 2 {
		t.Fatalf("%d checkpoints, want one after each full window", len(points))
	}

	for _, point := range points {
		rest, _ := grouping(t, file, s, requests, point)
		if diff := cmp.Diff(outline(shards[point.Shard:]), outline(rest)); diff != "" {
			t.Errorf("from request %d (-whole +from there):\n%.2000s", point.Index, diff)
		}
	}
}
