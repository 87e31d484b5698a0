package main

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// inputKind describes an input.
type inputKind struct {
	requests, size int // size: bytes of a request, about
	prefixes       int // the requests share as many beginnings, of four fifths of their size; 0: none
	sorted         bool
	// format is "csv" or "parquet" for a table of rows with the prompts in the column text.
	// Empty: lines of requests.
	format string
}

var words = strings.Fields("the customer wrote that payment failed after an update and asks for a refund of order number since delivery was late again this month")

// frame is the size of an input line besides its prompt, in bytes, about.
const frame = 130

// appendText appends words to a length. Equal numbers make equal texts.
func appendText(dst []byte, length int, x uint64) []byte {
	for end := len(dst) + length; len(dst) < end; {
		x = x*6364136223846793005 + 1442695040888963407
		dst = append(append(dst, words[x>>33%uint64(len(words))]...), ' ')
	}
	return dst
}

// makeInput writes an input, if the section has none of its kind yet, and returns its path.
// It is written line by line: see [process].
func (b *bench) makeInput(kind inputKind) (string, error) {
	if path, ok := b.inputs[kind]; ok {
		return path, nil
	}

	path := filepath.Join(b.dir, fmt.Sprintf("input-%d.jsonl", len(b.inputs)))
	file, err := os.Create(path)
	if err != nil {
		return "", fmt.Errorf("write an input: %w", err)
	}
	defer file.Close()

	b.inputs[kind] = path
	w := bufio.NewWriter(file)
	order := rand.New(rand.NewPCG(1, 2)).Perm(kind.requests)
	var prompt bytes.Buffer
	for i := range kind.requests {
		prompt.Reset()
		content := prompt.AvailableBuffer()
		n, beginning := i, 0
		if kind.prefixes > 0 {
			if !kind.sorted {
				n = order[i]
			}
			beginning = kind.size * 4 / 5
			content = appendText(content, beginning, uint64(n*kind.prefixes/kind.requests))
		}

		content = fmt.Appendf(content, "%d ", n)
		content = appendText(content, max(0, kind.size-beginning-frame), uint64(n))
		prompt.Write(content)
		fmt.Fprintf(w,
			`{"custom_id":"r-%d","method":"POST","url":"/v1/chat/completions","body":{"model":"sim","messages":[{"role":"user","content":"%s"}]}}`+
				"\n",
			n, prompt.Bytes())
	}

	if err := w.Flush(); err != nil {
		return "", fmt.Errorf("write an input: %w", err)
	}

	return path, file.Close()
}
