package main

import (
	"strings"
	"testing"
)

// oneRequest is an input.
var oneRequest = map[string]string{"in.jsonl": `{"prompt":"hello"}` + "\n"}

// Flags that a command does not have, and flags without a value.
func TestUsageOfFlags(t *testing.T) {
	t.Parallel()

	testUsages(t, []usage{
		{
			args:  "run in.jsonl --simm",
			files: oneRequest,
			err:   "unknown flag --simm",
			hint:  "did you mean --sim? promptmill run --help lists all flags",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim-flavor vllm",
			files: oneRequest,
			err:   "unknown flag --sim-flavor",
			hint:  "did you mean --sim-flavour? promptmill run --help lists all flags",
			code:  2,
		},
		{
			args:  "run in.jsonl --max-concurency=8",
			files: oneRequest,
			err:   "unknown flag --max-concurency",
			hint:  "did you mean --max-concurrency? promptmill run --help lists all flags",
			code:  2,
		},
		{
			args:  "run in.jsonl --temperature 0",
			files: oneRequest,
			err:   "unknown flag --temperature",
			hint:  "promptmill run --help lists all flags",
			code:  2,
		},
		{
			args:  "run in.jsonl --watch",
			files: oneRequest,
			err:   "unknown flag --watch",
			hint:  "promptmill status has it; promptmill run --help lists all flags",
			code:  2,
		},
		{
			args: "list --url http://localhost",
			err:  "unknown flag --url",
			hint: "promptmill run, trial, doctor and worker have it; promptmill list --help lists all flags",
			code: 2,
		},
		{
			args: "list --output x",
			err:  "unknown flag --output",
			hint: "promptmill run, trial, doctor and 6 more have it; promptmill list --help lists all flags",
			code: 2,
		},
		{
			args:  "run in.jsonl -x",
			files: oneRequest,
			err:   "unknown flag -x",
			hint:  "promptmill run --help lists all flags",
			code:  2,
		},
		{
			args:  "run in.jsonl -simm",
			files: oneRequest,
			err:   "unknown flag -simm",
			hint:  "did you mean --sim? promptmill run --help lists all flags",
			code:  2,
		},
		{
			args:  "run in.jsonl -oout.jsonl.zst",
			files: oneRequest,
			err:   "unknown flag -oout.jsonl.zst",
			hint:  "put a space after -o; promptmill run --help lists all flags",
			code:  2,
		},
		{
			args:  "run in.jsonl -o",
			files: oneRequest,
			err:   "-o needs a value",
			hint:  "give -o NAME.jsonl.zst; promptmill run --help lists all flags",
			code:  2,
		},
		{
			args:  "run in.jsonl --url",
			files: oneRequest,
			err:   "--url needs a value",
			hint:  "give --url URL; promptmill run --help lists all flags",
			code:  2,
		},
		{
			args:  "run in.jsonl -o --sim",
			files: oneRequest,
			err:   "-o needs a value, and --sim looks like a flag",
			hint:  "give -o NAME.jsonl.zst",
			code:  2,
		},
		{
			args:  "run in.jsonl --timeout 5s --timeout 6s",
			files: oneRequest,
			err:   "--timeout is given twice",
			hint:  "leave out one of them",
			code:  2,
		},
		{
			args:  "run in.jsonl -o a.jsonl.zst --output b.jsonl.zst",
			files: oneRequest,
			err:   "--output is given twice",
			hint:  "leave out one of them",
			code:  2,
		},
		{
			args:  "run in.jsonl --=x",
			files: oneRequest,
			err:   "unknown flag --",
			hint:  "promptmill run --help lists all flags",
			code:  2,
		},
		{
			args:  "run in.jsonl --help=maybe",
			files: oneRequest,
			err:   "--help and --version take no value",
			hint:  "promptmill run --help lists all flags",
			code:  2,
		},
	})
}

// Commands that there are not, and arguments that a command does not take.
func TestUsageOfCommands(t *testing.T) {
	t.Parallel()

	testUsages(t, []usage{
		{
			args:  "runn in.jsonl",
			files: oneRequest,
			err:   `unknown command "runn"`,
			hint:  "did you mean promptmill run? promptmill --help lists all commands",
			code:  2,
		},
		{
			args: "frobnicate",
			err:  `unknown command "frobnicate"`,
			hint: "promptmill --help lists all commands",
			code: 2,
		},
		{
			args:  "in.jsonl",
			files: oneRequest,
			err:   `unknown command "in.jsonl"`,
			hint:  "did you mean promptmill run in.jsonl? promptmill --help lists all commands",
			code:  2,
		},
		{
			args: "help nosuch",
			err:  `unknown command "nosuch"`,
			hint: "promptmill --help lists all commands",
			code: 2,
		},
		{
			args: "help statu",
			err:  `unknown command "statu"`,
			hint: "did you mean promptmill status? promptmill --help lists all commands",
			code: 2,
		},
		{
			args: "--help nosuch",
			err:  `unknown command "nosuch"`,
			hint: "promptmill --help lists all commands",
			code: 2,
		},
		{
			args: "-v",
			err:  "unknown flag -v",
			hint: "promptmill --version prints the version; -v after a command logs more",
			code: 2,
		},
		{
			args: "-x",
			err:  "unknown flag -x",
			hint: "promptmill --help lists all commands",
			code: 2,
		},
		{
			args:  "--sim run in.jsonl",
			files: oneRequest,
			err:   "unknown flag --sim",
			hint:  "put it after a command: promptmill run and worker have it; promptmill --help lists all commands",
			code:  2,
		},
		{
			args: "--versio",
			err:  "unknown flag --versio",
			hint: "did you mean --version? promptmill --help lists all commands",
			code: 2,
		},
		{
			args: "help run worker",
			err:  "unexpected argument worker",
			hint: "usage: promptmill help [COMMAND...]",
			code: 2,
		},
		{
			args: "list foo bar",
			err:  "unexpected arguments foo bar",
			hint: "usage: promptmill list [FLAGS]",
			code: 2,
		},
		{
			args: "workers foo",
			err:  "unexpected argument foo",
			hint: "usage: promptmill workers [FLAGS]",
			code: 2,
		},
		{
			args: "version x",
			err:  "unexpected argument x",
			hint: "usage: promptmill version [FLAGS]",
			code: 2,
		},
		{
			args: "status a b",
			err:  "unexpected argument b",
			hint: "usage: promptmill status [FLAGS] [RUN]",
			code: 2,
		},
		{
			args: "pause a b",
			err:  "unexpected argument b",
			hint: "usage: promptmill pause [FLAGS] RUN",
			code: 2,
		},
		{
			args: "join worker reader",
			err:  "unexpected argument reader",
			hint: "usage: promptmill join [FLAGS] [worker|producer|collector|reader]",
			code: 2,
		},
		{
			args:  "serve in.jsonl",
			files: oneRequest,
			err:   "unexpected argument in.jsonl",
			hint:  "usage: promptmill serve [FLAGS]",
			code:  2,
		},
		{
			args: "worker http://localhost:8000",
			err:  "unexpected argument http://localhost:8000",
			hint: "usage: promptmill worker [FLAGS]",
			code: 2,
		},
		{
			args: "nats-config x",
			err:  "unexpected argument x",
			hint: "usage: promptmill nats-config",
			code: 2,
		},
		{
			args: "history x",
			err:  "unexpected argument x",
			hint: "usage: promptmill history [FLAGS]",
			code: 2,
		},
		{
			args: "sim x",
			err:  "unexpected argument x",
			hint: "usage: promptmill sim [FLAGS]",
			code: 2,
		},
		{
			args: "run --sim",
			err:  "no input file given",
			hint: "for example: promptmill run prompts.jsonl",
			code: 2,
		},
		{
			args: "pause",
			err:  "want the id of one run, or its label",
			hint: "promptmill list shows the runs",
			code: 2,
		},
		{
			args: "join nosuch",
			err:  `there is no role "nosuch"`,
			hint: "want worker, producer, collector or reader",
			code: 2,
		},
	})
}

// Values that a flag or its environment variable does not take.
func TestUsageOfValues(t *testing.T) {
	t.Parallel()

	testUsages(t, []usage{
		{
			args:  "run in.jsonl --timeout 5",
			files: oneRequest,
			err:   "--timeout 5: must be a duration with a unit",
			hint:  "for example --timeout 5s or 5m",
			code:  2,
		},
		{
			args:  "run in.jsonl --timeout=5",
			files: oneRequest,
			err:   "--timeout 5: must be a duration with a unit",
			hint:  "for example --timeout 5s or 5m",
			code:  2,
		},
		{
			args:  "run in.jsonl -timeout 5",
			files: oneRequest,
			err:   "--timeout 5: must be a duration with a unit",
			hint:  "for example --timeout 5s or 5m",
			code:  2,
		},
		{
			args:  "run in.jsonl --timeout soon",
			files: oneRequest,
			err:   "--timeout soon: must be a duration",
			hint:  "for example --timeout 30s, 5m, 2h or 1d",
			code:  2,
		},
		{
			args:  "run in.jsonl --timeout 5min",
			files: oneRequest,
			err:   "--timeout 5min: must be a duration",
			hint:  "for example --timeout 30s, 5m, 2h or 1d",
			code:  2,
		},
		{
			args:  "run in.jsonl --timeout=",
			files: oneRequest,
			err:   `--timeout "": must be a duration`,
			hint:  "for example --timeout 30s, 5m, 2h or 1d",
			code:  2,
		},
		{
			args:  "run in.jsonl --timeout 9999999h",
			files: oneRequest,
			err:   "--timeout 9999999h: must be shorter: 292 years at most",
			hint:  "for example --timeout 24h or 30d",
			code:  2,
		},
		{
			args:  "run in.jsonl --timeout -5s",
			files: oneRequest,
			err:   "--timeout -5s: must be more than 0",
			code:  2,
		},
		{
			args:  "run in.jsonl --expires 0d",
			files: oneRequest,
			err:   "--expires 0s: must be more than 0",
			code:  2,
		},
		{
			args:  "run in.jsonl --nats nats://127.0.0.1:9 --keep -1h",
			files: oneRequest,
			err:   "--keep -1h0m0s: must not be negative",
			code:  2,
		},
		{
			args:  "run in.jsonl --concurrency abc",
			files: oneRequest,
			err:   "--concurrency abc: must be a whole number",
			hint:  "for example --concurrency 8",
			code:  2,
		},
		{
			args:  "run in.jsonl --concurrency 1.5",
			files: oneRequest,
			err:   "--concurrency 1.5: must be a whole number",
			hint:  "for example --concurrency 8",
			code:  2,
		},
		{
			args:  "run in.jsonl --concurrency 1e3",
			files: oneRequest,
			err:   "--concurrency 1e3: must be a whole number",
			hint:  "for example --concurrency 8",
			code:  2,
		},
		{
			args:  "run in.jsonl --concurrency=",
			files: oneRequest,
			err:   `--concurrency "": must be a whole number`,
			hint:  "for example --concurrency 8",
			code:  2,
		},
		{
			args:  "run in.jsonl --concurrency 99999999999999999999",
			files: oneRequest,
			err:   "--concurrency 99999999999999999999: must be smaller",
			hint:  "for example --concurrency 8",
			code:  2,
		},
		{
			args:  "run in.jsonl --concurrency -1",
			files: oneRequest,
			err:   "--concurrency -1: must be at least 1",
			code:  2,
		},
		{
			args: "sim --sim-log nosuch/log",
			err:  "--sim-log nosuch/log: the file cannot be written: no such file or directory",
			hint: "name another file with --sim-log",
			code: 2,
		},
		{
			args:  "run in.jsonl --sim-seed -1",
			files: oneRequest,
			err:   "--sim-seed -1: must be a whole number that is not negative",
			hint:  "for example --sim-seed 8",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim-seed x",
			files: oneRequest,
			err:   "--sim-seed x: must be a whole number",
			hint:  "for example --sim-seed 8",
			code:  2,
		},
		{
			args:  "run in.jsonl --price-in cheap",
			files: oneRequest,
			err:   "--price-in cheap: must be a number",
			hint:  "for example --price-in 1.5",
			code:  2,
		},
		{
			args:  "run in.jsonl --price-in 1e999",
			files: oneRequest,
			err:   "--price-in 1e999: must be a number",
			hint:  "for example --price-in 1.5",
			code:  2,
		},
		{
			args:  "run in.jsonl --price-in 1 --currency dollars",
			files: oneRequest,
			err:   "--currency dollars: want the three letters of a currency",
			hint:  "for example --currency USD",
			code:  2,
		},
		{
			args:  "run in.jsonl --currency USD",
			files: oneRequest,
			err:   "--currency needs --price-in, --price-out or --price-kwh",
			hint:  "give --price-in too, or leave out --currency",
			code:  2,
		},
		{
			args: "compare a.meta.json b.meta.json --price-kwh 1 --currency 12€",
			err:  "--currency '12€': want the three letters of a currency",
			hint: "for example --currency USD",
			code: 2,
		},
		{
			args: "compare a.meta.json b.meta.json --workers -1",
			err:  "--workers -1: must not be negative",
			code: 2,
		},
		{
			args:  "run in.jsonl --sim=maybe",
			files: oneRequest,
			err:   "--sim=maybe: must be true or false",
			hint:  "for example --sim=true",
			code:  2,
		},
		{
			args: "list --json=yes",
			err:  "--json=yes: must be true or false",
			hint: "for example --json=true",
			code: 2,
		},
		{
			args:  "run in.jsonl",
			env:   []string{"PROMPTMILL_SIM=maybe"},
			files: oneRequest,
			err:   "PROMPTMILL_SIM=maybe: must be true or false",
			hint:  "for example PROMPTMILL_SIM=true",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim",
			env:   []string{"PROMPTMILL_TIMEOUT=5"},
			files: oneRequest,
			err:   "PROMPTMILL_TIMEOUT=5: must be a duration with a unit",
			hint:  "for example PROMPTMILL_TIMEOUT=5s or 5m",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim",
			env:   []string{"PROMPTMILL_CONCURRENCY=many"},
			files: oneRequest,
			err:   "PROMPTMILL_CONCURRENCY=many: must be a whole number",
			hint:  "for example PROMPTMILL_CONCURRENCY=8",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim",
			env:   []string{"PROMPTMILL_PRICE_KWH=0,31"},
			files: oneRequest,
			err:   "PROMPTMILL_PRICE_KWH=0,31: must be a number",
			hint:  "for example PROMPTMILL_PRICE_KWH=1.5",
			code:  2,
		},
		{
			args: "serve x",
			env:  []string{"PROMPTMILL_METRICS="},
			err:  "unexpected argument x",
			hint: "usage: promptmill serve [FLAGS]",
			code: 2,
		},
		{
			args: "pause",
			env:  []string{"PROMPTMILL_CONCURENCY=8"},
			text: "promptmill: warning: PROMPTMILL_CONCURENCY is not a variable of promptmill; " +
				"did you mean PROMPTMILL_CONCURRENCY?\n",
			err:  "want the id of one run, or its label",
			hint: "promptmill list shows the runs",
			code: 2,
		},
		{
			args: "pause --json",
			env:  []string{"PROMPTMILL_CONCURENCY=8"},
			err:  "want the id of one run, or its label",
			hint: "promptmill list shows the runs",
			code: 2,
		},
		{
			args: "pause",
			env:  []string{"PROMPTMILL_IMAGE=v1", "PROMPTMILL_VERSION=1"},
			err:  "want the id of one run, or its label",
			hint: "promptmill list shows the runs",
			code: 2,
		},
	})
}

// Flags that do nothing without another one.
func TestUsageOfFlagsThatDoNothing(t *testing.T) {
	t.Parallel()

	const anyBus = "--nats, --join, --join-file or --context"
	for _, tt := range []struct{ args, flag, needs, first string }{
		{"run in.jsonl --sim-slots 4", "--sim-slots", "--sim", "--sim"},
		{"run in.jsonl --sim=false --sim-faults x", "--sim-faults", "--sim", "--sim"},
		{"worker --sim-ttft 1s", "--sim-ttft", "--sim", "--sim"},
		{"run in.jsonl --sim --tls-ca ca.pem", "--tls-ca", "--nats", "--nats"},
		{"list --nats-user reader", "--nats-user", "--nats", "--nats"},
		{"worker --sim --join x --tls-key x", "--tls-key", "--nats", "--nats"},
		{"worker --sim --join-file x --nats-password-file x", "--nats-password-file", "--nats", "--nats"},
		{"run in.jsonl --sim --advertise head", "--advertise", "--listen", "--listen"},
		{"serve --advertise head", "--advertise", "--listen", "--listen"},
		{"serve --write-join x", "--write-join", "--listen", "--listen"},
		{"run in.jsonl --sim --replicas 3", "--replicas", anyBus, "--nats"},
		{"serve --replicas 3", "--replicas", anyBus, "--nats"},
		{"run in.jsonl --sim --keep 1h", "--keep", anyBus, "--nats"},
		{"run in.jsonl --sim --listen 127.0.0.1:0 --priority 2", "--priority", anyBus, "--nats"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			testUsage(t, usage{
				args:  tt.args,
				files: oneRequest,
				err:   tt.flag + " needs " + tt.needs,
				hint:  "give " + tt.first + " too, or leave out " + tt.flag,
				code:  2,
			})
		})
	}
}

// Flags that exclude each other, empty values, folders and addresses that cannot be used.
func TestUsageOfUnusableValues(t *testing.T) {
	t.Parallel()

	const (
		anotherFolder = "choose another folder with --state"
		noLaunch      = "it starts none of vllm serve, sglang serve, python -m sglang.launch_server and llama-server"
		anAddress     = "for example --metrics :9464"
	)
	for args, want := range map[string]usage{
		"run in.jsonl --sim --run=": {err: "--run needs a value", hint: "give --run ID, or leave it out"},
		"run in.jsonl --sim -o=":    {err: "--output needs a value", hint: "give --output NAME.jsonl.zst, or leave it out"},
		"run in.jsonl --sim --label=": {
			err:  "--label: must have a character besides spaces",
			hint: "for example --label nightly",
		},
		"run in.jsonl --sim --url http://a": {err: "--sim excludes --url and --exec", hint: "leave out one of them"},
		"worker --sim --gpus 0":             {err: "--gpus needs --exec", hint: "give --exec too, or leave out --gpus"},
		"worker --exec ./a --exec ./b": {
			err:  "--exec starts several servers, and a port cannot be added to this command: " + noLaunch + ": ./a",
			hint: "write {port} where the command has its port",
		},
		"worker --url http://127.0.0.1:9 --url http://localhost:9": {
			err:  "--url http://127.0.0.1:9 and --url http://localhost:9 are one model server",
			hint: "name each model server once",
		},
		"worker --exec vllm --gpus 1-0": {
			err:  `--gpus 1-0: "1-0" is no range of cards`,
			hint: "for example --gpus all, --gpus 0,1 or --gpus 0-3",
		},
		"worker --exec ./a{port} --exec ./b{port} --gpus 0": {
			err:  "--gpus 0 has cards for 1 servers, and there are 2 --exec",
			hint: "name as many, or give one --exec to start it on each",
		},
		"worker --exec ./a{gpu}": {
			err:  "--exec has {gpu}, and there is no --gpus: ./a{gpu}",
			hint: "give --gpus all, or --gpus 0,1",
		},
		"run in.jsonl --exec ./a{port} --exec ./b{port} --url http://a": {
			err:  "--url is given, and --exec starts 2 model servers",
			hint: "leave out --url: each command says where its server listens",
		},
		"run in.jsonl --sim --state in.jsonl": {
			err:  "--state DIR/in.jsonl: DIR/in.jsonl is a file, not a folder",
			hint: anotherFolder,
		},
		"run in.jsonl --sim --state in.jsonl/deep": {
			err:  "--state DIR/in.jsonl/deep: DIR/in.jsonl is a file, not a folder",
			hint: anotherFolder,
		},
		"serve --state /dev/null": {
			err:  "--state /dev/null: /dev/null is a file, not a folder",
			hint: anotherFolder,
		},
		"run in.jsonl --sim --metrics x": {err: "--metrics x: it has no port", hint: anAddress},
		"run in.jsonl --sim --metrics 127.0.0.1:99999": {
			err:  `--metrics 127.0.0.1:99999: port "99999" is not a number from 0 to 65535`,
			hint: anAddress,
		},
		"run in.jsonl --sim --metrics 192.0.2.1:9100": {
			err:  "--metrics 192.0.2.1:9100: this machine has no address 192.0.2.1",
			hint: "leave the host out, or give 0.0.0.0 to serve at all addresses of this machine",
		},
		"run in.jsonl --concurrency 4 --max-concurrency 8": {
			err:  "--concurrency sets the number of concurrent requests, so --max-concurrency has nothing to limit",
			hint: "leave out one of them",
		},
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			want.args, want.files, want.code = args, oneRequest, 2
			testUsage(t, want)
		})
	}
}

// A flag on the command line wins over the variable of one that excludes it, and a variable without
// effect is no error.
func TestCommandLineWins(t *testing.T) {
	t.Parallel()

	for args, variables := range map[string][]string{
		"--sim": {
			"PROMPTMILL_URL=http://127.0.0.1:9", "PROMPTMILL_TLS_CA=nosuch.pem", "NATS_CREDS=nosuch",
			"PROMPTMILL_KEEP=1h", "PROMPTMILL_PRIORITY=2",
			"PROMPTMILL_ADVERTISE=head", "PROMPTMILL_REPLICAS=3",
		},
		"--sim --max-concurrency 8":                  {"PROMPTMILL_CONCURRENCY=4", "PROMPTMILL_EXEC=nosuch"},
		"--sim --override-model m":                   {"PROMPTMILL_MODEL=other"},
		"--sim --listen 127.0.0.1:0 --timeout 1m":    {"PROMPTMILL_NATS=nats://127.0.0.1:9"},
		"--sim-ttft 1ms":                             {"PROMPTMILL_SIM=true"},
		"--sim --listen 127.0.0.1:0 --concurrency 2": {"PROMPTMILL_JOIN=nonsense", "PROMPTMILL_MAX_CONCURRENCY=8"},
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()

			c := newCommand(t)
			in := c.input("in.jsonl", 1)
			running, out := c.startAs(variables, append([]string{"run", in, "-o", "out.jsonl.zst"}, strings.Fields(args)...)...)
			if code := waitExit(t, running, out, patience); code != 0 {
				t.Errorf("exit code %d:\n%s", code, out)
			}
		})
	}
}
