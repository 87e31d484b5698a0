package proto

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// The mistakes that the author of a worker in another language makes are named, with the header or
// the field of the line.
func TestMistakesOfOtherWorkers(t *testing.T) {
	t.Parallel()

	const line = `{"id":"batch_req_r_7","custom_id":"a","response":{"status_code":200,"body":{}},"error":null,` +
		`"promptmill":{"index":7,"request_hash":"9c71a692d71980c7"}}` + "\n"

	header := func(name, value string) func(*nats.Msg) {
		return func(m *nats.Msg) {
			if m.Header.Set(name, value); value == "" {
				m.Header.Del(name)
			}
		}
	}
	replace := func(from, to string) func(*nats.Msg) {
		return func(m *nats.Msg) { m.Data = []byte(strings.Replace(string(m.Data), from, to, 1)) }
	}

	for _, tt := range []struct {
		name   string
		change func(*nats.Msg)
		want   string
	}{
		{"none", func(*nats.Msg) {}, ""},
		{"spaces and another order", replace(line, `{"promptmill": {"request_hash": "9c71a692d71980c7", "index": 7}, `+
			`"error": null, "response": {"body": {}, "status_code": 200}, "custom_id": "a", "id": "batch_req_r_7"}`+"\n"), ""},
		{"no version", header(HeaderVersion, ""), `Pm-Version: the header is missing, and this program reads "2"`},
		{"a version", header(HeaderVersion, "1"), `Pm-Version: "1", and this program reads "2"`},
		{"no shard", header(HeaderShard, ""), `Pm-Shard: the header is missing`},
		{"another shard", header(HeaderShard, "0-9"),
			`subject: "pm.r.results.0-1", and the headers belong on "pm.r.results.0-9"`},
		{"no indexes", header(HeaderIndexes, ""), `Pm-Indexes: it names no request`},
		{"a list in brackets", header(HeaderIndexes, "[7]"), `Pm-Indexes: bad list of request indexes: "[7]", of shard 0-1`},
		{"an index of another run", header(HeaderIndexes, "700"), `Pm-Indexes: request 700 of 100`},
		{"indexes of the whole shard", header(HeaderIndexes, "0-31"), `Pm-Indexes: 32 requests, a message has at most 16`},
		{"two indexes", header(HeaderIndexes, "7,8"), `lines: unreadable format: want 2 lines, each with its line feed`},
		{"no line feed", replace("\n", ""), `lines: unreadable format: want 1 lines, each with its line feed`},
		{"no JSON", replace(`"error":null`, `"error":None`),
			`line: output line: unreadable format: broken JSON at byte 88: invalid character 'N' at start of value`},
		{"no error", replace(`"error":null,`, ``),
			`line: output line: unreadable format: custom_id, response or error is missing`},
		{"a name of its own", replace("batch_req_r_7", "7"), `id: "7" in the line of request 7, whose id is "batch_req_r_7"`},
		{"no extras", replace(`,"promptmill":{"index":7,"request_hash":"9c71a692d71980c7"}`, ``),
			`promptmill.index: there is none, of request 7`},
		{"another index", replace(`"index":7`, `"index":8`), `promptmill.index: 8 in the line of request 7`},
		{"no hash", replace(`,"request_hash":"9c71a692d71980c7"`, ``),
			`promptmill.request_hash: there is none, of request 7`},
		{"a hash as a number", replace(`"9c71a692d71980c7"`, `9`), `promptmill.request_hash: there is none, of request 7`},
		{"neither answer nor error", replace(`{"status_code":200,"body":{}}`, `null`),
			`response: neither an HTTP answer nor an error, of request 7`},
		{"a status as text", replace(`200`, `"OK"`), `response: neither an HTTP answer nor an error, of request 7`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			msg := EncodeResults("r", "0-1", []uint32{7}, []byte(line))
			tt.change(msg)

			batch, err := runOf100.ParseBatch(msg.Subject, msg.Header)
			var lines [][]byte
			if err == nil {
				lines, err = batch.SplitLines(msg.Data)
			}
			for i := 0; i < len(lines) && err == nil; i++ {
				_, err = batch.ParseLine(new(jsonscan.Scanner), i, lines[i])
			}

			got := ""
			if err != nil {
				got = err.Error()
			}

			if got != tt.want {
				t.Errorf("error %s\nwant  %s", got, tt.want)
			}
		})
	}
}
