package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
)

// tooMuch is more tokens than the model server has room for, so that it refuses the
// request for good.
const tooMuch = 2 << 20

// writeInput writes the input of a run: prompts of many sizes and with all that JSON
// has, each of its own, and a few requests that must fail.
func writeInput(path, run string, requests int, random *rand.Rand) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write the input: %w", err)
	}
	defer file.Close()

	w := bufio.NewWriter(file)
	for i := range requests {
		more := ""
		if random.IntN(100) == 0 {
			more = fmt.Sprintf(`,"max_tokens":%d`, tooMuch)
		}

		fmt.Fprintf(w,
			`{"custom_id":"%s-%d","method":"POST","url":"/v1/chat/completions","body":{"model":%q,"messages":[{"role":"user","content":"%s %d \u0000 \ud83d\ude00 ü \/ %s"}],"x":12345678901234567890%s}}`+
				"\n",
			run, i, modelName, run, i, randomText(random), more)
	}

	return w.Flush()
}

// randomText is the rest of a prompt: short for most, and more than a bus takes in one
// message for a few.
func randomText(random *rand.Rand) string {
	switch n := random.IntN(2000); {
	case n == 0:
		noise := make([]byte, 1_200_000)
		for i := range noise {
			noise[i] = byte(random.Uint32())
		}
		return base64.StdEncoding.EncodeToString(noise)
	case n < 40:
		return strings.Repeat("again and again, ", random.IntN(2000))
	}

	return strings.Repeat("word ", random.IntN(60))
}
