package sample

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
)

// BenchmarkDraw draws 20,000 requests of a file of 1 GB, and validates the same file, in turns:
//
//	go test -v -run - -bench Draw -benchtime 3x ./producer/sample
func BenchmarkDraw(b *testing.B) {
	const size = 1_000_000_000
	file := writeRequests(b, size)
	source := producer.Source{Files: []string{file}}

	for range 3 {
		b.Run("validate", func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				if _, _, err := producer.Validate(b.Context(), source, proto.Settings{}, nil); err != nil {
					b.Fatal(err)
				}
			}
		})

		b.Run("draw", func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				cfg := Config{
					Source: source,
					Size:   20_000,
					Expect: "label",
				}
				if _, err := Draw(b.Context(), cfg, io.Discard, io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// writeRequests writes a file of requests with prompts of up to 4 KB.
func writeRequests(b *testing.B, size int) string {
	b.Helper()

	path := filepath.Join(b.TempDir(), "in.jsonl")
	file, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()

	random := rand.New(rand.NewPCG(1, 2))
	words := strings.Repeat("some words of a prompt, ", 160)
	to := bufio.NewWriter(file)

	for i, written := 0, 0; written < size; i++ {
		n, err := fmt.Fprintf(to, `{"custom_id":"id-%d","method":"POST","url":"/v1/chat/completions","label":"%d",`+
			`"body":{"model":"m","temperature":0.7,"max_tokens":256,"messages":[{"role":"user","content":"%s"}]}}`+"\n",
			i, i%7, words[:random.IntN(len(words))])
		if err != nil {
			b.Fatal(err)
		}
		written += n
	}

	if err := to.Flush(); err != nil {
		b.Fatal(err)
	}

	return path
}

// BenchmarkBalance prints how far the mean length of a beginning is off: at random, with one request of each of 32
// parts by turns, and as drawn.
//
//	go test -v -run - -bench Balance -benchtime 1x ./producer/sample
func BenchmarkBalance(b *testing.B) {
	const samples, size = 300, 20_000
	beginnings := []int{64, 100, 256, 1000}
	random := rand.New(rand.NewPCG(3, 4))
	squares := map[string][]float64{}

	for b.Loop() {
		clear(squares)
		for range samples {
			lengths := make([]float64, size)
			for i := range lengths {
				lengths[i] = math.Exp(random.NormFloat64())
			}

			shuffled := slices.Clone(lengths)
			slices.Sort(lengths)
			byTurns := takeTurns(lengths, 32, random)
			spread(lengths)

			for name, order := range map[string][]float64{"random": shuffled, "turns": byTurns, "drawn": lengths} {
				squares[name] = append(squares[name], offBy(order, beginnings)...)
			}
		}
	}

	for name, list := range squares {
		for i, n := range beginnings {
			sum := 0.0
			for at := i; at < len(list); at += len(beginnings) {
				sum += list[at] * list[at]
			}
			b.ReportMetric(100*math.Sqrt(sum/samples), fmt.Sprintf("%%-%s-%d", name, n))
		}
	}
}

// offBy returns how far the means of the first few lengths are from that of all, as parts of it.
func offBy(lengths []float64, beginnings []int) (off []float64) {
	mean := func(list []float64) float64 {
		sum := 0.0
		for _, l := range list {
			sum += l
		}
		return sum / float64(len(list))
	}

	for _, n := range beginnings {
		off = append(off, mean(lengths[:n])/mean(lengths)-1)
	}

	return off
}

// takeTurns returns sorted lengths in turns of one of each part, each part and each turn shuffled.
func takeTurns(sorted []float64, parts int, random *rand.Rand) (order []float64) {
	shuffle := func(list []float64) {
		random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}

	list := slices.Clone(sorted)
	size := len(list) / parts
	for part := range slices.Chunk(list, size) {
		shuffle(part)
	}

	for turn := range size {
		from := len(order)
		for at := turn; at < len(list); at += size {
			order = append(order, list[at])
		}
		shuffle(order[from:])
	}

	return order
}
