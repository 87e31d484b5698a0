package main

import (
	"fmt"
	"strings"
	"testing"
)

// verify says in one sentence what is wrong with an output.
func TestUsageOfVerify(t *testing.T) {
	t.Parallel()

	requests := func(ids ...string) (text string) {
		for _, id := range ids {
			text += fmt.Sprintf(`{"custom_id":%q,"prompt":"hi"}`+"\n", id)
		}
		return text
	}
	lines := func(ids ...string) (text string) {
		for i, id := range ids {
			text += fmt.Sprintf(`{"id":"b_%d","custom_id":%q,"response":{"status_code":200,"request_id":"r","body":{}},"error":null}`+
				"\n", i, id)
		}
		return text
	}
	many := strings.Fields("a b c d e f g h i j k l m n")

	testUsages(t, []usage{
		{
			args: "verify in.jsonl out.jsonl.zst",
			files: map[string]string{
				"in.jsonl":      requests("a", "b"),
				"out.jsonl.zst": lines("x", "y"),
			},
			text: "2 requests: 2 answered, 0 failed, 2 without a line, 0 lines too many, 2 lines of no request\n" +
				"  out.jsonl.zst:1: no request is called \"x\"\n" +
				"  out.jsonl.zst:2: no request is called \"y\"\n" +
				"  no line for \"a\"\n" +
				"  no line for \"b\"\n",
			err:  "the output is of another input: none of its lines has a custom_id of this one",
			hint: "give the input of that run",
			code: 1,
		},
		{
			args: "verify in.jsonl many.jsonl.zst",
			files: map[string]string{
				"in.jsonl":       requests(many...),
				"many.jsonl.zst": lines("a"),
			},
			text: "14 requests: 1 answered, 0 failed, 13 without a line, 0 lines too many, 0 lines of no request\n" +
				"  no line for \"b\"\n  no line for \"c\"\n  no line for \"d\"\n  no line for \"e\"\n  no line for \"f\"\n" +
				"  no line for \"g\"\n  no line for \"h\"\n  no line for \"i\"\n  no line for \"j\"\n  no line for \"k\"\n" +
				"  and 3 more\n",
			err:  "the output is not complete: 13 requests have no line",
			hint: "it lost lines, or the input got more requests after the run; run the input with another output, -o",
			code: 1,
		},
		{
			args: "verify in.jsonl twice.jsonl.zst",
			files: map[string]string{
				"in.jsonl":        requests("a", "b"),
				"twice.jsonl.zst": lines("a", "a", "b", "x") + "{}\n",
			},
			text: "2 requests: 4 answered, 0 failed, 0 without a line, 1 lines too many, 1 lines of no request\n" +
				"  twice.jsonl.zst:2: one line too many for \"a\"\n" +
				"  twice.jsonl.zst:4: no request is called \"x\"\n" +
				"  twice.jsonl.zst:5: output line: unreadable format: custom_id, response or error is missing\n",
			err: "the output does not match the input: 1 line is one too many for its request, 1 line is of no request, " +
				"1 line is not an output line",
			hint: "give all input files of that run as they were then, and the output as the run wrote it",
			code: 1,
		},
		{
			args: "verify in.jsonl out.errors.jsonl.zst",
			files: map[string]string{
				"in.jsonl":             requests("a"),
				"out.jsonl.zst":        lines("a"),
				"out.errors.jsonl.zst": "",
			},
			err:  "out.errors.jsonl.zst has only the failed requests of its run",
			hint: "give out.jsonl.zst in its place: verify also reads the failed requests beside it",
			code: 2,
		},
	})
}
