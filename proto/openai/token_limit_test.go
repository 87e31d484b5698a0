package openai_test

import (
	"encoding/json"
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/proto/openai"
)

func TestRaiseTokenLimit(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, body string
		factor     float64
		want       string // "": there is no limit
	}{
		{"a limit", `{"model":"m","max_tokens":100}`, 2, `{"model":"m","max_tokens":200}`},
		{"each name of it", `{"max_tokens":1,"max_completion_tokens":20,"max_output_tokens":300}`, 4,
			`{"max_tokens":4,"max_completion_tokens":80,"max_output_tokens":1200}`},
		{"with white space around it", `{"max_output_tokens" : 7 , "a":[1,2]}` + "\n", 2,
			`{"max_output_tokens" : 14 , "a":[1,2]}` + "\n"},
		{"rounded up, so that it always grows", `{"max_tokens":1}`, 1.1, `{"max_tokens":2}`},
		{"less", `{"max_tokens":100}`, 0.001, `{"max_tokens":1}`},
		{"big integers and odd escapes stay",
			`{"seed":123456789012345678901234567890,"x":1.50E+02,"user":"\u0000\/","max_tokens":5}`, 3,
			`{"seed":123456789012345678901234567890,"x":1.50E+02,"user":"\u0000\/","max_tokens":15}`},
		{"only the request's own",
			`{"messages":[{"role":"user","max_tokens":5,"content":"\"max_tokens\":5"}],"extra":{"max_tokens":5},"max_tokens":5}`,
			2,
			`{"messages":[{"role":"user","max_tokens":5,"content":"\"max_tokens\":5"}],"extra":{"max_tokens":5},"max_tokens":10}`},
		{"both where it is there twice", `{"max_tokens":5,"max_tokens":6}`, 2, `{"max_tokens":10,"max_tokens":12}`},
		{"a name with escapes", `{"max\u005ftokens":5}`, 2, `{"max\u005ftokens":10}`},
		{"one of two", `{"max_tokens":null,"max_completion_tokens":5}`, 2,
			`{"max_tokens":null,"max_completion_tokens":10}`},

		{"no limit", `{"messages":[{"max_tokens":5}]}`, 2, ""},
		{"null", `{"max_tokens":null}`, 2, ""},
		{"zero", `{"max_tokens":0}`, 2, ""},
		{"below zero", `{"max_tokens":-1}`, 2, ""},
		{"not whole", `{"max_tokens":5.5}`, 2, ""},
		{"not written as a whole number", `{"max_tokens":1e3}`, 2, ""},
		{"a text", `{"max_tokens":"5"}`, 2, ""},
		{"larger than any integer", `{"max_tokens":99999999999999999999}`, 2, ""},
		{"too large when multiplied", `{"max_tokens":9007199254740992}`, 2, ""},
		{"an infinite factor", `{"max_tokens":5}`, math.Inf(1), ""},
		{"no factor", `{"max_tokens":5}`, math.NaN(), ""},
		{"a factor below zero", `{"max_tokens":5}`, -2, ""},
		{"an array", `[{"max_tokens":5}]`, 2, ""},
		{"a body that is cut", `{"max_tokens":5`, 2, ""},
		{"a body with a tail", `{"max_tokens":5}}`, 2, ""},
		{"nothing", ``, 2, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			body := []byte(tt.body)
			out, ok := openai.RaiseTokenLimit(body, tt.factor)
			if want := tt.want != ""; ok != want {
				t.Fatalf("ok %v, want %v: %s", ok, want, out)
			}

			if want := tt.want; ok && string(out) != want {
				t.Errorf("got  %s\nwant %s", out, want)
			}

			if !ok && string(out) != tt.body || string(body) != tt.body {
				t.Errorf("out %s, body %s", out, body)
			}
		})
	}
}

// digits matches the parts of a body that may differ in a fuzz test.
var digits = regexp.MustCompile(`[0-9]+`)

func FuzzRaiseTokenLimit(f *testing.F) {
	for _, body := range []string{
		`{"model":"m","max_tokens":100}`, `{"max_tokens":1,"max_completion_tokens":20,"max_output_tokens":300}`,
		`{"max_tokens":5,"max_tokens":6,"messages":[{"max_tokens":5}]}`, `{"max\u005ftokens" : 5 }`,
		`{"max_tokens":1e3}`,
		`{"max_tokens":99999999999999999999}`, `{"max_tokens":5}}`, `{"max_tokens`,
	} {
		f.Add([]byte(body), 2.0)
		f.Add([]byte(body), 1.5)
	}

	f.Fuzz(func(t *testing.T, body []byte, factor float64) {
		before := string(body)
		out, ok := openai.RaiseTokenLimit(body, factor)
		if string(body) != before {
			t.Fatal("the body has changed")
		}

		if !ok {
			if string(out) != before {
				t.Fatalf("not ok, but the body is now %s", out)
			}
			return
		}

		if !json.Valid(out) {
			t.Fatalf("not JSON: %s", out)
		}

		if a, b := digits.ReplaceAllString(before, "#"), digits.ReplaceAllString(string(out), "#"); a != b {
			t.Fatalf("more than numbers differ:\n%s\n%s", before, out)
		}

		was, is := digits.FindAllString(before, -1), digits.FindAllString(string(out), -1)
		changed := 0
		for i := range was {
			if was[i] != is[i] {
				changed++
			}
		}

		if names := strings.Count(before, `max`) + strings.Count(before, `\u`); changed > names {
			t.Fatalf("%d numbers differ, of %d limits:\n%s\n%s", changed, names, before, out)
		}
	})
}

func BenchmarkRaiseTokenLimit(b *testing.B) {
	body := []byte(`{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("Say it again. ", 80) +
		`"}],"max_tokens":100,"temperature":0}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()

	for b.Loop() {
		if _, ok := openai.RaiseTokenLimit(body, 2); !ok {
			b.Fatal("no limit")
		}
	}
}
