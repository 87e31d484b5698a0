package main

import "testing"

// csvCommand is the command that makes requests of a table with the columns id and prompt.
const csvCommand = `python3 -c 'import csv, json; [print(json.dumps({"custom_id": r["id"], ` +
	`"messages": [{"role": "user", "content": r["prompt"]}]})) ` +
	`for r in csv.DictReader(open(0, encoding="utf-8-sig", newline=""))]' < in.csv > in.jsonl`

// A file of another format is named, once, with the command that converts it.
func TestUsageOfInputFormats(t *testing.T) {
	t.Parallel()

	const answer = `{"id":"batch_req_abc","custom_id":"a","response":{"status_code":200,"body":{}},"error":null}` + "\n"
	for name, u := range map[string]usage{
		"in.csv": {
			files: map[string]string{"in.csv": "id,prompt\n1,hello\n2,bye\n"},
			err:   "in.csv looks like CSV; promptmill reads JSONL, one request a line",
			hint:  "convert it, and give in.jsonl: " + csvCommand,
		},
		"in.json": {
			files: map[string]string{"in.json": `[{"prompt":"a"},` + "\n" + `{"prompt":"b"}]` + "\n"},
			err:   "in.json looks like one JSON array; promptmill reads JSONL, one request a line",
			hint:  "convert it, and give in.jsonl: jq -c '.[]' in.json > in.jsonl",
		},
		"array.jsonl": {
			files: map[string]string{"array.jsonl": `["hello","bye"]`},
			err:   "array.jsonl looks like one JSON array; promptmill reads JSONL, one request a line",
			hint: "convert it, and give array.new.jsonl: jq -c '.[] | {messages: [{role: \"user\", content: .}]}' " +
				"array.jsonl > array.new.jsonl",
		},
		"pretty.jsonl": {
			files: map[string]string{"pretty.jsonl": "{\n  \"prompt\": \"a\"\n}\n"},
			err:   "pretty.jsonl looks like one JSON document; promptmill reads JSONL, one request a line",
			hint:  "convert it, and give pretty.new.jsonl: jq -c '.' pretty.jsonl > pretty.new.jsonl",
		},
		"in.txt": {
			files: map[string]string{"in.txt": "What is a mill?\nWhat is a prompt?\n"},
			err:   "in.txt looks like plain text; promptmill reads JSONL, one request a line",
			hint: "convert it, and give in.jsonl: jq -Rc 'select(. != \"\") | {messages: [{role: \"user\", content: .}]}' " +
				"in.txt > in.jsonl",
		},
		"latin1.txt": {
			files: map[string]string{"latin1.txt": "caf\xe9\n"},
			err:   "latin1.txt looks like text that is not UTF-8; promptmill reads JSONL, one request a line",
			hint:  "convert it, and give latin1.jsonl: iconv -f WINDOWS-1252 -t UTF-8 latin1.txt > latin1.jsonl",
		},
		"utf16.jsonl": {
			files: map[string]string{"utf16.jsonl": "\xff\xfe{\x00\"\x00a\x00\"\x00:\x001\x00}\x00"},
			err:   "utf16.jsonl looks like UTF-16 text; promptmill reads JSONL, one request a line",
			hint:  "convert it, and give utf16.new.jsonl: iconv -f UTF-16 -t UTF-8 utf16.jsonl > utf16.new.jsonl",
		},
		"in.jsonl.xz": {
			files: map[string]string{"in.jsonl.xz": "\xfd7zXZ\x00\x00\x04"},
			err:   "in.jsonl.xz looks like an xz file; promptmill reads JSONL, one request a line",
			hint:  "unpack it, and give in.jsonl: xz -dc in.jsonl.xz > in.jsonl",
		},
		"in.zip": {
			files: map[string]string{"in.zip": "PK\x03\x04\x14\x00"},
			err:   "in.zip looks like a zip archive; promptmill reads JSONL, one request a line",
			hint:  "unpack it, and give in.jsonl: unzip -p in.zip > in.jsonl",
		},
		"in.xlsx": {
			files: map[string]string{"in.xlsx": "PK\x03\x04[Content_Types].xml xl/workbook.xml"},
			err:   "in.xlsx looks like an Excel workbook; promptmill reads JSONL, one request a line",
			hint:  "save its sheet as CSV, and give that: the hint is then a command that converts it",
		},
		"in.parquet": {
			files: map[string]string{"in.parquet": "PAR1\x15\x04\x15"},
			err:   "in.parquet looks like a Parquet file; promptmill reads JSONL, one request a line",
			hint: "convert it, and give in.jsonl: python3 -c 'import pandas, sys; pandas.read_parquet(sys.argv[1])" +
				".to_json(sys.argv[2], orient=\"records\", lines=True)' in.parquet in.jsonl",
		},
		"in.html": {
			files: map[string]string{"in.html": "<!DOCTYPE html>\n<html>Not found</html>\n"},
			err:   "in.html looks like HTML or XML; promptmill reads JSONL, one request a line",
			hint:  "look at its beginning: it may be the error page of a download",
		},
		"in.pdf": {
			files: map[string]string{"in.pdf": "%PDF-1.7\n"},
			err:   "in.pdf looks like a PDF document; promptmill reads JSONL, one request a line",
			hint:  `write each request as a JSON object on one line, such as {"prompt": "..."}`,
		},
		"out.jsonl": {
			files: map[string]string{"out.jsonl": answer},
			err:   "out.jsonl has answers, not requests",
			hint:  "give the input of that run; promptmill run INPUT --retry runs its failed requests again",
		},
		"mill.errors.jsonl": {
			files: map[string]string{
				"mill.errors.jsonl": `{"id":"batch_req_20261128-x_0","custom_id":"a","response":null,"error":{"code":"timeout"}}` + "\n",
			},
			err:  "mill.errors.jsonl has the failed requests of run 20261128-x, as output lines without their bodies",
			hint: "give the input of that run; promptmill run INPUT --retry runs its failed requests again",
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
			usages = append(usages, u)
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
			hint: "a shell passes on a pattern that matches no file: name a file that is there",
			code: 2,
		},
		{
			args: "run . --sim",
			err:  "input . is a folder",
			hint: "name the files in it",
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
			err:  "input . is a folder",
			hint: "name the files in it",
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
