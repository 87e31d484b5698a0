package main

import "testing"

func TestUsageOfShards(t *testing.T) {
	t.Parallel()

	files := map[string]string{"in.jsonl": `{"prompt":"hello"}` + "\n"}
	testUsages(t, []usage{
		{
			args:  "run in.jsonl --sim --shard-size 0",
			files: files,
			err:   "--shard-size 0: must be from 1 to 4096",
			hint:  "for example --shard-size 32",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim --shard-size -1",
			files: files,
			err:   "--shard-size -1: must be from 1 to 4096",
			hint:  "for example --shard-size 32",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim --shard-size 4097",
			files: files,
			err:   "--shard-size 4097: must be from 1 to 4096",
			hint:  "for example --shard-size 32",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim --shard-size abc",
			files: files,
			err:   "--shard-size abc: must be a whole number",
			hint:  "for example --shard-size 8",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim --shard-size 1e9",
			files: files,
			err:   "--shard-size 1e9: must be a whole number",
			hint:  "for example --shard-size 8",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim",
			env:   []string{"PROMPTMILL_SHARD_SIZE=0"},
			files: files,
			err:   "--shard-size 0: must be from 1 to 4096",
			hint:  "for example --shard-size 32",
			code:  2,
		},
		{
			args:  "submit in.jsonl --shard-size 0",
			files: files,
			err:   "--shard-size 0: must be from 1 to 4096",
			hint:  "for example --shard-size 32",
			code:  2,
		},
	})
}
