package proto

import "testing"

// The name of an input at a URL has no query, which may be long and signed.
func TestInputNameOfURL(t *testing.T) {
	t.Parallel()

	for file, want := range map[string]string{
		"https://host/dir/p0.parquet?X-Amz-Signature=***": "p0.parquet",
		"s3://bucket/what?.csv":                           "what?.csv",
		"/dir/what?.csv":                                  "what?.csv",
	} {
		in := Input{Files: []File{{Path: file}}}
		if got := in.Name(); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}
