package main

import (
	"strings"
	"testing"
)

// Wrong uses of trial: nothing to try, placeholders and values that do not fit each other, and measures without effect.
func TestUsageOfTrial(t *testing.T) {
	t.Parallel()

	files := map[string]string{
		"in.jsonl":     `{"prompt":"hello"}` + "\n",
		"x.trial.json": "{}\n",
		"y.trial.html": "mine",
		"schema.json":  `{"type":"object"}`,
	}

	const example = `for example --exec "vllm serve {model} --port {port}"`
	const url = "trial in.jsonl --url http://127.0.0.1:9 "
	const vllm = "trial in.jsonl --exec vllm" // the words of a command line are split at spaces
	var usages []usage
	for args, want := range map[string]struct{ err, hint string }{
		"trial in.jsonl": {
			"neither --exec nor --url says which servers to try", example + ", or --url http://gpu1:8000",
		},
		"trial --url http://127.0.0.1:9": {"no input file given", "for example: promptmill trial prompts.jsonl"},
		"trial none.jsonl --url http://127.0.0.1:9": {
			"input none.jsonl: no such file or directory", "",
		},
		"trial - --url http://127.0.0.1:9": {
			"standard input has no name to make the output's from", "give -o NAME",
		},
		"trial in.jsonl --exec 'vllm": {
			"--exec: the shell cannot read it: reached EOF without closing quote `'`", example,
		},
		vllm + "{model}": {
			"--exec has {model}, and there is no --model", "give --model NAME, once for each model to try",
		},
		vllm + " --model a --model b": {
			"there are 2 --model, and --exec has no {model}: vllm", "write {model} where the command names its model",
		},
		vllm + "{seqs}": {
			"--exec has {seqs}, and no --vary has values for it",
			"give its values, for example --vary seqs=64,256; for the braces themselves, write {{seqs}}",
		},
		vllm + "{sesq} --vary seqs=1,2": {
			"--exec has {sesq}, and no --vary has values for it", "did you mean {seqs}?",
		},
		vllm + " --vary seqs=1,2": {
			"--vary seqs has no effect: no --exec has {seqs}",
			"write {seqs} where the command has this value, or leave out --vary seqs",
		},
		vllm + "{seqs} --vary seqs": {"--vary seqs has no values", "for example --vary seqs=64,256"},
		vllm + "{seqs} --vary seqs=1,1": {
			"--vary seqs has the value 1 twice", "leave out one of them",
		},
		vllm + " --exec vllm":                {"--exec has the same command twice: vllm", "leave out one of them"},
		vllm + "{model} --model a --model a": {"--model a is given twice", "leave out one of them"},
		vllm + "{n} --vary n=1,2 --side-by-side": {
			"--side-by-side starts 2 servers at once, and they would have one port: vllm{n}",
			"write {port} where the command names its port",
		},
		url + "-o x": {
			"x.trial.json would be overwritten, and no trial has written it", "move it away, or choose another name with -o",
		},
		url + "-o y": {
			"y.trial.html would be overwritten, and no trial has written it", "move it away, or choose another name with -o",
		},
		url + "-o " + strings.Repeat("n", 243): {
			"the page " + strings.Repeat("n", 243) + ".trial.json: file name too long", "choose a shorter name with -o",
		},
		url + "--url http://127.0.0.1:9/": {"--url http://127.0.0.1:9 is given twice", "name each model server once"},
		"trial in.jsonl --url a=http://x --url a=http://y": {
			"--url: two servers have the name a", "give each its own name",
		},
		"trial in.jsonl --url a/b=http://x": {
			`--url: model server URL "a/b=http://x": must look like http://host:port`, "",
		},
		url + "--vary a=1":     {"--vary needs --exec", "give --exec too, or leave out --vary"},
		url + "--side-by-side": {"--side-by-side needs --exec", "give --exec too, or leave out --side-by-side"},
		url + "--tune":         {"--tune needs --exec", "give --exec too, or leave out --tune"},
		url + "--match number": {"--match needs --expect", "give --expect too, or leave out --match"},
		url + "--currency EUR": {
			"--currency needs --price-in, --price-out, --price-kwh or --price-hour",
			"give --price-in too, or leave out --currency",
		},
		url + "--for speed": {"--for speed: there is no such goal", "want throughput, cost or quality"},
		url + "--expect a --match fuzzy": {
			"--match fuzzy: there is no such way to compare", "want exact or number",
		},
		url + "--for quality": {
			"--for quality: nothing says which answers are good", "give --expect COLUMN, --score COMMAND or --schema FILE",
		},
		url + "--for cost": {
			"--for cost: there is no price for 127.0.0.1:9",
			"give --price-hour PRICE, or --price-kwh PRICE for the energy alone",
		},
		url + "--price-hour slow=1": {
			"--price-hour: there is no variant slow", "the variants are 127.0.0.1:9",
		},
		url + "--price-hour cheap": {
			`--price-hour cheap: "cheap" is not a price`, "for example --price-hour 2.50, or --price-hour VARIANT=2.50",
		},
		url + "--precision 5": {
			"--precision 5: must be more than 0 and less than 100%", "for example --precision 5% or --precision 0.05",
		},
		url + "--precision 0%": {
			"--precision 0%: must be more than 0 and less than 100%", "for example --precision 5% or --precision 0.05",
		},
		url + "--sample 0":   {"--sample 0: must be at least 1", ""},
		url + "--budget 0s":  {"--budget 0s: must be more than 0", "for example --budget 10m"},
		url + "--within -1s": {"--within -1s: must be more than 0", "for example --within 10m"},
		url + "--with none.json": {
			"--with: stat none.json: no such file or directory",
			"promptmill trial writes NAME.trial.json, and promptmill run NAME.meta.json",
		},
		url + "-o s3://bucket/x": {
			"-o s3://bucket/x: a trial stays on this machine", "give the name of a file on this machine",
		},
		url + "-o ./": {"-o ./ names no file", "for example -o first"},
		url + "-o nosuch/x": {
			"the folder of the output, DIR/nosuch, is not there", "make it first",
		},
		vllm + " --tune": {
			"--tune: it starts none of vllm serve, sglang serve, python -m sglang.launch_server and llama-server",
			"try values of its flags with --vary",
		},
		"trial in.jsonl --exec llama-server --tune --expect a --for quality": {
			"--for quality: --tune finds faster settings, not better answers",
			"leave out --for: with --expect, --score or --schema, a setting with worse answers is not kept",
		},
		vllm + "{n} --vary n=1,2 --tune": {
			"--tune has one command to begin with, and here are 2 variants",
			"give one --model and one --exec, without --vary and --url",
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

	testUsages(t, usages)
}
