package main

import "testing"

func TestUsageOfWire(t *testing.T) {
	t.Parallel()

	files := map[string]string{"in.jsonl": `{"prompt":"hello"}` + "\n"}
	testUsages(t, []usage{
		{
			args:  "run in.jsonl --sim --shard-encoding gzip",
			files: files,
			err:   `there is no shard encoding "gzip"`,
			hint:  "want snappy, zstd or none",
			code:  2,
		},
		{
			args:  "submit in.jsonl --model m",
			env:   []string{"PROMPTMILL_SHARD_ENCODING=Zstd"},
			files: files,
			err:   `there is no shard encoding "Zstd"`,
			hint:  "want snappy, zstd or none",
			code:  2,
		},
	})
}
