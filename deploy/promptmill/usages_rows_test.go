package main

import "testing"

// Flags of rows that are wrong, or that do nothing.
func TestUsageOfRowFlags(t *testing.T) {
	t.Parallel()

	table := map[string]string{
		"in.csv":     "id,text\n1,hello\n2,bye\n",
		"prompt.txt": " \n",
		"latin1.txt": "caf\xe9 {{.text}}\n",
	}

	const templates = "--prompt, --prompt-file or --messages"

	var usages []usage
	for args, want := range map[string]struct{ err, hint string }{
		"--format csv":        {"--format needs " + templates, "give --prompt too, or leave out --format"},
		"--columns id,text":   {"--columns needs " + templates, "give --prompt too, or leave out --columns"},
		"--delimiter ;":       {"--delimiter needs " + templates, "give --prompt too, or leave out --delimiter"},
		"--encoding utf-16le": {"--encoding needs " + templates, "give --prompt too, or leave out --encoding"},
		"--system x":          {"--system needs " + templates, "give --prompt too, or leave out --system"},
		"--image photo":       {"--image needs " + templates, "give --prompt too, or leave out --image"},
		"--custom-id id":      {"--custom-id needs " + templates, "give --prompt too, or leave out --custom-id"},

		"--prompt=":              {"--prompt is empty", "for example --prompt 'Classify: {{.text}}'"},
		"--prompt a --system=":   {"--system is empty", "for example --system 'You answer in one word.'"},
		"--messages=":            {"--messages names no column", "give --messages COLUMN, or leave it out"},
		"--prompt a --image=":    {"--image names no column", "give --image COLUMN, or leave it out"},
		"--prompt a --prompt b":  {"--prompt is given twice", "leave out one of them"},
		"--prompt-file none.txt": {"--prompt-file none.txt: no such file or directory", ""},
		"--prompt a --image b --image b": {
			"--image b is given twice", "leave out one of them",
		},
		"--prompt a --prompt-file prompt.txt": {
			"--prompt and --prompt-file both have the prompt", "leave out one of them",
		},
		"--prompt-file prompt.txt": {
			"--prompt-file prompt.txt: the file is empty",
			"it has the text of the prompt, such as Classify: {{.text}}",
		},
		"--prompt-file latin1.txt": {
			"--prompt-file latin1.txt: the file is not text in UTF-8", "save it as UTF-8",
		},

		"--prompt a --format xlsx": {
			`there is no table format "xlsx"`, "want csv, tsv, parquet, jsonl, json or text",
		},
		"--prompt a --encoding utf-7": {
			`there is no encoding "utf-7"`, "for example --encoding windows-1252, shift_jis or utf-16le",
		},
		"--prompt a --format parquet --encoding utf-8": {
			"--encoding is for text, and the format is parquet", "leave out --encoding",
		},
		"--prompt a --format json --columns a": {
			"--columns is for CSV, and the format is json", "leave out --columns",
		},
		"--prompt a --format text --delimiter ;": {
			"--delimiter is for CSV, and the format is text", "leave out --delimiter",
		},
		"--prompt a --delimiter ||": {
			"--delimiter '||': must be one character, and no quote", `for example --delimiter ';' or --delimiter '\t'`,
		},
		"--prompt a --columns a,b,a": {"--columns names a twice", "for example --columns id,text"},
		"--prompt a --columns a,,b":  {"--columns a,,b: column 2 has no name", "for example --columns id,text"},
		`--prompt a --columns a,"b`: {
			`--columns 'a,"b': this is not one line of CSV`,
			`for example --columns id,text, with quotes around a name with a comma: --columns '"last, first",text'`,
		},

		"--prompt a --limit 0":   {"--limit 0: must be at least 1", ""},
		"--prompt a --sample -1": {"--sample -1: must be at least 1", ""},
		"--prompt a --limit 2 --sample 2": {
			"--limit runs the first requests of the input, and --sample some of all", "leave out one of them",
		},
		"--prompt a --endpoint /v1/chat": {
			`there is no endpoint "/v1/chat"`,
			"want /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses, /v1/rerank or /v1/score",
		},
		"--prompt a --endpoint /v1/score": {
			"no request of /v1/score can be made of a row",
			"want /v1/chat/completions, /v1/completions or /v1/embeddings",
		},
		"--prompt a --system b --endpoint /v1/embeddings": {
			"--system needs messages, which a request of /v1/embeddings does not have",
			"leave out --system, or --endpoint",
		},
		"--prompt a --set temperature=cold": {
			`--set temperature=cold: "cold" is not JSON`, "for example --set temperature=0.7",
		},
	} {
		usages = append(usages, usage{
			args:  "run in.csv --sim " + args,
			files: table,
			err:   want.err,
			hint:  want.hint,
			code:  2,
		})
	}

	testUsages(t, usages)
}
