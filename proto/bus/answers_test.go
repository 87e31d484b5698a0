package bus_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

func TestAnswers(t *testing.T) {
	t.Parallel()

	_, js := prototest.Server(t)
	must(t, bus.EnsureStreams(t.Context(), js, manifest("r"), limits))
	a := bus.New(js).Answers("r")
	const limit = 1 << 20
	for _, size := range []int{0, 1, limit - 64<<10, limit - 64<<10 + 1, limit, 3*limit + 1} {
		want := strings.Repeat("abc", size/3+1)[:size]
		msg := proto.EncodeResults("r", "0-0", []uint32{1}, []byte(want))
		for range 2 { // the second time it is out already
			must(t, a.Offload(t.Context(), msg, limit))
		}

		if moved := msg.Header.Get(proto.HeaderObject) != ""; moved != (size > limit-64<<10) ||
			moved && len(msg.Data) > 0 {
			t.Errorf("%d bytes: out of the message %v, %d bytes left", size, moved, len(msg.Data))
		}

		if got, err := a.Payload(t.Context(), msg.Header, msg.Data); err != nil || string(got) != want {
			t.Errorf("%d bytes came back as %d, %v", size, len(got), err)
		}
	}
}

// The size and the hash in a message are compared with the stored answer.
func TestAnswersDamaged(t *testing.T) {
	t.Parallel()

	_, js := prototest.Server(t)
	must(t, bus.EnsureStreams(t.Context(), js, manifest("r"), limits))
	a := bus.New(js).Answers("r")
	large := proto.EncodeResults("r", "0-0", []uint32{1}, []byte(strings.Repeat("x", answerSize)))
	must(t, a.Offload(t.Context(), large, 128<<10))

	for what, change := range map[string]func(h nats.Header){
		"no length":          func(h nats.Header) { h.Del(proto.HeaderSize) },
		"a negative length":  func(h nats.Header) { h.Set(proto.HeaderSize, "-1") },
		"a length too short": func(h nats.Header) { h.Set(proto.HeaderSize, "10") },
		"a length too long":  func(h nats.Header) { h.Set(proto.HeaderSize, strconv.Itoa(answerSize+1)) },
		"an absurd length":   func(h nats.Header) { h.Set(proto.HeaderSize, "9223372036854775807") },
		"no SHA-256":         func(h nats.Header) { h.Del(proto.HeaderDigest) },
		"another SHA-256":    func(h nats.Header) { h.Set(proto.HeaderDigest, strings.Repeat("0", 64)) },
		"no such answer":     func(h nats.Header) { h.Set(proto.HeaderObject, "nothing") },
		"a pattern":          func(h nats.Header) { h.Set(proto.HeaderObject, "*") },
		"another subject":    func(h nats.Header) { h.Set(proto.HeaderObject, "x.y") },
	} {
		h := nats.Header{}
		for key, values := range large.Header {
			h[key] = values
		}

		change(h)
		if got, err := a.Payload(t.Context(), h, nil); !bus.IsUnrecoverable(err) {
			t.Errorf("%s: %d bytes, %v; want an error that reports the loss", what, len(got), err)
		}
	}

	if _, err := bus.New(js).Answers("no-run").Payload(t.Context(), large.Header, nil); !bus.IsUnrecoverable(err) {
		t.Errorf("of another run: %v", err)
	}
}

// proxy stands between a client and the bus: answer may answer a question in the place of
// the bus, and reports whether it has.
func proxy(t *testing.T, js jetstream.JetStream, answer func(question *nats.Msg) bool) jetstream.JetStream {
	t.Helper()

	conn := js.Conn()
	sub, err := conn.Subscribe("proxy.>", func(msg *nats.Msg) {
		if !answer(msg) {
			conn.PublishRequest("$JS.API."+strings.TrimPrefix(msg.Subject, "proxy."), msg.Reply, msg.Data)
		}
	})

	must(t, err)
	t.Cleanup(func() { sub.Unsubscribe() })
	behind, err := jetstream.NewWithAPIPrefix(conn, "proxy")
	must(t, err)

	return behind
}

// A copy of the stream that is behind, or none at all for a while, makes no answer lost;
// and the stream's leader is asked only where a part is not there.
func TestAnswersOfCopyBehind(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		status string
		times  int // in a row, from the second part on
	}{{"all are there", "", 0}, {"a copy that is behind", "404 Message Not Found", 2}, {"no copy", "503", 2}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			_, js := prototest.Server(t)
			must(t, bus.EnsureStreams(t.Context(), js, manifest("r"), limits))
			msg := proto.EncodeResults("r", "0-0", []uint32{1}, []byte(strings.Repeat("x", answerSize)))
			must(t, bus.New(js).Answers("r").Offload(t.Context(), msg, 128<<10))
			gets, infos := 0, 0
			behind := proxy(t, js, func(question *nats.Msg) bool {
				if strings.Contains(question.Subject, "STREAM.INFO") {
					infos++
					return false
				}

				gets++
				if gets < 2 || gets >= 2+tt.times {
					return false
				}

				status, text, _ := strings.Cut(tt.status, " ")
				js.Conn().PublishMsg(&nats.Msg{Subject: question.Reply, Header: nats.Header{
					"Status":      {status},
					"Description": {text},
				}})

				return true
			})

			got, err := bus.New(behind).Answers("r").Payload(t.Context(), msg.Header, nil)
			if err != nil || len(got) != answerSize || infos > 0 != (tt.times > 0) {
				t.Errorf("%d bytes, %v; the leader was asked %d times", len(got), err, infos)
			}
		})
	}
}
