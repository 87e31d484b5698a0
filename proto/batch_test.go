package proto

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// batchOf is a message of results of the shard 0-1 of the run r, which has 100 requests.
func batchOf(indexes ...uint32) *nats.Msg {
	var lines []byte
	for _, index := range indexes {
		lines = AppendResult(lines, Result{
			Run:      "r",
			Index:    index,
			CustomID: []byte(`"c"`),
			Status:   200,
			Body:     []byte(`{}`),
			Worker:   "w",
			Attempts: 1,
		})
	}

	return EncodeResults("r", "0-1", indexes, lines)
}

func set(name, value string) func(*nats.Msg) {
	return func(m *nats.Msg) { m.Header.Set(name, value) }
}

var runOf100 = Bounds{Run: "r", Requests: 100}

func TestBatchHeaders(t *testing.T) {
	t.Parallel()

	upTo := func(n uint32) (indexes []uint32) {
		for index := range n {
			indexes = append(indexes, index)
		}
		return indexes
	}
	for _, tt := range []struct {
		name   string
		msg    *nats.Msg
		change func(*nats.Msg)
		field  string // that does not fit; empty: it fits
	}{
		{"some lines", batchOf(3, 7), nil, ""},
		{"as many as there can be", batchOf(upTo(MaxBatch)...), nil, ""},
		{"the last request", batchOf(99), nil, ""},
		{"in an object of the shard", batchOf(3), set(HeaderObject, "results-0-1-abc"), ""},
		{"of a shard that came as an object", batchOf(3), set(HeaderSource, "work-0-1"), ""},
		{"lines of an ending", batchOf(upTo(100)...),
			func(m *nats.Msg) { m.Subject = "pm.r.results.cancelled-1"; m.Header.Set(HeaderShard, "cancelled-1") }, ""},

		{"another version", batchOf(3), set(HeaderVersion, "3"), HeaderVersion},
		{"a subject of another run", batchOf(3), func(m *nats.Msg) { m.Subject = "pm.s.results.0-1" }, "subject"},
		{"a subject of another shard", batchOf(3), func(m *nats.Msg) { m.Subject = "pm.r.results.0-2" }, "subject"},
		{"no shard", batchOf(3), func(m *nats.Msg) { m.Header.Del(HeaderShard) }, HeaderShard},
		{"a shard that is a word", batchOf(3),
			func(m *nats.Msg) { m.Subject = "pm.r.results.x"; m.Header.Set(HeaderShard, "x") }, HeaderShard},
		{"a shard's id in another form", batchOf(3),
			func(m *nats.Msg) { m.Subject = "pm.r.results.0-01"; m.Header.Set(HeaderShard, "0-01") }, HeaderShard},
		{"a false ending", batchOf(3), func(m *nats.Msg) {
			m.Subject = "pm.r.results.failed-1"
			m.Header.Set(HeaderShard, "failed-1")
		}, HeaderShard},
		{"no numbers", batchOf(3), func(m *nats.Msg) { m.Header.Del(HeaderIndexes) }, HeaderIndexes},
		{"numbers that descend", batchOf(3), set(HeaderIndexes, "7,3"), HeaderIndexes},
		{"a number twice", batchOf(3), set(HeaderIndexes, "3,3"), HeaderIndexes},
		{"a number that the run does not have", batchOf(100), nil, HeaderIndexes},
		{"more numbers than a message has", batchOf(upTo(MaxBatch + 1)...), nil, HeaderIndexes},
		{"an object of another shard", batchOf(3), set(HeaderObject, "results-0-2-abc"), HeaderObject},
		{"the input as its object", batchOf(3), set(HeaderObject, "input-0"), HeaderObject},
		{"an object with a path", batchOf(3), set(HeaderObject, "results-0-1-../x"), HeaderObject},
		{"the input as its source", batchOf(3), set(HeaderSource, "input-0"), HeaderSource},
		{"another shard's object as its source", batchOf(3), set(HeaderSource, "work-0-2"), HeaderSource},
		{"an answer that was aimed at the subject", batchOf(3), set("Nats-Stream", "KV_promptmill_readers"), "headers"},
		{"one more of its headers", batchOf(3), set("Nats-Sequence", "1"), "headers"},
		{"a server's status", batchOf(3), set("Status", "404"), "headers"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if tt.change != nil {
				tt.change(tt.msg)
			}

			batch, err := runOf100.ParseBatch(tt.msg.Subject, tt.msg.Header)
			if tt.field == "" && err == nil {
				if batch.Shard != tt.msg.Header.Get(HeaderShard) ||
					FormatIndexes(batch.Indexes) != tt.msg.Header.Get(HeaderIndexes) {
					t.Errorf("Batch = %+v", batch)
				}
				return
			}
			if err == nil || ErrorField(err) != tt.field || !errors.Is(err, ErrFormat) {
				t.Errorf("Batch: %v, want one about %q", err, tt.field)
			}
		})
	}
}

func TestBatchLines(t *testing.T) {
	t.Parallel()

	const good = `{"id":"batch_req_r_7","custom_id":"a","response":{"status_code":200,"request_id":"x","body":{}},"error":null,"promptmill":{"index":7,"request_hash":"00000000000000ff","worker":"w","attempts":1}}`
	for _, tt := range []struct{ name, old, new, field string }{
		{"as it should be", "", "", ""},
		{"an error without an answer", `{"status_code":200,"request_id":"x","body":{}},"error":null`,
			`null,"error":{"code":"timeout","message":""}`, ""},
		{"an answer that does not count", `"error":null`, `"error":{"code":"schema_mismatch","message":""}`, ""},
		{"a refusal", "200", "400", ""},

		{"no JSON", `}}`, `}`, "line"},
		{"a custom_id that is a number", `"a"`, `1`, "line"},
		{"no error", `"error":null,`, ``, "line"},
		{"no id", `"id":"batch_req_r_7",`, ``, "id"},
		{"the id of another request", `_r_7"`, `_r_8"`, "id"},
		{"the id of another run", `_r_7"`, `_s_7"`, "id"},
		{"an id that begins like it", `_r_7"`, `_r_77"`, "id"},
		{"another number", `"index":7`, `"index":8`, "promptmill.index"},
		{"a number too large for one", `"index":7`, `"index":4294967303`, "promptmill.index"},
		{"no number", `"index":7,`, ``, "promptmill.index"},
		{"neither answer nor error", `{"status_code":200,"request_id":"x","body":{}}`, `null`, "response"},
		{"an impossible status", `200`, `0`, "response"},
		{"a status too large", `200`, `1000`, "response.status_code"},
		{"no hash", `"request_hash":"00000000000000ff",`, ``, "promptmill.request_hash"},
		{"a malformed hash", `"00000000000000ff"`, `"ff"`, "promptmill.request_hash"},
		{"attempts without end", `"attempts":1`, `"attempts":9000000000000000000`, "promptmill.attempts"},
		{"a name without end", `"w"`, `"` + strings.Repeat("w", 300) + `"`, "promptmill.worker"},
		{"cancelled by a worker", `{"status_code":200,"request_id":"x","body":{}},"error":null`,
			`null,"error":{"code":"batch_cancelled","message":""}`, "error.code"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			batch, err := runOf100.ParseBatch("pm.r.results.0-1", batchOf(7).Header)
			if err != nil {
				t.Fatal(err)
			}

			line := strings.Replace(good, tt.old, tt.new, 1) + "\n"
			lines, err := batch.SplitLines([]byte(line))
			if err != nil {
				t.Fatal(err)
			}

			l, err := batch.ParseLine(new(jsonscan.Scanner), 0, lines[0])
			if tt.field == "" && err == nil && l.Index == 7 {
				return
			}
			if err == nil || ErrorField(err) != tt.field {
				t.Errorf("Line: %v, want one about %q", err, tt.field)
			}
		})
	}

	batch, err := runOf100.ParseBatch("pm.r.results.0-1", batchOf(7, 8).Header)
	if err != nil {
		t.Fatal(err)
	}

	for _, payload := range []string{
		"", "\n", good + "\n", good + "\n" + good, good + "\n" + good + "\n" + good + "\n",
	} {
		if _, err := batch.SplitLines([]byte(payload)); ErrorField(err) != "lines" {
			t.Errorf("lines of %d bytes: %v", len(payload), err)
		}
	}
}

// Lines of an ending say that their requests were not executed, and nothing else.
func TestBatchOfAnEnding(t *testing.T) {
	t.Parallel()

	for code, fits := range map[string]bool{CodeCancelled: true, CodeExpired: true, CodeTimeout: false} {
		line := AppendResult(nil, Result{Run: "r", Index: 7, CustomID: []byte(`"c"`), Err: &ResultError{Code: code}})
		msg := EncodeResults("r", EndingShard(StateExpired, 1), []uint32{7}, line)
		batch, err := runOf100.ParseBatch(msg.Subject, msg.Header)
		if err != nil || !batch.Ending {
			t.Fatalf("Batch = %+v, %v", batch, err)
		}

		if _, err := batch.ParseLine(new(jsonscan.Scanner), 0, msg.Data); (err == nil) != fits {
			t.Errorf("a line with the code %s: %v", code, err)
		}
	}
}

func TestBoundsShard(t *testing.T) {
	t.Parallel()

	shard := func(requests ...Request) *nats.Msg {
		return EncodeShard("r", "m", Shard{ID: "0-1", Requests: requests})
	}

	request := func(index uint32) Request {
		return Request{Index: index, CustomID: []byte(`"c"`), URL: "/v1/completions", Body: []byte(`{}`)}
	}

	elsewhere := request(3)
	elsewhere.URL = "/admin"

	for _, tt := range []struct {
		name   string
		msg    *nats.Msg
		change func(*nats.Msg)
		fits   bool
	}{
		{"two requests", shard(request(3), request(99)), nil, true},
		{"in its object", shard(request(3)), set(HeaderObject, "work-0-1"), true},
		{"a request that the run does not have", shard(request(100)), nil, false},
		{"no request", shard(), nil, false},
		{"for another model", shard(request(3)), func(m *nats.Msg) { m.Subject = WorkSubject("r", "n", "0-1") }, false},
		{"of another run", shard(request(3)), func(m *nats.Msg) { m.Subject = WorkSubject("s", "m", "0-1") }, false},
		{"with the id of an ending", shard(request(3)), func(m *nats.Msg) {
			m.Subject = WorkSubject("r", "m", "cancelled-1")
			m.Header.Set(HeaderShard, "cancelled-1")
		}, false},
		{"in the object of another", shard(request(3)), set(HeaderObject, "work-0-2"), false},
		{"to another URL", shard(elsewhere), nil, false},
		{"an answer that was aimed at the subject", shard(request(3)), set("Nats-Stream", "x"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if tt.change != nil {
				tt.change(tt.msg)
			}

			s, err := runOf100.ParseShard("m", tt.msg.Subject, tt.msg.Header, tt.msg.Data)
			if tt.fits != (err == nil) || err != nil && !errors.Is(err, ErrFormat) {
				t.Errorf("Shard = %+v, %v", s, err)
			}
		})
	}
}

func TestBoundsMark(t *testing.T) {
	t.Parallel()

	requests := []Request{{Index: 3}, {Index: 7}}
	for _, tt := range []struct {
		name   string
		mark   string
		change func(*nats.Msg)
		fits   bool
	}{
		{"handed back", "returned", nil, true},
		{"with deaths", "returned 7=2", nil, true},
		{"isolated", "isolated 3", nil, true},
		{"alone with a request of another shard", "isolated 4", nil, false},
		{"deaths of a request of another shard", "returned 4=1", nil, false},
		{"deaths without end", "returned 7=60000", nil, false},
		{"of no known kind", "poison 7", nil, false},
		{"on the subject of another shard", "isolated 3", func(m *nats.Msg) { m.Subject = "pm.r.results.0-2" }, false},
		{"with the id of another shard", "isolated 3", set(HeaderShard, "0-2"), false},
		{"of another version", "isolated 3", set(HeaderVersion, "1"), false},
		{"an answer that was aimed at the subject", "isolated 3", set("Nats-Subject", "x"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			msg := EncodeDeliveryNote("r", "0-1", Isolating(3))
			msg.Header.Set(HeaderDelivery, tt.mark)

			if tt.change != nil {
				tt.change(msg)
			}

			m, err := runOf100.ParseDeliveryNote("0-1", msg.Subject, msg.Header, requests)
			if tt.fits != (err == nil) || err != nil && !errors.Is(err, ErrFormat) {
				t.Errorf("Mark = %+v, %v", m, err)
			}
		})
	}
}

func TestDropped(t *testing.T) {
	t.Parallel()

	var d DropCounter
	var first []string
	for _, one := range [][2]string{{"id", "a"}, {"id", "a"}, {"id", "b"}, {"subject", "a"}, {"id", "a"}} {
		if d.Add(one[0], one[1]) {
			first = append(first, one[0]+one[1])
		}
	}

	if want := []string{"ida", "idb", "subjecta"}; !slices.Equal(first, want) || d.Count() != 5 {
		t.Errorf("%d were dropped, logged %v, want %v", d.Count(), first, want)
	}
}

// In any message, each accepted line fits the indexes of the message.
func FuzzBatch(f *testing.F) {
	for _, msg := range []*nats.Msg{batchOf(7), batchOf(3, 7)} {
		f.Add(msg.Subject, msg.Header.Get(HeaderShard), msg.Header.Get(HeaderIndexes), "", "", msg.Data)
	}

	f.Add("pm.r.results.cancelled-1", "cancelled-1", "0-99", "results-cancelled-1-x", "work-0-1", []byte("{}\n"))
	f.Fuzz(func(t *testing.T, subject, shard, indexes, object, source string, payload []byte) {
		h := nats.Header{
			HeaderVersion: {Version},
			HeaderShard:   {shard},
			HeaderIndexes: {indexes},
			HeaderObject:  {object},
			HeaderSource:  {source},
		}

		batch, err := runOf100.ParseBatch(subject, h)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("Batch: %v", err)
			}
			return
		}

		if subject != "pm.r.results."+shard || len(batch.Indexes) == 0 || batch.Indexes[len(batch.Indexes)-1] > 99 {
			t.Fatalf("Batch = %+v on %s", batch, subject)
		}

		lines, err := batch.SplitLines(payload)
		if err != nil {
			return
		}

		for i, line := range lines {
			l, err := batch.ParseLine(new(jsonscan.Scanner), i, line)
			if err == nil && l.Index != int64(batch.Indexes[i]) {
				t.Fatalf("line %q for request %d", line, batch.Indexes[i])
			}
		}
	})
}

// A manifest of any sender either has possible values, or is refused.
func FuzzParseManifest(f *testing.F) {
	f.Add("r",
		[]byte(`{"schema":3,"run":"r","state":"in_progress","input":{"requests":3,"models":{"m":3}},"settings":{"shard_size":32}}`))
	f.Add("r", []byte(`{"schema":3,"run":"r","state":"paused","policy":{"keep_seconds":-1}}`))
	f.Fuzz(func(t *testing.T, key string, data []byte) {
		m, err := ParseManifest(key, data)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("ParseManifest: %v", err)
			}
			return
		}

		if m.Run != key || CheckRunID(m.Run) != nil || m.Input.Requests < 0 || m.Policy.KeepSeconds < 0 {
			t.Fatalf("ParseManifest = %+v under %q", m, key)
		}
	})
}

func TestParseManifestBounds(t *testing.T) {
	t.Parallel()

	const good = `{"schema":3,"run":"r","state":"in_progress","policy":{"keep_seconds":60},"input":{"requests":3,"bytes":9,"models":{"m":3}},"settings":{"shard_size":32},"publish":{"round":1,"missing":"missing-1-x"}}`
	for _, tt := range []struct{ name, old, new string }{
		{"under another key", `"run":"r"`, `"run":"s"`},
		{"an unknown state", "in_progress", "stuck"},
		{"time on the bus below zero", "60", "-60"},
		{"time on the bus beyond all", "60", "9223372036854775807"},
		{"requests below zero", `"requests":3`, `"requests":-3`},
		{"more requests than have numbers", `"requests":3`, `"requests":4294967296`},
		{"more requests of a model than there are", `"m":3`, `"m":4`},
		{"shards too large", `"shard_size":32`, `"shard_size":1000000`},
		{"a list of requests that is another object", "missing-1-x", "input-0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if _, err := ParseManifest("r", []byte(good)); err != nil {
				t.Fatal(err)
			}

			if _, err := ParseManifest("r", []byte(strings.Replace(good, tt.old, tt.new, 1))); !errors.Is(err,
				ErrFormat) {
				t.Errorf("ParseManifest: %v, want ErrFormat", err)
			}
		})
	}
}
