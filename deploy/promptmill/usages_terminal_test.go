package main

import "testing"

func TestUsageOfTerminal(t *testing.T) {
	t.Parallel()

	files := map[string]string{"in.jsonl": `{"prompt":"hello"}` + "\n"}
	hint := "give one of auto, bar, plain, json and none"
	testUsages(t, []usage{
		{
			args:  "run in.jsonl --sim --progress fancy",
			files: files,
			err:   `--progress "fancy" is no way to show progress`,
			hint:  hint,
			code:  2,
		},
		{
			args:  "run in.jsonl --sim --progress=",
			files: files,
			err:   `--progress "" is no way to show progress`,
			hint:  hint,
			code:  2,
		},
		{
			args:  "run in.jsonl --sim --progress JSON",
			files: files,
			err:   `--progress "JSON" is no way to show progress`,
			hint:  hint,
			code:  2,
		},
		{
			args:  "run in.jsonl --sim",
			env:   []string{"PROMPTMILL_PROGRESS=off"},
			files: files,
			err:   `--progress "off" is no way to show progress`,
			hint:  hint,
			code:  2,
		},
		{
			args:  "submit in.jsonl --model sim --progress fancy",
			files: files,
			err:   `--progress "fancy" is no way to show progress`,
			hint:  hint,
			code:  2,
		},
	})
}
