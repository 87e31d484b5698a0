package main

import "testing"

// Tables that cannot be written, or that would replace something else.
func TestUsageOfTableOutputs(t *testing.T) {
	t.Parallel()

	files := map[string]string{
		"in.csv":    "id,text\n1,hello\n2,bye\n",
		"other.csv": "x",
		"in.jsonl":  `{"prompt":"a"}` + "\n",
	}

	const (
		rows    = "run in.csv --sim --prompt {{.text}} "
		results = "promptmill export out.jsonl.zst tickets.csv -o out.csv"
		endings = ".csv, .tsv, .parquet, .jsonl or .jsonl.gz"
	)

	var usages []usage
	for args, want := range map[string]struct{ err, hint string }{
		"export": {
			"want the results of a run, the files of its input, and -o FILE", "for example: " + results,
		},
		"export in.csv in.csv -o t.csv": {
			"in.csv: want the results of a run first, which end in .jsonl.zst", "for example: " + results,
		},
		"export out.jsonl.zst in.csv": {"-o is missing: the table to write", "for example: " + results},
		"export out.jsonl.zst in.csv -o t.xlsx": {
			"-o t.xlsx: must end in " + endings, "for example: " + results,
		},
		"export out.jsonl.zst in.csv -o t.csv": {
			"out.meta.json is not there", "give the results of a run, with the files that the run wrote beside them",
		},
		"export out.jsonl.zst in.csv -o t.csv --shards 0": {
			"--shards 0: must be from 1 to 99999", "for example --shards 16",
		},
		"export out.jsonl.zst in.csv -o none/t.csv": {
			"the folder of the output, none, is not there", "make it first",
		},
		"export out.jsonl.zst in.csv -o https://host/t.csv": {
			"https://host/t.csv cannot be written",
			"write it to s3://BUCKET/KEY, to gs://BUCKET/KEY, or to a file",
		},

		rows + "-o in.csv": {
			"the input in.csv is the table in.csv, which the run would write", "choose another output with -o",
		},
		rows + "-o t.xlsx": {
			"-o t.xlsx: must end in .jsonl.zst, or for a table in " + endings, "for example -o t.csv",
		},
		rows + "-o t.csv --plain":    {"--plain takes out what a table needs of the output lines", "leave out --plain"},
		rows + "-o t.csv --shards 0": {"--shards 0: must be from 1 to 99999", "for example --shards 16"},
		rows + "--shards 2": {
			"--shards 2: only a table has several files, and in.results.jsonl.zst is none",
			"for example -o in.results.csv",
		},
		rows + "-o t.jsonl.zst --shards 2": {
			"--shards 2: only a table has several files, and t.jsonl.zst is none", "for example -o t.csv",
		},
		"submit in.csv --prompt {{.text}} -o t.csv": {
			"-o needs this command to stay",
			"give --wait too, or leave -o out and let promptmill serve collect the run",
		},

		rows + "-o hf://datasets/me/set/t.csv": {
			"hf://datasets/me/set/t.csv cannot be written",
			"write it to s3://BUCKET/KEY, to gs://BUCKET/KEY, or to a file",
		},
		"run s3:// --sim --prompt {{.text}}": {"s3:// has no bucket: write s3://BUCKET/KEY", ""},
		"run ftp://host/in.csv --sim --prompt {{.text}}": {
			"input ftp://host/in.csv: there is no such file, and URLs with ftp: are not read",
			"an input is a file, or a URL that begins with s3://, gs://, https://, http:// or hf://datasets/",
		},

		rows + "--dry-run --sample 0": {"--sample 0: must be at least 1", ""},
		"run in.csv --sim --dry-run": {
			"in.csv looks like CSV, not JSONL with one request a line",
			"say what to ask of each row, in a template with its columns: --prompt '... {{.text}}'",
		},
		"submit in.csv --dry-run --prompt {{.txt}}": {
			"in.csv: --prompt: the table has no column txt", "did you mean {{.text}}?",
		},
	} {
		usages = append(usages, usage{
			args:  args,
			files: files,
			err:   want.err,
			hint:  want.hint,
			code:  2,
		})
	}

	usages = append(usages, usage{
		args:  rows + "-o other.csv",
		files: files,
		err:   "other.csv is there, and was not written by this run",
		hint:  "move it away, or choose another output with -o",
		code:  1,
	})

	testUsages(t, usages)
}
