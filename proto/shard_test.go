package proto

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// oddBodies must come back byte for byte.
var oddBodies = []string{
	`{}`,
	`{ "seed" : 12345678901234567890123 }`,
	`{"a":"\u0000\/","a":"twice","unknown":[1.0,1e0]}`,
	"{\t\"prompt\":\r\"é\u2028\"}",
}

func TestRequestRoundTrip(t *testing.T) {
	t.Parallel()

	var s jsonscan.Scanner
	for _, body := range oddBodies {
		want := Request{CustomID: []byte(`"a\u0062"`), URL: "/v1/completions", Body: []byte(body)}
		got, err := ParseRequest(&s, AppendRequest(nil, want))
		if err != nil {
			t.Fatal(err)
		}

		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("request (-want +got):\n%s", diff)
		}
	}
}

func TestParseRequestErrors(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, line, want string }{
		{"broken JSON", `{"custom_id":"a"`, "ends in the middle"},
		{"no custom_id", `{"url":"/v1/score","body":{}}`, "no custom_id"},
		{"custom_id is a number", `{"custom_id":1,"url":"/v1/score","body":{}}`, "no custom_id"},
		{"no url", `{"custom_id":"a","body":{}}`, "url"},
		{"no body", `{"custom_id":"a","url":"/v1/score"}`, "body is not an object"},
		{"body is a list", `{"custom_id":"a","url":"/v1/score","body":[]}`, "body is not an object"},
		{"refused for no reason", `{"custom_id":"a","promptmill_refused":""}`, "promptmill_refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseRequest(new(jsonscan.Scanner), []byte(tt.line))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v; want %q", err, tt.want)
			}
		})
	}
}

// A line that can be read is written so that it reads as the same request.
func FuzzParseRequest(f *testing.F) {
	for _, body := range append(oddBodies, `{"a":"\\"}`, `{"a":"\""}`, `{"a":["}",{}]}`) {
		for _, id := range []string{`"a"`, `"a\u0062"`, `""`, `"é"`} {
			f.Add(AppendRequest(nil, Request{CustomID: []byte(id), URL: "/v1/score", Body: []byte(body)}))
		}
	}

	f.Add(AppendRequest(nil, Request{CustomID: []byte(`"a"`), Refused: "why"}))
	f.Add([]byte(`{"custom_id":"a","method":"POST","url":"/v1/score","body":{},"url":"/v1/rerank"}` + "\n"))
	f.Add([]byte(`{"custom_id":"a","custom_id":"b","method":"POST","url":"/v1/score","body":{}}` + "\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		want, err := ParseRequest(new(jsonscan.Scanner), line)
		if err != nil {
			return
		}

		if want.Refused == "" && (want.CustomID[0] != '"' || want.Body[0] != '{' ||
			!slices.Contains(Endpoints, want.URL)) {
			t.Errorf("%q is read as %+v", line, want)
		}

		again := AppendRequest(nil, want)

		got, err := ParseRequest(new(jsonscan.Scanner), again)
		if err != nil {
			t.Fatalf("%q is written as %q: %v", line, again, err)
		}

		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("request (-want +got):\n%s", diff)
		}
	})
}

func BenchmarkParseRequest(b *testing.B) {
	line := AppendRequest(nil, Request{
		CustomID: []byte(`"request-1"`), URL: "/v1/chat/completions",
		Body: []byte(`{"model":"m","messages":[{"role":"user","content":"` +
			strings.Repeat(`some words, \"quoted\"\n`, 4096/25) + `"}]}`),
	})

	b.SetBytes(int64(len(line)))
	b.ReportAllocs()

	var s jsonscan.Scanner
	for b.Loop() {
		if _, err := ParseRequest(&s, line); err != nil {
			b.Fatal(err)
		}
	}
}

func TestShardRoundTrip(t *testing.T) {
	t.Parallel()

	big := []byte(`{"prompt":"` + strings.Repeat("text ", 2<<20) + `"}`)
	want := Shard{ID: ShardID(2, 17), Requests: []Request{
		{Index: 3, CustomID: []byte(`"refused\n"`), Refused: "line 4:\n\"broken\""},
		{Index: 4, CustomID: []byte(`"big"`), URL: "/v1/completions", Body: big},
	}}
	for i, body := range oddBodies {
		want.Requests = append(want.Requests, Request{
			Index:    uint32(100 + 2*i),
			CustomID: []byte(`"x"`),
			URL:      "/v1/score",
			Body:     []byte(body),
		})
	}

	for _, want.Encoding = range append(Encodings(), "") {
		t.Run("encoding "+string(want.Encoding), func(t *testing.T) {
			testShardRoundTrip(t, want)
		})
	}
}

// testShardRoundTrip encodes and decodes a shard, whose second body is long.
func testShardRoundTrip(t *testing.T, want Shard) {
	t.Helper()

	want.Requests = slices.Clone(want.Requests)

	msg := EncodeShard("run", "model/x", want)
	if msg.Subject != WorkSubject("run", "model/x", "2-17") {
		t.Errorf("subject %s", msg.Subject)
	}

	if got := msg.Header.Get(HeaderIndexes); got != "3-4,100,102,104,106" {
		t.Errorf("indexes %s", got)
	}

	header, wantHeader := msg.Header.Get(HeaderEncoding), string(want.Encoding)
	if want.Encoding == Snappy {
		want.Encoding, wantHeader = "", "" // as before there were others
	}

	if header != wantHeader {
		t.Errorf("%s is %q, want %q", HeaderEncoding, header, wantHeader)
	}

	got, err := DecodeShard(msg.Header, msg.Data)
	if err != nil {
		t.Fatal(err)
	}

	if len(got.Requests) < 2 || !bytes.Equal(got.Requests[1].Body, want.Requests[1].Body) {
		t.Fatal("the body of 10 MB is not the same")
	}

	got.Requests[1].Body, want.Requests[1].Body = nil, nil // a diff of 10 MB takes 15 s
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("shard (-want +got):\n%s", diff)
	}
}

func TestDecodeShardErrors(t *testing.T) {
	t.Parallel()

	good := EncodeShard("run", "m", Shard{ID: "0-0", Requests: []Request{
		{Index: 1, CustomID: []byte(`"a"`), URL: "/v1/score", Body: []byte(`{}`)},
		{Index: 2, CustomID: []byte(`"b"`), URL: "/v1/score", Body: []byte(`{}`)},
	}})

	pack := func(text string) []byte { return s2.EncodeSnappy(nil, []byte(text)) }
	for _, tt := range []struct {
		name, header, value string
		payload             []byte
		want                string
	}{
		{"another version", HeaderVersion, "3", good.Data, `Pm-Version: "3", and this program reads "2"`},
		{"no version", HeaderVersion, "", good.Data, `Pm-Version: the header is missing, and this program reads "2"`},
		{"no shard id", HeaderShard, "", good.Data, "Pm-Shard: the header is missing"},
		{"unreadable numbers", HeaderIndexes, "2-1", good.Data, `Pm-Indexes: bad list of request indexes: "2-1", of shard 0-0`},
		{"too many numbers", HeaderIndexes, "0-4096", good.Data, "more than 4096"},
		{"fewer indexes than lines", HeaderIndexes, "1", good.Data, "more lines than indexes"},
		{"more indexes than lines", HeaderIndexes, "1-3", good.Data, "2 lines for 3 indexes"},
		{"not packed", HeaderIndexes, "1-2", []byte("plain"), "unpack"},
		{"cut off", HeaderIndexes, "1-2", good.Data[:len(good.Data)-3], "unpack"},
		{"an encoding to come", HeaderEncoding, "brotli", good.Data, `Pm-Encoding: "brotli" is no encoding`},
		{"Snappy that is called zstd", HeaderEncoding, "zstd", good.Data, "unpack"},
		{"Snappy that is called plain", HeaderEncoding, "none", good.Data, "line 1"},
		{"zstd that is cut off", HeaderEncoding, "zstd", Zstd.pack(nil, []byte("{}\n"))[:9], "unpack"},
		{"zstd with more behind it", HeaderEncoding, "zstd", append(Zstd.pack(nil, []byte("{}\n")), 'x'), "unpack"},
		{"plain lines, one too many", HeaderEncoding, "none", []byte(strings.Repeat(scoreLine, 3)), "more lines"},
		{"a line that is no request", HeaderIndexes, "1", pack("{}\n"), "line 1"},
		{"a line that is no JSON", HeaderIndexes, "1", pack("{"), "line 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := nats.Header{HeaderVersion: {Version}, HeaderShard: {"0-0"}, HeaderIndexes: {"1-2"}}
			h.Set(tt.header, tt.value)
			_, err := DecodeShard(h, tt.payload)
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v; want ErrFormat and %q", err, tt.want)
			}
		})
	}

	if _, err := DecodeShard(nil, nil); !errors.Is(err, ErrFormat) {
		t.Errorf("a message without headers: %v", err)
	}
}

// A small payload must not unpack to all the memory there is.
func TestDecodeShardLimitsMemory(t *testing.T) {
	t.Parallel()

	bomb := func(size int) []byte { return s2.EncodeSnappy(nil, bytes.Repeat([]byte{'\n'}, size)) }
	h := nats.Header{HeaderVersion: {Version}, HeaderShard: {"0-0"}, HeaderIndexes: {"1"}}
	if _, err := DecodeShard(h, bomb(maxShard+1)); !errors.Is(err, ErrFormat) || !errors.Is(err, s2.ErrTooLarge) {
		t.Errorf("error %v; want that it is too large", err)
	}

	// zstd frames, with and without their size in front, one and several.
	text := bytes.Repeat([]byte{'\n'}, maxShard/2+1)
	frame, stream := Zstd.pack(nil, text), zstdStream(t, append(text, text...))
	h.Set(HeaderEncoding, string(Zstd))
	for _, payload := range [][]byte{append(slices.Clone(frame), frame...), stream} {
		if _, err := DecodeShard(h, payload); !errors.Is(err, ErrFormat) ||
			!errors.Is(err, zstd.ErrDecoderSizeExceeded) {
			t.Errorf("zstd of %d bytes: error %v; want that it is too large", len(payload), err)
		}
	}

	h.Del(HeaderEncoding)

	// A small shard like it is read, and refused for its content.
	if _, err := DecodeShard(h, bomb(200<<10)); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("error %v; want one of its first line", err)
	}
}

// scoreLine is a request's line on the wire.
const scoreLine = `{"custom_id":"a","method":"POST","url":"/v1/score","body":{}}` + "\n"

// zstdStream packs text into a frame that does not name its size.
func zstdStream(t *testing.T, text []byte) []byte {
	t.Helper()

	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}

	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}

	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	return b.Bytes()
}

// BenchmarkShard packs and unpacks 32 requests of 4 KB, made of words of English prose.
func BenchmarkShard(b *testing.B) {
	prose, err := os.ReadFile("README.md")
	if err != nil {
		b.Fatal(err)
	}

	shard, words := Shard{ID: "0-0"}, strings.Fields(string(prose))
	for i := range uint32(32) {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		var text strings.Builder
		for text.Len() < 4000 {
			text.WriteString(words[random.IntN(len(words))] + " ")
		}

		shard.Requests = append(shard.Requests, Request{
			Index:    i,
			CustomID: fmt.Appendf(nil, `"request-%d"`, i),
			URL:      "/v1/chat/completions",
			Body:     fmt.Appendf(nil, `{"messages":[{"role":"user","content":%s}]}`, jsonscan.Quote(text.String())),
		})
	}

	for _, shard.Encoding = range Encodings() {
		b.Run(string(shard.Encoding), func(b *testing.B) {
			msg := EncodeShard("run", "m", shard)
			requests := float64(len(shard.Requests))
			b.Run("pack", func(b *testing.B) {
				for b.Loop() {
					EncodeShard("run", "m", shard)
				}
				b.ReportMetric(float64(len(msg.Data))/requests, "bytes/request")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/requests/1000, "µs/request")
			})
			b.Run("unpack", func(b *testing.B) {
				for b.Loop() {
					if _, err := DecodeShard(msg.Header, msg.Data); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/requests/1000, "µs/request")
			})
		})
	}
}

func FuzzDecodeShard(f *testing.F) {
	shard := Shard{ID: "0-0", Requests: []Request{
		{Index: 1, CustomID: []byte(`"a"`), URL: "/v1/score", Body: []byte(`{"a":1}`)},
		{Index: 5, CustomID: []byte(`"b"`), Refused: "why"},
	}}
	for _, shard.Encoding = range Encodings() {
		good := EncodeShard("run", "m", shard)
		f.Add(Version, "0-0", "1,5", string(shard.Encoding), good.Data)
		f.Add(Version, "0-0", "1-5", "", good.Data)
	}

	f.Add("1", "", "x", "gzip", []byte("plain"))
	f.Add(Version, "0-0", "", "", []byte{})
	f.Fuzz(func(t *testing.T, version, id, indexes, encoding string, payload []byte) {
		h := nats.Header{HeaderVersion: {version}, HeaderShard: {id}, HeaderIndexes: {indexes}}
		if encoding != "" {
			h.Set(HeaderEncoding, encoding)
		}

		s, err := DecodeShard(h, payload)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("%v does not wrap ErrFormat", err)
			}
			return
		}

		numbers := make([]uint32, len(s.Requests))
		for i, r := range s.Requests {
			numbers[i] = r.Index
		}

		want, _ := ParseIndexes(indexes, MaxShardSize)
		if FormatIndexes(numbers) != FormatIndexes(want) || s.ID != id || string(s.Encoding) != encoding {
			t.Fatalf("shard %s with %v from the headers %q, %q", s.ID, numbers, id, indexes)
		}
	})
}
