package variants

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/sweep"
)

// Each command, model and combination of values is a variant, and so is each server; names have what differs.
func TestSpecs(t *testing.T) {
	t.Parallel()

	const vllm = "vllm serve {model} --port {port}"
	seqs := Axis{Name: "seqs", Values: []string{"64", "256"}}
	setting := func(name, value string) trial.Setting { return trial.Setting{Name: name, Value: value} }

	for name, test := range map[string]struct {
		grid Grid
		want sweep.List
	}{
		"models": {
			grid: Grid{
				Models:   []string{"google/gemma-3-4b-it", "/models/my model.gguf"},
				Commands: []string{vllm},
			},
			want: sweep.List{
				{
					Name:    "gemma-3-4b-it",
					Model:   "google/gemma-3-4b-it",
					Command: "vllm serve google/gemma-3-4b-it --port {port}",
				},
				{
					Name:    "my model.gguf",
					Model:   "/models/my model.gguf",
					Command: "vllm serve '/models/my model.gguf' --port {port}",
				},
			},
		},
		"models with one last part": {
			grid: Grid{Models: []string{"a/x", "b/x", "c/y/"}, Commands: []string{vllm}},
			want: sweep.List{
				{Name: "a/x", Model: "a/x", Command: "vllm serve a/x --port {port}"},
				{Name: "b/x", Model: "b/x", Command: "vllm serve b/x --port {port}"},
				{Name: "y", Model: "c/y/", Command: "vllm serve c/y/ --port {port}"},
			},
		},
		"values of one model": {
			grid: Grid{
				Models:   []string{"a/x"},
				Commands: []string{vllm + " --seqs {seqs} {eager} --dtype {dtype}"},
				Axes: []Axis{
					seqs,
					{Name: "eager", Values: []string{"", "--enforce-eager"}},
					{Name: "dtype", Values: []string{"half"}},
				},
			},
			want: sweep.List{
				{
					Name:     "seqs=64 no eager",
					Model:    "a/x",
					Settings: []trial.Setting{setting("seqs", "64"), setting("eager", ""), setting("dtype", "half")},
					Command:  "vllm serve a/x --port {port} --seqs 64  --dtype half",
				},
				{
					Name:     "seqs=64 eager=--enforce-eager",
					Model:    "a/x",
					Settings: []trial.Setting{setting("seqs", "64"), setting("eager", "--enforce-eager"), setting("dtype", "half")},
					Command:  "vllm serve a/x --port {port} --seqs 64 --enforce-eager --dtype half",
				},
				{
					Name:     "seqs=256 no eager",
					Model:    "a/x",
					Settings: []trial.Setting{setting("seqs", "256"), setting("eager", ""), setting("dtype", "half")},
					Command:  "vllm serve a/x --port {port} --seqs 256  --dtype half",
				},
				{
					Name:     "seqs=256 eager=--enforce-eager",
					Model:    "a/x",
					Settings: []trial.Setting{setting("seqs", "256"), setting("eager", "--enforce-eager"), setting("dtype", "half")},
					Command:  "vllm serve a/x --port {port} --seqs 256 --enforce-eager --dtype half",
				},
			},
		},
		"several programs, of which one has values, and a server": {
			grid: Grid{
				Models:   []string{"a/x"},
				Commands: []string{vllm + " --seqs {seqs}", "./serve {model}", "./serve -f {model}"},
				Axes:     []Axis{seqs},
				Servers:  []Server{{Name: "old", URL: "http://h:1"}},
				Prices:   []Price{{PerHour: 1}, {Variant: "vllm", PerHour: 2}, {Variant: "vllm seqs=256", PerHour: 3}},
			},
			want: sweep.List{
				{
					Name:         "vllm seqs=64",
					Model:        "a/x",
					Settings:     []trial.Setting{setting("seqs", "64")},
					Command:      "vllm serve a/x --port {port} --seqs 64",
					PricePerHour: new(2.0),
				},
				{
					Name:         "vllm seqs=256",
					Model:        "a/x",
					Settings:     []trial.Setting{setting("seqs", "256")},
					Command:      "vllm serve a/x --port {port} --seqs 256",
					PricePerHour: new(3.0),
				},
				{
					Name:         "serve-1",
					Model:        "a/x",
					Command:      "./serve a/x",
					PricePerHour: new(1.0),
				},
				{
					Name:         "serve-2",
					Model:        "a/x",
					Command:      "./serve -f a/x",
					PricePerHour: new(1.0),
				},
				{
					Name:         "old",
					URL:          "http://h:1",
					PricePerHour: new(1.0),
				},
			},
		},
		"servers": {
			grid: Grid{
				Servers: []Server{{Name: "fast", URL: "http://a:8000"}, {URL: "http://b:8000"}, {URL: "http://c/1"}, {URL: "http://c/2"}},
				Prices:  []Price{{Variant: "fast", PerHour: 0}},
			},
			want: sweep.List{
				{Name: "fast", URL: "http://a:8000", PricePerHour: new(0.0)},
				{Name: "b:8000", URL: "http://b:8000"},
				{Name: "http://c/1", URL: "http://c/1"},
				{Name: "http://c/2", URL: "http://c/2"},
			},
		},
		"models of one server": {
			grid: Grid{
				Models:  []string{"gemma3", "qwen3"},
				Servers: []Server{{URL: "http://a:11434"}},
				Prices:  []Price{{Variant: "a:11434", PerHour: 1}, {Variant: "qwen3", PerHour: 2}},
			},
			want: sweep.List{
				{Name: "a:11434 gemma3", Model: "gemma3", URL: "http://a:11434", PricePerHour: new(1.0)},
				{Name: "a:11434 qwen3", Model: "qwen3", URL: "http://a:11434", PricePerHour: new(1.0)},
			},
		},
		"one command with nothing to vary": {
			grid: Grid{Commands: []string{"vllm serve a/x"}},
			want: sweep.List{{Name: "vllm", Command: "vllm serve a/x"}},
		},
	} {
		got, err := test.grid.Specs()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

// What makes no trial is refused, with the way out.
func TestSpecsRefused(t *testing.T) {
	t.Parallel()

	const vllm = "vllm serve {model} --port {port}"
	var many []string
	for i := range 15 {
		many = append(many, fmt.Sprint(i))
	}

	for want, grid := range map[string]Grid{
		"neither --exec nor --url says which servers to try": {Models: []string{"x"}},
		"--exec: there is no command":                        {Commands: []string{" "}},
		"--exec has the same command twice: a":               {Commands: []string{"a", "a"}},
		"--model names no model":                             {Models: []string{" "}, Commands: []string{vllm}},
		"--model x is given twice":                           {Models: []string{"x", "x"}, Commands: []string{vllm}},
		"--exec has {model}, and there is no --model":        {Commands: []string{vllm}},
		"there are 2 --model, and --exec has no {model}: a":  {Models: []string{"x", "y"}, Commands: []string{vllm, "a"}},
		"--exec has {seqs}, and no --vary has values for it": {Commands: []string{"a {seqs}"}},
		"--vary seqs has no effect: no --exec has {seqs}": {
			Commands: []string{"a"},
			Axes:     []Axis{{Name: "seqs", Values: []string{"1"}}},
		},
		"there are more than 200 variants": {
			Commands: []string{"a {b} {c}"},
			Axes:     []Axis{{Name: "b", Values: many}, {Name: "c", Values: many}},
		},
		"--side-by-side starts 2 servers at once, and they would have one port: a {b}": {
			Commands:   []string{"a {b}"},
			Axes:       []Axis{{Name: "b", Values: []string{"1", "2"}}},
			SideBySide: true,
		},
		"two variants have the name vllm": {
			Commands: []string{"vllm serve"},
			Servers:  []Server{{Name: "vllm", URL: "http://a"}},
		},
		"--price-hour: there is no variant slow": {
			Servers: []Server{{Name: "fast", URL: "http://a"}},
			Prices:  []Price{{Variant: "slow", PerHour: 1}},
		},
		`--exec: the value "my model" of {model} is in the script of another shell`: {
			Models:   []string{"my model"},
			Commands: []string{"sh -c 'serve {model}'"},
		},
	} {
		_, err := grid.Specs()
		if err == nil || !strings.HasPrefix(err.Error(), want) || exit.Code(err) != exit.CodeUsage {
			t.Errorf("%v with code %d, want %s", err, exit.Code(err), want)
		}
	}

	_, err := Grid{
		Commands: []string{"a {sesq}"},
		Axes:     []Axis{{Name: "seqs", Values: []string{"1"}}},
	}.Specs()
	if got, want := exit.Hint(err), "did you mean {seqs}?"; got != want {
		t.Errorf("the hint is %q, want %q", got, want)
	}
}

func TestParseAxes(t *testing.T) {
	t.Parallel()

	got, err := ParseAxes([]string{
		"seqs=64, 256", `cards="0,1",2`, "seqs=1024", "eager=,--enforce-eager", `json={"a":1}`, "model-dir=a=b",
	})
	want := []Axis{
		{Name: "seqs", Values: []string{"64", "256", "1024"}},
		{Name: "cards", Values: []string{"0,1", "2"}},
		{Name: "eager", Values: []string{"", "--enforce-eager"}},
		{Name: "json", Values: []string{`{"a":1}`}},
		{Name: "model-dir", Values: []string{"a=b"}},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}

	for text, want := range map[string]string{
		"seqs":       "--vary seqs has no values",
		"seqs=":      "--vary seqs= has no values",
		"=64":        "--vary =64: a name has letters, digits, - and _, and begins with a letter",
		"my seqs=64": "--vary 'my seqs=64': a name has letters, digits, - and _, and begins with a letter",
		"model=a,b":  "--vary cannot have the models",
		"port=1,2":   "--vary port: each server gets its own",
		"seqs=1,2,1": "--vary seqs has the value 1 twice",
		"seqs=1\n2":  `--vary $'seqs=1\0122': the values are not one line of CSV`,
		`cards="0,1`: `--vary 'cards="0,1': the values are not one line of CSV`,
	} {
		_, err := ParseAxes([]string{text})
		if err == nil || err.Error() != want || exit.Code(err) != exit.CodeUsage {
			t.Errorf("%q: %v with code %d, want %s", text, err, exit.Code(err), want)
		}
	}
}

func TestParseServers(t *testing.T) {
	t.Parallel()

	got, err := ParseServers([]string{"fast=http://a:8000/", "b:8000", "http://c/v1?x=1", "d_1=https://d"})
	if err == nil {
		t.Errorf("a query in a URL gives %v", got)
	}

	got, err = ParseServers([]string{"fast=http://a:8000/", "http://b:8000", "d_1=https://d"})
	want := []Server{{Name: "fast", URL: "http://a:8000"}, {URL: "http://b:8000"}, {Name: "d_1", URL: "https://d"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}

	for want, texts := range map[string][]string{
		"--url http://a is given twice":                                      {"x=http://a", "http://a/"},
		"--url: two servers have the name x":                                 {"x=http://a", "x=http://b"},
		"--url 'my box=http://a': a name has letters, digits, dots, - and _": {"my box=http://a"},
		"--url =http://a: a name has letters, digits, dots, - and _":         {"=http://a"},
	} {
		_, err := ParseServers(texts)
		if err == nil || err.Error() != want || exit.Code(err) != exit.CodeUsage {
			t.Errorf("%q: %v with code %d, want %s", texts, err, exit.Code(err), want)
		}
	}
}

func TestParsePrices(t *testing.T) {
	t.Parallel()

	got, err := ParsePrices([]string{"2.50", "gemma seqs=64=0"})
	want := []Price{{PerHour: 2.5}, {Variant: "gemma seqs=64"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}

	for want, texts := range map[string][]string{
		`--price-hour x: "x" is not a price`:          {"x"},
		`--price-hour -1: "-1" is not a price`:        {"-1"},
		`--price-hour a=NaN: "NaN" is not a price`:    {"a=NaN"},
		"--price-hour =1 names no variant":            {"=1"},
		"--price-hour a=2: this price is given twice": {"a=1", "a=2"},
	} {
		_, err := ParsePrices(texts)
		if err == nil || err.Error() != want || exit.Code(err) != exit.CodeUsage {
			t.Errorf("%q: %v with code %d, want %s", texts, err, exit.Code(err), want)
		}
	}
}

// Whatever is given, a grid has distinct names and commands, or is refused as a wrong usage.
func FuzzGrid(f *testing.F) {
	f.Add("a/x", "b/x", "vllm serve {model} --seqs {s}", "s=1,2", "old=http://h", "1")
	f.Add("", "", "a {s} {t}", `s="a,b",c`, "http://h", "s=a=2")

	f.Fuzz(func(t *testing.T, model, other, command, axis, server, price string) {
		axes, err := ParseAxes([]string{axis})
		checkUsage(t, err)
		servers, err := ParseServers([]string{server})
		checkUsage(t, err)
		prices, err := ParsePrices([]string{price})
		checkUsage(t, err)

		specs, err := Grid{
			Models:   []string{model, other},
			Commands: []string{command},
			Axes:     axes,
			Servers:  servers,
			Prices:   prices,
		}.Specs()
		checkUsage(t, err)

		names := map[string]bool{}
		for _, s := range specs {
			if s.Name == "" || names[s.Name] {
				t.Errorf("the name %q is empty or there twice", s.Name)
			}
			names[s.Name] = true

			if (s.Command == "") == (s.URL == "") {
				t.Errorf("%q has the command %q and the URL %q", s.Name, s.Command, s.URL)
			}
		}
	})
}

// checkUsage checks that an error is one of the command line.
func checkUsage(t *testing.T, err error) {
	t.Helper()

	if err != nil && exit.Code(err) != exit.CodeUsage {
		t.Errorf("%v is no wrong usage", errors.Unwrap(err))
	}
}
