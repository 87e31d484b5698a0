package producer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

// names returns the names of at most most requests of Requests, and its last error.
func names(files []string, s proto.Settings, most int, wanted ...uint32) (got []string, err error) {
	for r, err := range Requests(
		context.Background(), Source{Files: files}, proto.Manifest{Settings: s}, roaring.BitmapOf(wanted...),
	) {
		if err != nil {
			return got, err
		}

		got = append(got, fmt.Sprintf("%d %s", r.Index, r.CustomID))
		if len(got) == most {
			break
		}
	}

	return got, nil
}

func TestRequests(t *testing.T) {
	t.Parallel()

	const unnamed = `{"model":"m","prompt":"x"}` + "\n"
	first := good("a", "m") + "\n" + unnamed + good(`b "quoted"`, "m") // a blank line is no request
	second := "broken\n" + good("a", "m") + unnamed                    // but a refused one is, and a repeated one
	const all = 100
	for _, tt := range []struct {
		name   string
		wanted []uint32
		most   int
		want   []string
	}{
		{"all", []uint32{0, 1, 2, 3, 4, 5}, all,
			[]string{`0 "a"`, `1 "request-2"`, `2 "b \"quoted\""`, `3 "request-4"`, `4 "a"`, `5 "request-6"`}},
		{"some of both files", []uint32{5, 1, 2}, all, []string{`1 "request-2"`, `2 "b \"quoted\""`, `5 "request-6"`}},
		{"the last alone", []uint32{5}, all, []string{`5 "request-6"`}},
		{"none", nil, all, nil},
		{"no more than the caller takes", []uint32{0, 4, 5}, 2, []string{`0 "a"`, `4 "a"`}},
		{"an end that is not reached is no fault", []uint32{0, 9}, 1, []string{`0 "a"`}},
	} {
		for kind, pack := range map[string]func(testing.TB, string) string{
			"plain": func(_ testing.TB, text string) string { return text }, "gzip": prototest.Gzip,
			"zstd": prototest.Zstd,
		} {
			t.Run(tt.name+", "+kind, func(t *testing.T) {
				t.Parallel()

				files := []string{writeFile(t, "1", pack(t, first)), writeFile(t, "2", pack(t, second))}
				got, err := names(files, proto.Settings{SkipInvalid: true}, tt.most, tt.wanted...)
				if err != nil {
					t.Fatal(err)
				}

				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("requests (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// An error comes after the requests that were read before it.
func TestRequestsErrors(t *testing.T) {
	t.Parallel()

	packed := prototest.Gzip(t, lines(1000))
	good := writeFile(t, "good", lines(3))
	missing := filepath.Join(t.TempDir(), "missing")
	for _, tt := range []struct {
		name     string
		files    []string
		settings proto.Settings
		wanted   []uint32
		given    int
		text     string // of the error
	}{
		{"a request beyond the end", []string{good}, proto.Settings{}, []uint32{1, 3, 9}, 1,
			"it ends after 3 requests, 2 of the wanted requests"},
		{"a file that is gone", []string{good, missing}, proto.Settings{}, []uint32{0, 3}, 1, missing},
		{"a file that is cut off", []string{good, writeFile(t, "cut", packed[:len(packed)-9])}, proto.Settings{},
			[]uint32{2, 1002, 1003}, 2, "cut"},
		{"invalid settings", []string{good}, proto.Settings{Set: map[string]string{"seed": "x"}},
			[]uint32{0}, 0, "seed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := names(tt.files, tt.settings, 100, tt.wanted...)
			if len(got) != tt.given || err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%d requests and the error %v; want %d and one of %q", len(got), err, tt.given, tt.text)
			}
		})
	}

	if got, err := names([]string{missing}, proto.Settings{}, 100); got != nil || err != nil {
		t.Errorf("without a request wanted the files are not needed, but: %q, %v", got, err)
	}

	if _, err := names([]string{missing}, proto.Settings{}, 100, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v, want fs.ErrNotExist", err)
	}
}
