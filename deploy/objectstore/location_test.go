package objectstore

import (
	"testing"
)

func TestParseLocation(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		arg  string
		want location
		ok   bool
	}{
		{"dir/a.jsonl", location{key: "dir/a.jsonl"}, true},
		{"s3://b/k/a b?.jsonl", location{"s3", "b", "k/a b?.jsonl"}, true},
		{"S3://b", location{"s3", "b", ""}, true},
		{"gs://b/", location{"gs", "b", ""}, true},
		{"s3:///k", location{}, false},
		{"s3://key:secret@b/k", location{}, false},
		{"https://h/p?q=1#part", location{"https", "h", "https://h/p?q=1"}, true},
		{"https://user:password@h/p", location{}, false},
		{"https:///p", location{}, false},
		{"hf://datasets/o/n", location{"hf", "o/n", ""}, true},
		{"hf://datasets/o/n/a/b.csv", location{"hf", "o/n", "a/b.csv"}, true},
		{"hf://datasets/o/n@v1/a.csv", location{"hf", "o/n@v1", "a.csv"}, true},
		{"hf://datasets/o/n@refs%2Fconvert%2Fparquet/a/*.parquet",
			location{"hf", "o/n@refs/convert/parquet", "a/*.parquet"},
			true},
		{"hf://datasets/o/n@refs/convert/parquet/a", location{"hf", "o/n@refs/convert/parquet", "a"}, true},
		{"hf://datasets/o/n@", location{}, false},
		{"hf://o/n", location{}, false},
	} {
		got, err := parseLocation(tt.arg)
		if (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("%s: %+v, %v; want %+v", tt.arg, got, err, tt.want)
		}
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()

	for arg, want := range map[string]string{
		"a?b=c":                     "a?b=c",
		"s3://b/k?x=1":              "s3://b/k?x=1",
		"https://h/f?download=true": "https://h/f?download=true",
		"https://u:p@h/f":           "https://***@h/f",
		"https://h/f?id=7&X-Amz-Signature=ab&sig": "https://h/f?id=7&X-Amz-Signature=***&sig",
		"https://h/f?se=1&sig=x%3D&sp=r":          "https://h/f?se=***&sig=***&sp=***",
		"https://h/f?access_token=t#x":            "https://h/f?access_token=***",
		"https://h/f?%74oken=t":                   "https://h/f?%74oken=***",
	} {
		if got := Redact(arg); got != want {
			t.Errorf("%s: %s, want %s", arg, got, want)
		}
	}
}

func TestBaseName(t *testing.T) {
	t.Parallel()

	for arg, want := range map[string]string{
		"dir/a.jsonl":                   "a.jsonl",
		"s3://b/data/a.csv":             "a.csv",
		"s3://b/data/":                  "data",
		"s3://b":                        "b",
		"https://h/p/a.csv?sig=***":     "a.csv",
		"hf://datasets/o/n@rev/a.csv":   "a.csv",
		"hf://datasets/owner/name":      "name",
		"hf://datasets/owner/name@main": "name",
	} {
		if got := BaseName(arg); got != want {
			t.Errorf("%s: %s, want %s", arg, got, want)
		}
	}
}
