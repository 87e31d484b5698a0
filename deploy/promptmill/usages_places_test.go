package main

import "testing"

// Outputs at URLs that are refused without a store.
func TestUsageOfOutputURL(t *testing.T) {
	t.Parallel()

	const endings = ".jsonl.zst, or for a table in .csv, .tsv, .parquet, .jsonl or .jsonl.gz"

	var usages []usage
	for args, want := range map[string]struct{ err, hint string }{
		"-o s3://bucket":          {"-o s3://bucket names no file", "for example -o s3://bucket/results.jsonl.zst"},
		"-o s3://bucket/d/.csv":   {"-o s3://bucket/d/.csv names no file", "for example -o s3://bucket/d/results.csv"},
		"-o s3://bucket/dir/":     {"-o s3://bucket/dir/ names no file", "for example -o s3://bucket/dir/results.jsonl.zst"},
		"-o gs://bucket/out.xlsx": {"-o gs://bucket/out.xlsx: must end in " + endings, "for example -o gs://bucket/out.csv"},
		"-o s3:///out.csv":        {"s3:///out.csv has no bucket: write s3://BUCKET/KEY", ""},
		"-o s3://b/out.csv": {
			"s3://b/out.csv: b cannot be the name of a bucket",
			"the name of a bucket has 3 to 63 letters, digits, dots and hyphens",
		},
		"-o s3://bucket/a/../out.csv": {
			"s3://bucket/a/../out.csv: a key of an output has no empty part, and none that is . or ..",
			"write s3://bucket/out.csv",
		},
		"-o https://host/out.csv": {
			"https://host/out.csv cannot be written", "write it to s3://BUCKET/KEY, to gs://BUCKET/KEY, or to a file",
		},
		"-o hf://datasets/a/b/out.csv": {
			"hf://datasets/a/b/out.csv cannot be written",
			"write it to s3://BUCKET/KEY, to gs://BUCKET/KEY, or to a file",
		},
		"-o s3://bucket/out.jsonl.zst --shards 3": {
			"--shards 3: only a table has several files, and s3://bucket/out.jsonl.zst is none",
			"for example -o s3://bucket/out.csv",
		},
		"-o s3://bucket/out.csv --plain": {
			"--plain takes out what a table needs of the output lines", "leave out --plain",
		},
	} {
		usages = append(usages, usage{
			args:  "run in.csv --prompt {{.text}} --sim " + args,
			files: map[string]string{"in.csv": "text\nhello\n"},
			err:   want.err,
			hint:  want.hint,
			code:  2,
		})
	}

	testUsages(t, usages)
}

// Results at URLs that are no stores.
func TestUsageOfResultsURL(t *testing.T) {
	t.Parallel()

	files := map[string]string{"in.csv": "text\nhello\n"}
	testUsages(t, []usage{
		{
			args:  "verify in.csv https://host/out.csv",
			files: files,
			err:   "https://host/out.csv: only results at s3:// and gs:// are read",
			hint:  "download it, with the files beside it",
			code:  2,
		},
		{
			args:  "export https://host/out.jsonl.zst in.csv -o t.csv",
			files: files,
			err:   "https://host/out.jsonl.zst: only results at s3:// and gs:// are read",
			hint:  "download it, with the files beside it",
			code:  2,
		},
		{
			args:  "export s3://bucket/out.jsonl.zst in.csv -o s3://bucket/t.xlsx",
			files: files,
			err:   "-o s3://bucket/t.xlsx: must end in .csv, .tsv, .parquet, .jsonl or .jsonl.gz",
			hint:  "for example: promptmill export out.jsonl.zst tickets.csv -o out.csv",
			code:  2,
		},
	})
}
