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
		{
			args: "join reader --details --json",
			err:  "--details and --json print the same, for people and for programs",
			hint: "leave out one of them",
			code: 2,
		},
		{
			args: "join python --json",
			err:  `there is no role "python"`,
			hint: "want worker, producer, collector or reader",
			code: 2,
		},
	})
}
