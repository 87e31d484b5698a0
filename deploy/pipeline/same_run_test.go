package pipeline

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/proto"
)

// The first setting that differs is named by its flag, with both values.
func TestDescribeSettingsChange(t *testing.T) {
	t.Parallel()

	rows := func(r proto.Rows) proto.Settings { return proto.Settings{Rows: &r} }
	table := func(t proto.Table) proto.Settings { return rows(proto.Rows{Prompt: "p", Table: t}) }
	long := strings.Repeat("a word ", 100)
	for _, tt := range []struct {
		name      string
		then, now proto.Settings
		want      string
	}{
		{name: "none", then: rows(proto.Rows{Prompt: "p"}), now: rows(proto.Rows{Prompt: "p"})},
		{name: "no rows", now: rows(proto.Rows{Prompt: "p"}), want: "--prompt was none and is p now"},
		{
			name: "a prompt",
			then: rows(proto.Rows{Prompt: "Sum up: {{.text}}"}),
			now:  rows(proto.Rows{Prompt: "Classify: {{.text}}"}),
			want: "--prompt was Sum up: {{.text}} and is Classify: {{.text}} now",
		},
		{
			name: "lines",
			then: rows(proto.Rows{Prompt: "a\nb"}),
			now:  rows(proto.Rows{Prompt: "a b"}),
			want: `--prompt was "a\nb" and is a b now`,
		},
		{
			name: "the end of a long prompt",
			then: rows(proto.Rows{Prompt: long + "é."}),
			now:  rows(proto.Rows{Prompt: long + "è. " + long}),
			want: "--prompt was ..." + long[651:] + "é. and is ..." + long[651:] + "è. " + long[:147] + "... now",
		},
		{
			name: "a system message",
			then: rows(proto.Rows{Prompt: "p", System: "s"}),
			now:  rows(proto.Rows{Prompt: "p"}),
			want: "--system was s and is none now",
		},
		{
			name: "messages",
			then: rows(proto.Rows{Messages: "chat"}),
			now:  rows(proto.Rows{Messages: "turns"}),
			want: "--messages was chat and is turns now",
		},
		{
			name: "images",
			then: rows(proto.Rows{Prompt: "p", Images: []string{"a, b"}}),
			now:  rows(proto.Rows{Prompt: "p", Images: []string{"a", "b"}}),
			want: `--image was "a, b" and is "a", "b" now`,
		},
		{
			name: "ids",
			then: rows(proto.Rows{Prompt: "p"}),
			now:  rows(proto.Rows{Prompt: "p", CustomID: "id"}),
			want: "--custom-id was none and is id now",
		},
		{
			name: "a format",
			then: table(proto.Table{}),
			now:  table(proto.Table{Format: "tsv"}),
			want: "--format was none and is tsv now",
		},
		{
			name: "columns",
			then: table(proto.Table{}),
			now:  table(proto.Table{Columns: []string{"id", "text"}}),
			want: `--columns was none and is "id", "text" now`,
		},
		{
			name: "a delimiter",
			then: table(proto.Table{Delimiter: ";"}),
			now:  table(proto.Table{Delimiter: "\t"}),
			want: `--delimiter was ; and is "\t" now`,
		},
		{
			name: "an encoding",
			then: table(proto.Table{Encoding: "utf-16le"}),
			now:  table(proto.Table{}),
			want: "--encoding was utf-16le and is none now",
		},
		{name: "a limit", then: proto.Settings{Limit: 5}, want: "--limit was 5 and is none now"},
		{name: "a sample", now: proto.Settings{Sample: 5}, want: "--sample was none and is 5 now"},
		{
			name: "an endpoint",
			now:  proto.Settings{Endpoint: "/v1/embeddings"},
			want: "--endpoint was none and is /v1/embeddings now",
		},
		{name: "a factor", now: proto.Settings{RetryTruncated: 2}, want: "--retry-truncated was 0 and is 2 now"},
		{
			name: "a schema with spaces",
			then: proto.Settings{Schema: json.RawMessage(`{"a": 1}`)},
			now:  proto.Settings{Schema: json.RawMessage(`{"a":1}`)},
		},
	} {
		want := tt.want
		if want != "" {
			want = "which had other settings: " + want
		}

		if got := describeSettingsChange(tt.then, tt.now); got != want {
			t.Errorf("%s: %q, want %q", tt.name, got, want)
		}
	}
}

// Each setting of rows makes other requests, so that none is passed over.
func TestEachSettingOfRowsIsCompared(t *testing.T) {
	t.Parallel()

	for _, kind := range []reflect.Type{reflect.TypeFor[proto.Rows](), reflect.TypeFor[proto.Table]()} {
		for i := range kind.NumField() {
			var rows proto.Rows
			v := reflect.ValueOf(&rows).Elem()
			if kind == reflect.TypeFor[proto.Table]() {
				v = reflect.ValueOf(&rows.Table).Elem()
			}

			switch field := v.Field(i); field.Kind() {
			case reflect.String:
				field.SetString("x")
			case reflect.Slice:
				field.Set(reflect.ValueOf([]string{"x"}))
			default:
				continue // a table, which has its own turn
			}

			if describeSettingsChange(proto.Settings{}, proto.Settings{Rows: &rows}) == "" {
				t.Errorf("another %s.%s is not seen", kind.Name(), kind.Field(i).Name)
			}
		}
	}
}
