package metadata_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()

	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(metadata.Schema))
	if err != nil {
		t.Fatal(err)
	}

	const url = "schema:///"
	c := jsonschema.NewCompiler()
	if err := c.AddResource(url, doc); err != nil {
		t.Fatal(err)
	}

	s, err := c.Compile(url)
	if err != nil {
		t.Fatal(err)
	}

	return s
}

func matches(t *testing.T, s *jsonschema.Schema, text []byte) error {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(value)
}

func TestMetadataMatchesItsSchema(t *testing.T) {
	t.Parallel()

	s := compiled(t)
	files, err := filepath.Glob("testdata/*.meta.json")
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}

	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}

		if err := matches(t, s, text); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}

	empty, err := json.Marshal(metadata.Run{})
	if err != nil {
		t.Fatal(err)
	}

	var run map[string]any
	if err := json.Unmarshal(empty, &run); err != nil {
		t.Fatal(err)
	}

	run["schema_version"] = metadata.Version
	if empty, err = json.Marshal(run); err != nil {
		t.Fatal(err)
	}

	if err := matches(t, s, empty); err != nil {
		t.Errorf("a run of which nothing is known: %v", err)
	}
}

func TestTheSchemaRefuses(t *testing.T) {
	t.Parallel()

	s := compiled(t)
	seed, err := os.ReadFile("testdata/seed.meta.json")
	if err != nil {
		t.Fatal(err)
	}

	for what, change := range map[string][2]string{
		"a count below zero":          {`"failure_count": 0`, `"failure_count": -1`},
		"a count that is a text":      {`"success_count": 10`, `"success_count": "10"`},
		"metadata without throughput": {`"throughput_tokens_per_sec"`, `"tokens_per_sec"`},
		"metadata without a model":    {`"model":`, `"models":`},
		"a version to come":           {`"test_id"`, `"schema_version": 2, "test_id"`},
	} {
		text := strings.Replace(string(seed), change[0], change[1], 1)
		if text == string(seed) {
			t.Fatalf("%s: there is no %s", what, change[0])
		}

		if matches(t, s, []byte(text)) == nil {
			t.Errorf("%s matches", what)
		}
	}
}

// Each field of the Go types is in the schema, and the schema has no others.
func TestTheSchemaNamesEachField(t *testing.T) {
	t.Parallel()
	var schema map[string]any
	if err := json.Unmarshal(metadata.Schema, &schema); err != nil {
		t.Fatal(err)
	}
	named(t, schema, schema, reflect.TypeFor[metadata.Run](), "")
}

// named compares the properties of a part of the schema with the fields of a type.
func named(t *testing.T, whole, part map[string]any, typ reflect.Type, at string) {
	t.Helper()

	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}

	part = resolve(t, whole, part, at)
	if typ == reflect.TypeFor[proto.Manifest]() || typ == reflect.TypeFor[time.Time]() ||
		typ == reflect.TypeFor[json.RawMessage]() {
		return
	}

	switch typ.Kind() {
	case reflect.Struct:
		properties, _ := part["properties"].(map[string]any)
		left := maps.Clone(properties)
		for field := range typ.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			property, ok := properties[name].(map[string]any)
			if !ok {
				t.Errorf("the schema lacks %s/%s", at, name)
				continue
			}

			delete(left, name)
			named(t, whole, property, field.Type, at+"/"+name)
		}

		for name := range left {
			t.Errorf("the schema has %s/%s, and the type has not", at, name)
		}
	case reflect.Slice:
		if items, ok := part["items"].(map[string]any); ok {
			named(t, whole, items, typ.Elem(), at+"/0")
		}
	case reflect.Map:
		if values, ok := part["additionalProperties"].(map[string]any); ok {
			named(t, whole, values, typ.Elem(), at+"/*")
		} else {
			t.Errorf("the schema does not say what %s holds", at)
		}
	}
}

// resolve follows references.
func resolve(t *testing.T, whole, part map[string]any, at string) map[string]any {
	t.Helper()

	if either, ok := part["anyOf"].([]any); ok {
		part, _ = either[0].(map[string]any) // the other is null
	}

	if ref, ok := part["$ref"].(string); ok {
		defs, _ := whole["$defs"].(map[string]any)
		def, ok := defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
		if !ok {
			t.Fatalf("%s: the schema has no %s", at, ref)
		}
		return def
	}

	return part
}

func TestMetadataOfOtherToolsIsRead(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		what, text, err string
		check           func(*metadata.Run) bool
	}{
		{what: "two figures are enough", text: `{"results":{"success_count":10,"inference_time_seconds":5}}`,
			check: func(r *metadata.Run) bool {
				return r.Test.NumRequests == 10 && *r.Results.ThroughputRequestsPerSec == 2 &&
					r.Results.TotalTokens == nil && r.Timestamp.IsZero()
			}},
		{
			what: "rates follow from sums",
			text: `{"results":{"success_count":10,"inference_time_seconds":5,"prompt_tokens":100,"completion_tokens":50}}`,
			check: func(r *metadata.Run) bool {
				return *r.Results.TotalTokens == 150 && *r.Results.ThroughputTokensPerSec == 30 &&
					*r.Results.OutputTokensPerSec == 10
			},
		},
		{
			what: "a time without a zone is UTC",
			text: `{"timestamp":"2025-11-24T10:02:11.5","results":{"success_count":1,"inference_time_seconds":5}}`,
			check: func(r *metadata.Run) bool {
				return r.Timestamp.Equal(time.Date(2025, 11, 24, 10, 2, 11, 500_000_000, time.UTC))
			},
		},
		{
			what:  "a time in no known form is unknown",
			text:  `{"timestamp":"yesterday","results":{"success_count":1,"inference_time_seconds":5}}`,
			check: func(r *metadata.Run) bool { return r.Timestamp.IsZero() },
		},
		{what: "no time, no rate", text: `{"results":{"success_count":10,"inference_time_seconds":0}}`,
			check: func(r *metadata.Run) bool { return r.Results.ThroughputRequestsPerSec == nil }},
		{what: "a result is needed", text: `{}`, err: "it has no results"},
		{
			what: "a time is needed",
			text: `{"results":{"success_count":10}}`,
			err:  "lack success_count or inference_time_seconds",
		},
		{
			what: "no count is below zero",
			text: `{"results":{"success_count":-1,"inference_time_seconds":5}}`,
			err:  "below zero",
		},
		{
			what: "a version to come",
			text: `{"schema_version":2,"results":{"success_count":1,"inference_time_seconds":5}}`,
			err:  "schema_version 2",
		},
		{
			what: "a broken series",
			text: `{"series":{"requests":[1,2],"failed":[1]},"results":{"success_count":1,"inference_time_seconds":5}}`,
			err:  "not of one length",
		},
		{
			what: "a series with a short column",
			text: `{"series":{"interval_seconds":1,"requests":[1],"failed":[0],"prompt_tokens":[1],"completion_tokens":[1],` +
				`"in_flight":[null],"memory_used_bytes":[null],"limit":[1,2]},` +
				`"results":{"success_count":1,"inference_time_seconds":5}}`,
			err: "its series is not as it should be",
		},
		{
			what: "a histogram without a count",
			text: `{"results":{"success_count":1,"inference_time_seconds":5,"latency_histogram":{"bounds":[1],"counts":[]}}}`,
			err:  "1 bounds and 0 counts",
		},
		{
			what: "a histogram that descends",
			text: `{"results":{"success_count":1,"inference_time_seconds":5,"latency_histogram":{"bounds":[2,1],"counts":[1,1]}}}`,
			err:  "do not ascend",
		},
		{what: "no JSON", text: `success: 10`, err: "it is not one JSON object"},
		{what: "a list", text: `[1]`, err: "it is a JSON array, not an object"},
		{what: "another type", text: `{"results":5}`, err: "a JSON number cannot be its results"},
	} {
		run, err := metadata.Parse([]byte(c.text))
		if c.err != "" {
			if !errors.Is(err, metadata.ErrFormat) || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %q", c.what, err, c.err)
			}
			continue
		}
		if err != nil || !c.check(run) {
			t.Errorf("%s: %+v, error %v", c.what, run, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"seed", "baseline", "rich"} {
		text, err := os.ReadFile("testdata/" + name + ".meta.json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}

	f.Fuzz(func(t *testing.T, text []byte) {
		run, err := metadata.Parse(text)
		if err == nil == (run == nil) {
			t.Fatal(run, err)
		}
		if err != nil && !errors.Is(err, metadata.ErrFormat) {
			t.Fatal(err)
		}
	})
}
