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
		"--prompt @prompt.txt": {
			"--prompt @prompt.txt: this is the name of a file, and not a template",
			"to read the prompt from the file, give --prompt-file prompt.txt",
		},
		"--prompt prompt.txt": {
			"--prompt prompt.txt: this is the name of a file, and not a template",
			"to read the prompt from the file, give --prompt-file prompt.txt",
		},
		"--prompt a --system prompt.txt": {
			"--system prompt.txt: this is the name of a file, and not a template",
			`the value of --system is the text itself: --system "$(cat prompt.txt)"`,
		},
		"--prompt -o out.csv": {
			"--prompt has no value: -o behind it looks like a flag", "for example --prompt 'Classify: {{.text}}'",
		},
		"--prompt a --schema {}": {
			"--schema {}: no such file or directory",
			"write the schema into a file, and give its name: --schema schema.json",
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

	const header = "; if its first line is no header, give --columns, and for another separator --delimiter"
	for text, hint := range map[string]string{
		"1,hello\n2,bye\n":          "the table has the columns 1, hello" + header,
		"id~text\n1~hello\n2~bye\n": `the one column is {{index . "id~text"}}` + header,
	} {
		usages = append(usages, usage{
			args:  "run in.csv --sim --prompt {{.question}}",
			files: map[string]string{"in.csv": text},
			err:   "in.csv: --prompt: the table has no column question",
			hint:  hint,
			code:  2,
		})
	}

	usages = append(usages, usage{
		args:  "run in.json --sim --prompt {{.text}}",
		files: map[string]string{"in.json": `{"text":{"0":"a","1":"b"}}`},
		err:   "in.json is one JSON document with all rows of a table; promptmill reads an object of each row",
		hint:  `write it as records: df.to_json("rows.jsonl", orient="records", lines=True)`,
		code:  2,
	})

	const sends = "2 of 2 rows cannot be sent; nothing was sent"
	for args, want := range map[string]struct{ text, err, hint string }{
		"run in.csv --sim --prompt {{.txt}}": {
			"", "in.csv: --prompt: the table has no column txt", "did you mean {{.text}}?",
		},
		"run in.csv --sim --prompt {text}": {
			"", "--prompt: {text} is not replaced",
			`the column text is {{.text}}; for the braces themselves, write {{"{text}"}}`,
		},
		"run in.csv --sim --prompt hello": {
			"", "--prompt: it names no column, so all rows would have the same prompt",
			"a column is {{.id}}; the table has the columns id, text, none",
		},
		"run in.csv --sim --prompt {{.none}}": {
			"in.csv: 2 rows have nothing in the column none: row 1 (request-1), row 2 (request-2)\n",
			sends, `say in the template what stands for an empty cell: {{default "none" .none}}`,
		},
		"run in.csv --sim --messages none": {
			"in.csv: 2 rows have nothing in the column none: row 1 (request-1), row 2 (request-2)\n",
			sends, "fill the column, or name another with --messages",
		},
		"run in.csv --sim --prompt {{.text}} --custom-id none": {
			"in.csv: 2 rows have nothing in the column none: row 1 (request-1), row 2 (request-2)\n",
			sends, "leave out --custom-id, or name a column that has a value in each row",
		},
		"run in.csv --sim --prompt {{.text}} --image none": {
			"in.csv: 2 rows have nothing in the column none: row 1 (request-1), row 2 (request-2)\n",
			sends, "fill the column, or name another with --image",
		},
		"run in.csv --sim --prompt {{.text}} --image text": {
			"in.csv: 2 rows have a value in the column text that cannot be used: " +
				"row 1 (request-1): there is no file DIR/hello; row 2 (request-2): there is no file DIR/bye\n",
			sends, "the column has the bytes, a URL or the path of a PNG, JPEG, GIF or WebP image; " +
				"paths are relative to the folder of the table",
		},
		"run in.csv --sim --messages text": {
			"in.csv: 2 rows have a value in the column text that cannot be used: " +
				"row 1 (request-1), row 2 (request-2): it has no list of messages\n",
			sends, `the column has lists such as [{"role": "user", "content": "..."}]; ` +
				"a column of texts goes into --prompt: '... {{.text}}'",
		},
		"run in.csv --sim --prompt {{.text}} --set user={{.text}}": {
			"in.csv: 2 rows have a value in the column text that cannot be used: " +
				"row 1 (request-1), row 2 (request-2): it is not JSON, as the value of user must be\n",
			sends, "a text is --set 'user={{json .text}}'",
		},
		"run in.csv --sim --prompt {{.text.x}}": {
			"in.csv: 2 rows cannot be rendered: row 1 (request-1), row 2 (request-2): " +
				"--prompt does not work with its values at {{.text.x}}: the value has no .x\n",
			sends, "fix the template",
		},
		"doctor in.csv --prompt {{.txt}}": {
			"", "in.csv: --prompt: the table has no column txt", "did you mean {{.text}}?",
		},
		"doctor --prompt {{.text}}": {
			"", "there is no INPUT for the rows", "name the table, or leave out the prompt",
		},
		"doctor in.csv --endpoint /v1/embeddings": {
			"", "--endpoint needs --prompt, --prompt-file or --messages", "give --prompt too, or leave out --endpoint",
		},
	} {
		usages = append(usages, usage{
			args:  args,
			files: map[string]string{"in.csv": "id,text,none\n1,hello,\n2,bye,\n"},
			text:  want.text,
			err:   want.err,
			hint:  want.hint,
			code:  2,
		})
	}

	testUsages(t, usages)
}
