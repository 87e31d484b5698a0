package producer

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

// parameter returns a parameter that a number of requests name, with these values.
func parameter(requests int, values ...string) proto.Parameter {
	p := proto.Parameter{Requests: requests}
	for _, v := range values {
		p.Values = append(p.Values, json.RawMessage(v))
	}
	return p
}

func andMore(p proto.Parameter) proto.Parameter {
	p.More = true
	return p
}

func TestValidateFindsParameters(t *testing.T) {
	t.Parallel()

	short := func(members string) string { return `{"model":"m",` + members + `"messages":[]}` }
	whole := func(id, members string) string {
		return `{"custom_id":"` + id + `","url":"/v1/chat/completions","body":{"model":"m",` + members +
			`"messages":[]}}`
	}

	var seeds []string
	for i := range 9 {
		seeds = append(seeds, short(fmt.Sprintf(`"seed":%d,`, i%8)))
	}

	fits, long := `"`+strings.Repeat("x", maxValueBytes-2)+`"`, `"`+strings.Repeat("x", maxValueBytes-1)+`"`
	for _, tt := range []struct {
		name  string
		set   map[string]string
		lines []string
		want  map[string]proto.Parameter
	}{
		{"none", nil, []string{short(""), short(`"user":"u","dimensions":3,`)}, nil},
		{"some requests name them", nil,
			[]string{short(`"temperature":0.7,"max_tokens":5,`), short(""), whole("a", `"temperature":0,`)},
			map[string]proto.Parameter{"temperature": parameter(2, "0.7", "0"), "max_tokens": parameter(1, "5")}},
		{"all that are known", nil,
			[]string{short(`"temperature":1,"top_p":1,"top_k":1,"min_p":1,"max_tokens":1,"max_completion_tokens":1,"max_output_tokens":1,"n":1,"seed":1,` +
				`"stop":1,"presence_penalty":1,"frequency_penalty":1,"repetition_penalty":1,"reasoning_effort":"low",`)},
			map[string]proto.Parameter{
				"temperature":           parameter(1, "1"),
				"top_p":                 parameter(1, "1"),
				"top_k":                 parameter(1, "1"),
				"min_p":                 parameter(1, "1"),
				"max_tokens":            parameter(1, "1"),
				"max_completion_tokens": parameter(1, "1"),
				"max_output_tokens":     parameter(1, "1"),
				"n":                     parameter(1, "1"),
				"seed":                  parameter(1, "1"),
				"stop":                  parameter(1, "1"),
				"presence_penalty":      parameter(1, "1"),
				"frequency_penalty":     parameter(1, "1"),
				"repetition_penalty":    parameter(1, "1"),
				"reasoning_effort":      parameter(1, `"low"`),
			}},
		{"the first values", nil, seeds,
			map[string]proto.Parameter{"seed": andMore(parameter(9, "0", "1", "2", "3", "4"))}},
		{"as many values as are kept", nil, append(seeds[:5:5], seeds[:5]...),
			map[string]proto.Parameter{"seed": parameter(10, "0", "1", "2", "3", "4")}},
		{"a long value is left out", nil, []string{short(`"stop":` + fits + `,`), short(`"stop":` + long + `,`)},
			map[string]proto.Parameter{"stop": andMore(parameter(2, fits))}},
		{"nothing but a long value", nil, []string{short(`"stop":` + long + `,`)},
			map[string]proto.Parameter{"stop": andMore(parameter(1))}},
		{"spaces make no other value", nil,
			[]string{short(`"stop":["a", "b"],`), short(`"stop":["a","b"],`), short(`"stop":[ "a","b" ],`)},
			map[string]proto.Parameter{"stop": parameter(3, `["a","b"]`)}},
		{"the last of two counts", nil, []string{short(`"n":1,"n":2,`)},
			map[string]proto.Parameter{"n": parameter(1, "2")}},
		{"null is none", nil, []string{short(`"seed":null,`)}, nil},
		{"in the body alone", nil,
			[]string{`{"custom_id":"a","temperature":1,"url":"/v1/chat/completions","body":{"model":"m","messages":[{"top_p":1}],"x":{"n":1}},"seed":1}`},
			nil},
		{"set for those that lack them", map[string]string{"temperature": "0.5", "user": `"u"`},
			[]string{short(""), short(`"temperature":1,`), whole("a", "")},
			map[string]proto.Parameter{"temperature": parameter(3, "0.5", "1")}},
		{"not those of refused lines", map[string]string{"seed": "1"},
			[]string{
				`{"model":"m","temperature":1}`, short(`"temperature":2,"stream":true,`),
				whole("a", `"temperature":3,`), whole("a", `"temperature":4,`),
			},
			map[string]proto.Parameter{"temperature": parameter(1, "3"), "seed": parameter(1, "1")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			file := writeFile(t, "in", strings.Join(tt.lines, "\n"))
			in, _, err := Validate(t.Context(), Source{Files: []string{file}}, proto.Settings{Set: tt.set}, nil)
			if err != nil {
				t.Fatal(err)
			}

			if diff := cmp.Diff(tt.want, in.Parameters); diff != "" {
				t.Errorf("parameters (-want +got):\n%s", diff)
			}
		})
	}
}
