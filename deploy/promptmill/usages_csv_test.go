package main

import "testing"

// Files that are no tables, and tables that cannot be read.
func TestUsageOfTables(t *testing.T) {
	t.Parallel()

	const formats = "; promptmill reads tables of CSV, TSV, Parquet, JSON lines, one JSON array or lines of text"

	var usages []usage
	for name, tt := range map[string]struct{ text, err, hint string }{
		"in.csv.xz": {
			text: "\xfd7zXZ\x00\x00\x04",
			err:  "in.csv.xz looks like an xz file" + formats,
			hint: "unpack it, and give in.csv: xz -dc in.csv.xz > in.csv",
		},
		"in.xlsx": {
			text: "PK\x03\x04[Content_Types].xml xl/workbook.xml",
			err:  "in.xlsx looks like an Excel workbook" + formats,
			hint: "save its sheet as CSV, and give that",
		},
		"in.sqlite": {
			text: "SQLite format 3\x00\x10",
			err:  "in.sqlite looks like an SQLite database" + formats,
			hint: "put in its table to convert it, and give in.json: " +
				"sqlite3 -json in.sqlite 'SELECT * FROM requests' > in.json",
		},
		"mac.csv": {
			text: "id,text\r1,a\r",
			err:  "mac.csv has the line ends of classic Mac OS, carriage returns without line feeds",
			hint: `convert it, and give mac.new.csv: tr '\r' '\n' < mac.csv > mac.new.csv`,
		},
		"utf16.csv": {
			text: "t\x00e\x00x\x00t\x00\n\x00a\x00\n\x00",
			err:  "utf16.csv is UTF-16 text without a byte-order mark, and its encoding is not given",
			hint: "give --encoding utf-16le",
		},
		"latin1.csv": {
			text: "id,text\n1,caf\xe9\n",
			err:  "latin1.csv is text that is not UTF-8, and its encoding is not given",
			hint: "name it, for example --encoding windows-1252",
		},
		"out.jsonl": {
			text: `{"id":"batch_req_20261128-x_0","custom_id":"a","response":{"status_code":200},"error":null}` + "\n",
			err:  "out.jsonl has answers of run 20261128-x, not rows to ask about",
			hint: "give the input of that run; its command with --retry runs the failed requests again",
		},
		"twice.csv": {
			text: "text,id,text\na,1,b\n",
			err:  `twice.csv, line 1: the header has the column "text" twice, as columns 1 and 3; rename one of them`,
		},
		"unnamed.csv": {
			text: ",,\n1,2,3\n",
			err:  "unnamed.csv, line 1: the header has no names; write one into the first row, or give --columns",
		},
		"open.csv": {
			text: "id,text\n1,\"a\n2,b\n",
			err: "open.csv, row 1, line 2: a field begins with a quote and does not end with one; " +
				"end it, or double each quote that belongs to the text",
		},
		"header.csv": {
			text: "id,text\n",
			err:  "header.csv: no rows in the input",
			hint: "it needs a row for each request, and CSV the names of its columns before them",
		},
	} {
		usages = append(usages, usage{
			args:  "run " + name + " --prompt {{.text}} --sim",
			files: map[string]string{name: tt.text},
			err:   tt.err,
			hint:  tt.hint,
			code:  2,
		})
	}

	usages = append(usages, usage{
		args:  "run ragged.csv --prompt {{.text}} --sim",
		files: map[string]string{"ragged.csv": "id,text\n1,a\n2,b,\n"},
		text: "ragged.csv, row 2 (line 3): request-2: the row cannot be read: " +
			"it has 3 fields, and the header has 2\n",
		err:  "1 of 2 rows cannot be sent; nothing was sent",
		hint: "fix them, or give --skip-invalid to run the others and have these in the errors file",
		code: 2,
	})

	testUsages(t, usages)
}
