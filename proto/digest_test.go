package proto

import (
	"encoding/json"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"math/rand/v2"
	"testing"
)

// The hash is the XXH64 of the line in the shard, which any other program can compute. The wanted
// hash is from the xxhash package for Python.
func TestRequestHash(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name    string
		request Request
		want    string
	}{
		{"a request", Request{
			CustomID: []byte(`"a"`),
			URL:      "/v1/completions",
			Body:     []byte(`{"model":"m","prompt":"hi"}`),
		}, "442a010c92852ad6"},
		{"its number does not matter", Request{
			Index:    7,
			CustomID: []byte(`"a"`),
			URL:      "/v1/completions",
			Body:     []byte(`{"model":"m","prompt":"hi"}`),
		}, "442a010c92852ad6"},
		{"a refused one", Request{CustomID: []byte(`"a"`), Refused: "a reason"}, "5271bc5453102389"},
		{"refused for another reason", Request{CustomID: []byte(`"a"`), Refused: "another"}, "5271bc5453102389"},
	} {
		if got := FormatHash(tt.request.Hash()); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}

	r := Request{CustomID: []byte(`"a"`), URL: "/v1/completions", Body: []byte(`{"model":"m","prompt":"hi"}`)}
	line := AppendRequest(nil, r)
	read, err := ParseRequest(new(jsonscan.Scanner), line)
	if err != nil || read.Hash() != r.Hash() {
		t.Errorf("the hash of the parsed request is %x, want %x (%v)", read.Hash(), r.Hash(), err)
	}
}

func TestDigest(t *testing.T) {
	t.Parallel()

	type request struct {
		index uint32
		id    string
		hash  uint64
	}

	requests := []request{{0, `"a"`, 1}, {1, `"b"`, 2}, {2, `"\u00e9"`, 3}}
	sum := func(list ...request) (d Digest) {
		for _, r := range list {
			d.Add(r.index, []byte(r.id), r.hash)
		}
		return d
	}

	want := sum(requests...)

	shuffled := append([]request(nil), requests...)
	rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	if got := sum(shuffled...); got != want {
		t.Errorf("in another order: %s, want %s", got, want)
	}

	if got := sum(requests[0], requests[1], request{2, `"é"`, 3}); got != want {
		t.Errorf("in another spelling: %s, want %s", got, want)
	}

	for name, other := range map[string]Digest{
		"another hash":      sum(requests[0], requests[1], request{2, `"é"`, 4}),
		"another custom_id": sum(requests[0], requests[1], request{2, `"e"`, 3}),
		"another number":    sum(requests[0], requests[1], request{3, `"é"`, 3}),
		"two that swapped":  sum(request{0, `"b"`, 2}, request{1, `"a"`, 1}, requests[2]),
		"one twice":         sum(requests[0], requests[0], requests[2]),
		"one less":          sum(requests[:2]...),
	} {
		if other == want {
			t.Errorf("%s has the same digest", name)
		}
	}

	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}

	var read Digest
	if err := json.Unmarshal(text, &read); err != nil || read != want {
		t.Errorf("%s is read as %s (%v)", text, read, err)
	}

	for _, bad := range []string{`"0"`, `"00000000000000zz"`, `""`, `"+123456789abcdef"`} {
		if err := json.Unmarshal([]byte(bad), &read); err == nil {
			t.Errorf("%s is accepted as a digest", bad)
		}
	}
}
