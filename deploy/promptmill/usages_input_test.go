package main

import (
	"strings"
	"testing"
)

// csvCommand is the command that makes requests of a table with the columns id and prompt.
const csvCommand = `python3 -c 'import csv, json; [print(json.dumps({"custom_id": r["id"], ` +
	`"messages": [{"role": "user", "content": r["prompt"]}]})) ` +
	`for r in csv.DictReader(open(0, encoding="utf-8-sig", newline=""))]' < in.csv > in.jsonl`

// A file of another format is named, once, with the command that converts it.
func TestUsageOfInputFormats(t *testing.T) {
	t.Parallel()

	const answer = `{"id":"batch_req_abc","custom_id":"a","response":{"status_code":200,"body":{}},"error":null}` + "\n"
	// A command that takes --prompt names a column of a table in its hint.
	columns := map[string]string{
		"in.csv":       ".prompt",
		"in.txt":       ".text",
		"tickets.json": `index . "the text"`,
	}
	for name, u := range map[string]usage{
		"tickets.json": {
			files: map[string]string{"tickets.json": `[{"id":1,"the text":"a"}]` + "\n"},
			err:   "tickets.json looks like one JSON array, not JSONL with one request a line",
			hint:  "convert it, and give tickets.jsonl: jq -c '.[]' tickets.json > tickets.jsonl",
		},
		"in.csv": {
			files: map[string]string{"in.csv": "id,prompt\n1,hello\n2,bye\n"},
			err:   "in.csv looks like CSV, not JSONL with one request a line",
			hint:  "convert it, and give in.jsonl: " + csvCommand,
		},
		"in.json": {
			files: map[string]string{"in.json": `[{"prompt":"a"},` + "\n" + `{"prompt":"b"}]` + "\n"},
			err:   "in.json looks like one JSON array, not JSONL with one request a line",
			hint:  "convert it, and give in.jsonl: jq -c '.[]' in.json > in.jsonl",
		},
		"array.jsonl": {
			files: map[string]string{"array.jsonl": `["hello","bye"]`},
			err:   "array.jsonl looks like one JSON array, not JSONL with one request a line",
			hint: "convert it, and give array.new.jsonl: jq -c '.[] | {messages: [{role: \"user\", content: .}]}' " +
				"array.jsonl > array.new.jsonl",
		},
		"pretty.jsonl": {
			files: map[string]string{"pretty.jsonl": "{\n  \"prompt\": \"a\"\n}\n"},
			err:   "pretty.jsonl looks like one JSON document, not JSONL with one request a line",
			hint:  "convert it, and give pretty.new.jsonl: jq -c '.' pretty.jsonl > pretty.new.jsonl",
		},
		"in.txt": {
			files: map[string]string{"in.txt": "What is a mill?\nWhat is a prompt?\n"},
			err:   "in.txt looks like plain text, not JSONL with one request a line",
			hint: "convert it, and give in.jsonl: jq -Rc 'select(. != \"\") | {messages: [{role: \"user\", content: .}]}' " +
				"in.txt > in.jsonl",
		},
		"latin1.txt": {
			files: map[string]string{"latin1.txt": "caf\xe9\n"},
			err:   "latin1.txt looks like text that is not UTF-8, not JSONL with one request a line",
			hint:  "convert it, and give latin1.jsonl: iconv -f WINDOWS-1252 -t UTF-8 latin1.txt > latin1.jsonl",
		},
		"utf16.jsonl": {
			files: map[string]string{"utf16.jsonl": "\xff\xfe{\x00\"\x00a\x00\"\x00:\x001\x00}\x00"},
			err:   "utf16.jsonl looks like UTF-16 text, not JSONL with one request a line",
			hint:  "convert it, and give utf16.new.jsonl: iconv -f UTF-16 -t UTF-8 utf16.jsonl > utf16.new.jsonl",
		},
		"in.jsonl.xz": {
			files: map[string]string{"in.jsonl.xz": "\xfd7zXZ\x00\x00\x04"},
			err:   "in.jsonl.xz looks like an xz file, not JSONL with one request a line",
			hint:  "unpack it, and give in.jsonl: xz -dc in.jsonl.xz > in.jsonl",
		},
		"in.zip": {
			files: map[string]string{"in.zip": "PK\x03\x04\x14\x00"},
			err:   "in.zip looks like a zip archive, not JSONL with one request a line",
			hint:  "unpack it, and give in.jsonl: unzip -p in.zip > in.jsonl",
		},
		"in.xlsx": {
			files: map[string]string{"in.xlsx": "PK\x03\x04[Content_Types].xml xl/workbook.xml"},
			err:   "in.xlsx looks like an Excel workbook, not JSONL with one request a line",
			hint:  "save its sheet as CSV, and give that",
		},
		"in.parquet": {
			files: map[string]string{"in.parquet": "PAR1\x15\x04\x15"},
			err:   "in.parquet looks like a Parquet file, not JSONL with one request a line",
			hint: "convert it, and give in.jsonl: python3 -c 'import pandas, sys; pandas.read_parquet(sys.argv[1])" +
				".to_json(sys.argv[2], orient=\"records\", lines=True)' in.parquet in.jsonl",
		},
		"in.html": {
			files: map[string]string{"in.html": "<!DOCTYPE html>\n<html>Not found</html>\n"},
			err:   "in.html looks like HTML or XML, not JSONL with one request a line",
			hint:  "look at its beginning: it may be the error page of a download",
		},
		"in.pdf": {
			files: map[string]string{"in.pdf": "%PDF-1.7\n"},
			err:   "in.pdf looks like a PDF document, not JSONL with one request a line",
			hint:  `write each request as a JSON object on one line, such as {"prompt": "..."}`,
		},
		"out.jsonl": {
			files: map[string]string{"out.jsonl": answer},
			err:   "out.jsonl has answers, not requests",
			hint:  "give the input of that run; its command with --retry runs the failed requests again",
		},
		"mill.errors.jsonl": {
			files: map[string]string{
				"mill.errors.jsonl": `{"id":"batch_req_20261128-x_0","custom_id":"a","response":null,"error":{"code":"timeout"}}` + "\n",
			},
			err:  "mill.errors.jsonl has the failed requests of run 20261128-x, as output lines without their bodies",
			hint: "give the input of that run; its command with --retry runs the failed requests again",
		},
		"empty.jsonl": {
			files: map[string]string{"empty.jsonl": ""},
			err:   "empty.jsonl: no requests in the input",
			hint:  `it needs one request a line, such as {"prompt": "..."}`,
		},
		"cut.jsonl.gz": {
			files: map[string]string{"cut.jsonl.gz": "\x1f\x8b\x08\x00"},
			err:   "cut.jsonl.gz: the file cannot be unpacked: it is cut off, its gzip data ends in the middle",
			hint:  "copy or download it again",
		},
		"cut.jsonl.zst": {
			files: map[string]string{"cut.jsonl.zst": "\x28\xb5\x2f\xfd\x04"},
			err:   "cut.jsonl.zst: the file cannot be unpacked: it is cut off, its zstd data ends in the middle",
			hint:  "copy or download it again",
		},
	} {
		var usages []usage
		for _, args := range []string{
			"run " + name + " --sim", "run " + name + " --sim --skip-invalid", "verify " + name + " other.jsonl.zst",
		} {
			u.args, u.code = args, 2
			shown := u
			if column := columns[name]; column != "" && strings.HasPrefix(args, "run ") {
				shown.hint = "say what to ask of each row, in a template with its columns: --prompt '... {{" + column + "}}'"
			}
			usages = append(usages, shown)
		}
		if name == "empty.jsonl" { // it may have been the input of the output
			usages = usages[:2]
		}
		testUsages(t, usages)
	}
}

func TestUsageOfInputFiles(t *testing.T) {
	t.Parallel()

	testUsages(t, []usage{
		{
			args: "run nowhere.jsonl --sim",
			err:  "input nowhere.jsonl: no such file or directory",
			code: 2,
		},
		{
			args: "run *.jsonl --sim",
			err:  "input *.jsonl: no file matches",
			hint: "name a file that is there",
			code: 2,
		},
		{
			args: "run . --sim",
			err:  "input .: the folder has no files",
			hint: "name files, or a folder that has some",
			code: 2,
		},
		{
			args: "run /dev/null --sim",
			err:  "input /dev/null is a device",
			hint: "name a file of requests, or pipe them in, with - as the input",
			code: 2,
		},
		{
			args: "verify nowhere.jsonl out.jsonl.zst",
			err:  "input nowhere.jsonl: no such file or directory",
			code: 2,
		},
		{
			args: "verify . out.jsonl.zst",
			err:  "input .: the folder has no files",
			hint: "name files, or a folder that has some",
			code: 2,
		},
		{
			args: "run - --sim -o out.jsonl.zst",
			err:  "standard input: no requests in the input",
			hint: "check the command that writes it; a run is resumed with the same input",
			code: 2,
		},
	})
}

// Each reason for bad lines is printed once, with the first lines, and the hint repairs these lines.
func TestUsageOfInputLines(t *testing.T) {
	t.Parallel()

	const (
		skip  = "give --skip-invalid to run the others and have these in the errors file"
		good  = `{"custom_id":"good","prompt":"hello"}` + "\n"
		fixes = "fix them, or " + skip
	)

	for name, tt := range map[string]struct{ text, said, err, hint string }{
		"syntax": {
			text: good + "{'prompt': 'x'}\n" + `{"prompt": None}` + "\n",
			said: "in.jsonl: 2 lines are not JSON: line 2 (request-2): at byte 2, near 'prompt': 'x'} (JSON has double quotes); " +
				"line 3 (request-3): at byte 12, near None}",
			err:  "2 of 3 lines",
			hint: fixes,
		},
		"cut": {
			text: good + `{"custom_id":"a","prompt":"x`,
			said: "in.jsonl:2: a: the line ends in the middle of its JSON: after 28 bytes",
			err:  "1 of 2 lines",
			hint: fixes,
		},
		"two on a line": {
			text: `{"prompt":"x"} {"prompt":"y"}` + "\n",
			said: `in.jsonl:1: request-1: the line has text after its JSON object: at byte 16, near {"prompt":"y"}`,
			err:  "1 of 1 lines",
			hint: "fix them",
		},
		"arrays": {
			text: good + "[1]\n[2]\n[3]\n[4]\n",
			said: "in.jsonl: 4 lines are not JSON objects: line 2 (request-2): [1]; line 3 (request-3): [2]; " +
				"line 4 (request-4): [3]; ...",
			err:  "4 of 5 lines",
			hint: fixes,
		},
		"Latin-1": {
			text: good + "{\"prompt\":\"caf\xe9\"}\n",
			said: "in.jsonl:2: request-2: the line is not UTF-8: at byte 15",
			err:  "1 of 2 lines",
			hint: skip + "; or if it is Windows-1252, convert it, and give in.new.jsonl: " +
				"iconv -f WINDOWS-1252 -t UTF-8 in.jsonl > in.new.jsonl",
		},
		"other members": {
			text: `{"id":1,"question":"x"}` + "\n" + `{"id":2,"question":"y"}` + "\n",
			said: `in.jsonl: 2 lines have neither "body" nor "messages", "prompt" or "input": ` +
				`line 1 (request-1), line 2 (request-2): it has "id", "question"`,
			err: "2 of 2 lines",
			hint: "convert it, and give in.new.jsonl: jq -c '{messages: [{role: \"user\", content: .question}]}' " +
				"in.jsonl > in.new.jsonl",
		},
		"other members without a prompt": {
			text: `{"id":"1","conversations":[{"from":"human","value":"x"}]}` + "\n",
			said: `in.jsonl:1: request-1: the line has neither "body" nor "messages", "prompt" or "input": ` +
				`it has "id", "conversations"`,
			err:  "1 of 1 lines",
			hint: `give each line a "prompt" or "messages", such as {"prompt": "..."}`,
		},
		"an answer among requests": {
			text: good + `{"id":"x","custom_id":"a","response":{},"error":null}` + "\n",
			said: "in.jsonl:2: a: the line has an answer, and no request",
			err:  "1 of 2 lines",
			hint: fixes,
		},
		"the same id": {
			text: good + `{"custom_id":"a","prompt":"x"}` + "\n" + good + `{"custom_id":"a","prompt":"y"}` + "\n",
			said: "in.jsonl: 2 lines have the custom_id of an earlier line: line 3 (good): line 1; line 4 (a): line 2",
			err:  "2 of 4 lines",
			hint: skip + "; or give each request a custom_id of its own",
		},
		"an id that is a number": {
			text: `{"custom_id":7,"prompt":"x"}` + "\n" + `{"custom_id":8,"prompt":"x"}` + "\n",
			said: "in.jsonl: 2 lines have a custom_id that is empty or not a text: line 1 (7): 7; line 2 (8): 8",
			err:  "2 of 2 lines",
			hint: "convert it, and give in.new.jsonl: jq -c '.custom_id |= tostring' in.jsonl > in.new.jsonl",
		},
		"an unknown url": {
			text: `{"custom_id":"a","url":"/v1/messages","body":{}}` + "\n" + `{"custom_id":"b","url":"/v1/files","body":{}}` + "\n",
			said: `in.jsonl: 2 lines have an unknown url: line 1 (a): "/v1/messages", did you mean /v1/chat/completions?; ` +
				`line 2 (b): "/v1/files"`,
			err: "2 of 2 lines",
			hint: "use one of /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses, /v1/rerank, " +
				"/v1/score",
		},
		"no url": {
			text: `{"custom_id":"a","body":{"messages":[]}}` + "\n",
			said: "in.jsonl:1: a: the line has a body and no url",
			err:  "1 of 1 lines",
			hint: "convert it, and give in.new.jsonl: jq -c '.url = \"/v1/chat/completions\"' in.jsonl > in.new.jsonl",
		},
		"no body": {
			text: `{"custom_id":"a","url":"/v1/chat/completions"}` + "\n",
			said: "in.jsonl:1: a: the line has a url and no body",
			err:  "1 of 1 lines",
			hint: "fix them",
		},
		"a body that is a text": {
			text: `{"custom_id":"a","url":"/v1/chat/completions","body":"{}"}` + "\n",
			said: `in.jsonl:1: a: the line has a body that is not a JSON object: "{}"`,
			err:  "1 of 1 lines",
			hint: "fix them",
		},
		"no messages": {
			text: `{"custom_id":"a","url":"/v1/chat/completions","body":{"prompt":"x"}}` + "\n",
			said: `in.jsonl:1: a: the line has no "messages", which /v1/chat/completions needs`,
			err:  "1 of 1 lines",
			hint: "fix them",
		},
		"another method": {
			text: `{"custom_id":"a","method":"GET","url":"/v1/completions","body":{"prompt":"x"}}` + "\n",
			said: `in.jsonl:1: a: the line has a method other than POST: "GET"`,
			err:  "1 of 1 lines",
			hint: "convert it, and give in.new.jsonl: jq -c 'del(.method)' in.jsonl > in.new.jsonl",
		},
		"a stream": {
			text: good + `{"prompt":"x","stream":true}` + "\n",
			said: `in.jsonl:2: request-2: the line has "stream": true, which a batch cannot answer`,
			err:  "1 of 2 lines",
			hint: skip + "; or convert it, and give in.new.jsonl: " +
				"jq -c 'del(.stream, .background, .body.stream?, .body.background?)' in.jsonl > in.new.jsonl",
		},
		"a model that is a number": {
			text: `{"prompt":"x","model":7}` + "\n",
			said: "in.jsonl:1: request-1: the line has a model that is empty or not a text: 7",
			err:  "1 of 1 lines",
			hint: "fix them",
		},
		"twice": {
			text: `{"prompt":"x","prompt":"y"}` + "\n",
			said: `in.jsonl:1: request-1: the line has "prompt" twice`,
			err:  "1 of 1 lines",
			hint: "fix them",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testUsage(t, usage{
				args:  "run in.jsonl --sim",
				files: map[string]string{"in.jsonl": tt.text},
				text:  tt.said + "\n",
				err:   tt.err + " cannot be sent; nothing was sent",
				hint:  tt.hint,
				code:  2,
			})
		})
	}

	testUsages(t, []usage{
		{
			args:  "run in.jsonl in.jsonl --sim",
			files: map[string]string{"in.jsonl": good},
			text:  "in.jsonl:1: good: the line has the custom_id of an earlier line: line 1\n",
			err:   "in.jsonl is named twice: 1 of 2 lines cannot be sent; nothing was sent",
			hint:  "give in.jsonl once",
			code:  2,
		},
		{
			args:  "run in.jsonl b.jsonl c.jsonl --sim",
			files: map[string]string{"in.jsonl": good, "b.jsonl": good, "c.jsonl": good},
			text: "2 lines have the custom_id of an earlier line: b.jsonl:1 (good), " +
				"c.jsonl:1 (good): in.jsonl:1\n",
			err:  "2 of 3 lines cannot be sent; nothing was sent",
			hint: skip + "; or give each request a custom_id of its own",
			code: 2,
		},
	})
}

func TestUsageOfSettings(t *testing.T) {
	t.Parallel()

	const example = `a schema is one JSON object, such as {"type": "object"}`
	files := map[string]string{
		"in.jsonl":   `{"prompt":"hello"}` + "\n",
		"cut.json":   `{"type": "object"`,
		"empty.json": "",
		"two.json":   "{}\n{}\n",
		"type.json":  `{"minimum": "3"}`,
	}

	for args, want := range map[string]usage{
		"--set temperature=abc": {
			err:  `--set temperature=abc: "abc" is not JSON`,
			hint: "for example --set temperature=0.7",
		},
		"--set user=abc": {
			err:  `--set user=abc: "abc" is not JSON`,
			hint: `a text has quotes of its own: --set 'user="abc"'`,
		},
		"--set max_tokens=1.5e": {
			err:  `--set max_tokens=1.5e: "1.5e" is not JSON`,
			hint: "for example --set max_tokens=256",
		},
		"--set stop=[END]": {
			err:  `--set stop=[END]: "[END]" is not JSON`,
			hint: `the shell takes quotes away unless others are around them: --set 'stop=["END"]'`,
		},
		"--set user=": {
			err:  `--set user=: "" is not JSON`,
			hint: `a text that is empty is --set 'user=""'`,
		},
		"--set max_tokens": {
			err:  "--set max_tokens has no value",
			hint: "for example --set max_tokens=256",
		},
		"--set =1": {
			err:  "--set =1 names no field",
			hint: "for example --set temperature=0",
		},
		"--set model=m": {
			err:  "--set cannot set the model",
			hint: "--override-model NAME sends all requests to one model, and --model NAME those without one",
		},
		"--set stream=true": {
			err:  "--set stream: a batch has one whole answer for each request",
			hint: "leave it out",
		},
		"--set n=1 --set n=2": {
			err:  "--set n is there twice",
			hint: "leave out one of them",
		},
		"--model=": {
			err:  "--model names no model",
			hint: "give --model NAME, or leave it out",
		},
		"--override-model=": {
			err:  "--override-model names no model",
			hint: "give --override-model NAME, or leave it out",
		},
		"--model a --override-model b": {
			err:  "--model is for requests that name no model, and --override-model for all",
			hint: "leave out one of them",
		},
		"--schema nosuch.json": {err: "--schema nosuch.json: no such file or directory"},
		"--schema .":           {err: "--schema .: is a directory"},
		"--schema cut.json":    {err: "--schema cut.json: the JSON ends in the middle", hint: example},
		"--schema empty.json":  {err: "--schema empty.json: the file is empty", hint: example},
		"--schema two.json":    {err: "--schema two.json: not one JSON value: see byte 4", hint: example},
		"--schema type.json":   {err: "--schema type.json: compile the JSON Schema: /minimum: got string, want number"},
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			want.args, want.files, want.code = "run in.jsonl --sim "+args, files, 2
			testUsage(t, want)
		})
	}
}

func TestUsageOfOutputNames(t *testing.T) {
	t.Parallel()

	orTable := ", or for a table in " + listEndings()
	files := map[string]string{"in.jsonl": `{"prompt":"hello"}` + "\n", "q.jsonl.zst": `{"prompt":"hello"}`}
	for out, want := range map[string]usage{
		"in.jsonl": {
			err:  "the input in.jsonl is the table in.jsonl, which the run would write",
			hint: "choose another output with -o",
		},
		"q.json": {err: "-o q.json: must end in .jsonl.zst" + orTable, hint: "for example -o q.jsonl.zst"},
		"q.zst":  {err: "-o q.zst: must end in .jsonl.zst" + orTable, hint: "for example -o q.jsonl.zst"},
		"q.txt":  {err: "-o q.txt: must end in .jsonl.zst" + orTable, hint: "for example -o q.jsonl.zst"},
		".csv":   {err: "-o .csv: must end in .jsonl.zst" + orTable, hint: "for example -o results.jsonl.zst"},
		"q.csv --plain": {
			err:  "--plain takes out what a table needs of the output lines",
			hint: "leave out --plain",
		},
		"q.csv --shards 0": {err: "--shards 0: must be from 1 to 99999", hint: "for example --shards 16"},
		"new.jsonl.zst --shards 2": {
			err:  "--shards 2: only a table has several files, and new.jsonl.zst is none",
			hint: "for example -o new.csv",
		},
		"-": {
			err:  "-o -: a run writes several files, and cannot write to standard output",
			hint: "give -o NAME.jsonl.zst; promptmill tail prints the answers of a run as they come",
		},
		"q":          {err: "-o q: must end in .jsonl.zst" + orTable, hint: "for example -o q.jsonl.zst"},
		"q.CSV":      {err: "-o q.CSV: must end in .jsonl.zst" + orTable, hint: "for example -o q.csv"},
		"q.xlsx":     {err: "-o q.xlsx: must end in .jsonl.zst" + orTable, hint: "for example -o q.csv"},
		".":          {err: "-o . names no file", hint: "for example -o results.jsonl.zst, or for a table -o results.csv"},
		"new/":       {err: "-o new/ names no file", hint: "for example -o new/results.jsonl.zst, or for a table -o new/results.csv"},
		".jsonl.zst": {err: "-o .jsonl.zst names no file", hint: "for example -o results.jsonl.zst, or for a table -o results.csv"},
		"/dev/null": {
			err:  "-o /dev/null: a run writes several files, and cannot write into a device or a pipe",
			hint: "promptmill tail prints the answers of a run as they come",
		},
		"nosuch/out.jsonl.zst": {err: "the folder of the output, DIR/nosuch, is not there", hint: "make it first"},
		"in.jsonl/out.jsonl.zst": {
			err:  "the folder of the output, DIR/in.jsonl, is a file",
			hint: "choose another folder",
		},
	} {
		t.Run(out, func(t *testing.T) {
			t.Parallel()
			want.args, want.files, want.code = "run in.jsonl --sim -o "+out, files, 2
			testUsage(t, want)
		})
	}

	testUsages(t, []usage{{
		args:  "run q.jsonl.zst --sim -o q.jsonl.zst",
		files: files,
		err:   "the input q.jsonl.zst is the file q.jsonl.zst, which the run would write",
		hint:  "choose another output with -o",
		code:  2,
	}})
}
