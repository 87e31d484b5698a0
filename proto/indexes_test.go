package proto

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSeqsRoundTrip(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name    string
		indexes []uint32
		text    string
	}{
		{"no numbers are an empty text", nil, ""},
		{"one number", []uint32{7}, "7"},
		{"neighbours become a range", []uint32{7, 8}, "7-8"},
		{"ranges and single numbers mix", []uint32{0, 1, 2, 9, 20, 21}, "0-2,9,20-21"},
		{"the largest numbers", []uint32{math.MaxUint32 - 1, math.MaxUint32}, "4294967294-4294967295"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if diff := cmp.Diff(tt.text, FormatIndexes(tt.indexes)); diff != "" {
				t.Errorf("FormatSeqs (-want +got):\n%s", diff)
			}

			got, err := ParseIndexes(tt.text, len(tt.indexes)) // the limit is inclusive
			if err != nil {
				t.Fatal(err)
			}

			if diff := cmp.Diff(tt.indexes, got); diff != "" {
				t.Errorf("ParseIndexes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseIndexesRefuses(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, text string }{
		{"words", "a"},
		{"an empty part", "1,,2"},
		{"a comma at the end", "1,"},
		{"a range without an end", "1-"},
		{"a range without a start", "-1"},
		{"a range that falls", "3-2"},
		{"a range of one", "3-3"},
		{"three ends", "1-2-3"},
		{"a sign", "+1"},
		{"white space", "1, 2"},
		{"a number twice", "1,1"},
		{"numbers that fall", "5,4"},
		{"ranges that overlap", "1-5,5-6"},
		{"numbers over 32 bits", "4294967296"},
		{"a range of more than the limit", "0-10"},
		{"parts of more than the limit together", "0-5,7-11"},
		{"four billion numbers in a short text", "0-4294967295"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got, err := ParseIndexes(tt.text, 10); !errors.Is(err, ErrIndexes) {
				t.Errorf("ParseIndexes(%q) = %v, %v; want ErrSeqs", tt.text, got, err)
			}
		})
	}
}

func FuzzParseIndexes(f *testing.F) {
	for _, s := range []string{"", "0", "0-31,40", "1,2,3", "5,4", "0-4294967295", "4294967295", "1-", "007"} {
		f.Add(s, 100)
	}

	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = max(0, min(limit, 10_000)) // callers pass sizes; a huge one only costs memory
		indexes, err := ParseIndexes(s, limit)
		if err != nil {
			if !errors.Is(err, ErrIndexes) {
				t.Fatalf("ParseIndexes(%q): %v does not wrap ErrIndexes", s, err)
			}
			return
		}

		if len(indexes) > limit {
			t.Fatalf("ParseIndexes(%q, %d) returns %d indexes", s, limit, len(indexes))
		}

		for i := 1; i < len(indexes); i++ {
			if indexes[i] <= indexes[i-1] {
				t.Fatalf("ParseIndexes(%q) does not ascend: %v", s, indexes)
			}
		}

		text := FormatIndexes(indexes)
		again, err := ParseIndexes(text, limit)
		if err != nil || !slices.Equal(again, indexes) {
			t.Fatalf("%q is written as %q and read as %v, %v", s, text, again, err)
		}
	})
}
