package dryrun

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
)

func TestCountCharacters(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		body string
		want int
	}{
		{`{"messages":[{"role":"user","content":"héllo"}]}`, 5},
		{`{"messages":[{"role":"system","content":"ab"},{"role":"user","content":"\ud83d\ude00\n"}]}`, 4},
		{`{"messages":[{"role":"user","content":[{"type":"text","text":"ab"},` +
			`{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]}`, 2},
		{`{"model":"m","prompt":"abc","user":"ann"}`, 3},
		{`{"prompt":["ab","c"]}`, 3},
		{`{"prompt":[1,2,3]}`, 0},
		{`{"prompt":[[1,2],[3]]}`, 0},
		{`{"input":"abc"}`, 3},
		{`{"instructions":"a","input":[{"role":"user","content":[{"type":"input_text","text":"bc"}]}]}`, 3},
		{`{"query":"a","documents":["bc","d"]}`, 4},
		{`{"text_1":"a","text_2":["b"]}`, 2},
		{`{"messages":null}`, 0},
		{`{}`, 0},
		{``, 0},
		{`[]`, 0},
		{`{"prompt":"abc","input":[`, 3},
	} {
		if got := new(counter).count([]byte(tt.body)); got != tt.want {
			t.Errorf("%s: %d characters, want %d", tt.body, got, tt.want)
		}
	}
}

// No text is counted as more characters than it has bytes, and none hangs the count.
func FuzzCountCharacters(f *testing.F) {
	f.Add([]byte(`{"messages":[{"role":"user","content":[{"text":"a"}]}],"prompt":["a",[1]]}`))
	f.Add([]byte(`{"prompt":[x`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if n := new(counter).count(body); n > 3*len(body) || n < 0 { // a byte that is no UTF-8 becomes one character
			t.Errorf("%q has %d characters", body, n)
		}
		formatBody(body, 10)
	})
}

func TestLengths(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		lengths []int
		want    []Bucket
	}{
		{nil, nil},
		{[]int{0}, []Bucket{{0, 9, 1}}},
		{[]int{9, 10, 19, 20, 49}, []Bucket{{0, 9, 1}, {10, 19, 2}, {20, 49, 2}}},
		{[]int{50, 5_000_000_000}, []Bucket{
			{50, 99, 1}, {100, 199, 0}, {200, 499, 0}, {500, 999, 0}, {1000, 1999, 0}, {2000, 4999, 0},
			{5000, 9999, 0}, {10_000, 19_999, 0}, {20_000, 49_999, 0}, {50_000, 99_999, 0},
			{100_000, 199_999, 0}, {200_000, 499_999, 0}, {500_000, 999_999, 0}, {1_000_000, 1_999_999, 0},
			{2_000_000, 4_999_999, 0}, {5_000_000, 9_999_999, 0}, {10_000_000, 19_999_999, 0},
			{20_000_000, 49_999_999, 0}, {50_000_000, 99_999_999, 0}, {100_000_000, 199_999_999, 0},
			{200_000_000, 499_999_999, 0}, {500_000_000, 5_000_000_000, 1},
		}},
	} {
		var l Lengths
		for _, n := range tt.lengths {
			l.add(n)
		}

		if diff := cmp.Diff(tt.want, l.Buckets()); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tt.lengths, diff)
		}
	}
}

// previewOf returns the preview of prompts with some lengths; 0 is a line that cannot be sent.
func previewOf(lengths ...int) *Preview {
	p := &Preview{Files: []string{"in.csv"}, Rows: len(lengths)}
	for i, n := range lengths {
		item := producer.Item{
			File:  "in.csv",
			Line:  i + 1,
			Model: "m",
			Request: proto.Request{
				Index:    uint32(i),
				CustomID: fmt.Appendf(nil, `"request-%d"`, i+1),
				URL:      "/v1/completions",
				Body:     []byte(`{"model":"m","prompt":"` + strings.Repeat("x", n) + `"}`),
			},
		}
		if n == 0 {
			item.Body, item.Err = nil, &producer.LineError{}
		}

		p.Add(item)
		clear(item.Body) // the reader uses it again
	}

	p.Finish()

	return p
}

// The examples are the first request, the shortest and the longest, or others where these are
// the same.
func TestExamples(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		lengths []int
		want    []uint32
	}{
		{[]int{5, 4, 9, 1, 30, 2, 30, 1}, []uint32{0, 3, 4}},
		{[]int{5, 4, 9}, []uint32{0, 1, 2}},
		{[]int{5, 5, 5, 5}, []uint32{0, 1, 2}},
		{[]int{1, 5, 5, 9}, []uint32{0, 1, 3}},
		{[]int{0, 5, 0, 7}, []uint32{1, 3}},
		{[]int{0}, nil},
	} {
		var got []uint32
		for _, e := range previewOf(tt.lengths...).Examples {
			got = append(got, e.Index)
			if n := tt.lengths[e.Index]; e.Characters != n || strings.Count(string(e.Body), "x") != n {
				t.Errorf("request %d has %d characters in %s, want %d", e.Index, e.Characters, e.Body, n)
			}
		}

		if !slices.Equal(got, tt.want) {
			t.Errorf("%v: examples %v, want %v", tt.lengths, got, tt.want)
		}
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()

	lengths := make([]int, 1200)
	for i := range lengths {
		lengths[i] = 12
	}

	lengths[7], lengths[8], lengths[9] = 0, 30, 8

	var out bytes.Buffer
	err := previewOf(lengths...).Print(&out, PrintOptions{
		MaxText:   20,
		Unit:      "row",
		ShortName: func(path string) string { return "DIR/" + path },
	})
	if err != nil {
		t.Fatal(err)
	}

	const want = `request-1, row 1 of DIR/in.csv, 12 characters:
POST /v1/completions
{
  "model": "m",
  "prompt": "xxxxxxxxxxxx"
}

request-9, row 9 of DIR/in.csv, 30 characters:
POST /v1/completions
{
  "model": "m",
  "prompt": "xxxxxxxxxxxxxxxxxxxx... and 10 characters more"
}

request-10, row 10 of DIR/in.csv, 8 characters:
POST /v1/completions
{
  "model": "m",
  "prompt": "xxxxxxxx"
}

input     DIR/in.csv
requests  1,200 requests of 1,200 rows, of which 1 cannot be sent and would fail
models    m (1,199)
prompts   8 to 30 characters, 12 on average, 14,402 in all
    0-9      1  #
  10-19  1,197  ########################################
  20-49      1  #
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPreviewJSON(t *testing.T) {
	t.Parallel()

	got, err := json.Marshal(previewOf(12, 3, 0))
	if err != nil {
		t.Fatal(err)
	}

	const want = `{"files":["in.csv"],"rows":3,"requests":3,"invalid":1,"models":{"m":2},` +
		`"prompts":{"characters":15,"shortest":3,"longest":12,` +
		`"histogram":[{"from":0,"to":9,"requests":1},{"from":10,"to":19,"requests":1}]},` +
		`"examples":[{"index":0,"custom_id":"request-1","file":"in.csv","line":1,"characters":12,` +
		`"url":"/v1/completions","body":{"model":"m","prompt":"xxxxxxxxxxxx"}},` +
		`{"index":1,"custom_id":"request-2","file":"in.csv","line":2,"characters":3,` +
		`"url":"/v1/completions","body":{"model":"m","prompt":"xxx"}}]}`
	if string(got) != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// An image is cut, and a text is whole if no limit is given.
func TestPrintedImage(t *testing.T) {
	t.Parallel()

	text := strings.Repeat("x", 200)
	body := `{"prompt":"` + text + `","url":"data:image/png;base64,` + strings.Repeat("A", 5000) + `"}`
	want := "{\n  \"prompt\": \"" + text + "\",\n" +
		`  "url": "data:image/png;base64,` + strings.Repeat("A", 18) + `... and 4,982 bytes more"` + "\n}"
	if diff := cmp.Diff(want, string(formatBody([]byte(body), 0))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
