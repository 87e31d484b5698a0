package main

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// Foreign clients come with a string that lets them in, and misbehave. What they send has a
// mark that is in no output.

const forged = "FORGED"

// foreigner is a connection with a join string that misbehaves for the time of an event.
type foreigner struct {
	deployment *deployment
	conn       *nats.Conn
	random     *rand.Rand
	run        string // that it is after
	other      string
}

// joinAsForeigner connects as a role. It is skipped while the bus is down.
func (d *deployment) joinAsForeigner(role proto.Role, dice uint64) (*foreigner, error) {
	opts := []nats.Option{
		nats.Name("a foreign " + string(role)), nats.Timeout(2 * time.Second),
		nats.CustomInboxPrefix(role.InboxPrefix()),
		nats.MaxReconnects(-1), nats.ReconnectWait(200 * time.Millisecond),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}

	scheme, user := "nats://", nats.UserInfo(string(role), password)
	if d.shape.nodes == 0 {
		j := d.joins[role]
		scheme, user = "tls://", nats.UserInfo(j.User(), j.Password())
		opts = append(opts, nats.Secure(&tls.Config{
			InsecureSkipVerify: true, // its name means nothing; the certificate itself is compared
			VerifyConnection: func(s tls.ConnectionState) error {
				if sha256.Sum256(s.PeerCertificates[0].Raw) != j.Fingerprint {
					return errors.New("another certificate")
				}
				return nil
			},
		}))
	}

	conn, err := nats.Connect(scheme+strings.Join(d.busAddresses, ","+scheme), append(opts, user)...)
	if err != nil {
		return nil, skipped(fmt.Sprintf("the bus is away: %v", err))
	}

	random := rand.New(rand.NewPCG(dice, 4))
	who := &foreigner{
		deployment: d,
		conn:       conn,
		random:     random,
		run:        "a",
		other:      "b",
	}
	if random.IntN(2) == 0 {
		who.run, who.other = "b", "a"
	}

	return who, nil
}

// runForeigner does one thing after the other until the event is over.
func (d *deployment) runForeigner(role proto.Role, e event, deeds []func(*foreigner)) error {
	who, err := d.joinAsForeigner(role, e.seed)
	if err != nil {
		return err
	}
	defer who.conn.Close()

	end := d.begin.Add(e.at + e.duration)
	for time.Now().Before(end) && bus.Sleep(d.stop, 20*time.Millisecond) == nil {
		deeds[who.random.IntN(len(deeds))](who)
	}

	who.conn.FlushTimeout(time.Second) // or its last messages are lost

	return nil
}

func injectForeignWorker(d *deployment, e event) error {
	return d.runForeigner(proto.RoleWorker, e, workersDeeds)
}

func injectForeignReader(d *deployment, e event) error {
	return d.runForeigner(proto.RoleReader, e, readersDeeds)
}

// sendRequest sends a request and waits for the answer for a moment.
func (w *foreigner) sendRequest(subject string, body string) *nats.Msg {
	answer, err := w.conn.Request(subject, []byte(body), 300*time.Millisecond)
	if err != nil {
		return nil
	}

	return answer
}

// forgeLine returns an output line with an answer that no server gave.
func forgeLine(run string, seq uint64, customID string) string {
	return fmt.Sprintf(`{"id":"batch_req_%s_%d","custom_id":%q,"response":{"status_code":200,"request_id":"","body":{"id":"chatcmpl-%s","object":"chat.completion","model":"m",`+
		`"choices":[{"index":0,"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}},`+
		`"error":null,"promptmill":{"index":%d,"worker":"%s","attempts":1,"queued_ms":1,"latency_ms":1}}`+"\n", run,
		seq, customID, forged, forged, seq, forged)
}

// randomRequest is the number of a request of the run.
func (w *foreigner) randomRequest() uint64 {
	return w.random.Uint64N(uint64(w.deployment.shape.requests))
}

// randomShard is the id of one that may be there.
func (w *foreigner) randomShard() string { return fmt.Sprintf("0-%d", w.random.IntN(20)) }

// publishResult publishes a result message.
func (w *foreigner) publishResult(shard, seqs, lines string, more ...string) {
	m := nats.NewMsg(proto.ResultsSubject(w.run, shard))
	m.Data = []byte(lines)
	m.Header.Set(proto.HeaderVersion, proto.Version)
	m.Header.Set(proto.HeaderShard, shard)
	m.Header.Set(proto.HeaderIndexes, seqs)

	for i := 0; i+1 < len(more); i += 2 {
		m.Header.Set(more[i], more[i+1])
	}

	w.conn.PublishMsg(m) // refused ones are well
}

// publishLine is a request's line under the name of another.
func (w *foreigner) publishLine(seq uint64, customID string) {
	w.publishResult(w.randomShard(), fmt.Sprint(seq), forgeLine(w.run, seq, customID))
}

// workersDeeds are the acts of a foreign worker. None of its lines is of the request that it
// says, so none may be taken.
var workersDeeds = []func(*foreigner){
	func(w *foreigner) { // the custom_id of another request
		seq := w.randomRequest()
		w.publishLine(seq, fmt.Sprintf("%s-%d", w.run, seq+1))
	},
	func(w *foreigner) { w.publishLine(w.randomRequest(), "nobody") },
	func(w *foreigner) { // a request that is not there
		seq := uint64(w.deployment.shape.requests) + w.random.Uint64N(5)
		w.publishLine(seq, fmt.Sprintf("%s-%d", w.run, seq))
	},
	func(w *foreigner) {
		w.publishResult(w.randomShard(), "4294967295", forgeLine(w.run, 4294967295, w.run+"-4294967295"))
	},
	func(w *foreigner) { // a line of the other run
		seq := w.randomRequest()
		w.publishLine(seq, fmt.Sprintf("%s-%d", w.other, seq))
	},
	func(w *foreigner) { // of a shard that is not there, or not a worker's
		seq := w.randomRequest()
		shards := []string{
			"0-99999", "77-0", "cancelled-0", "expired-1", "x", "0", "0-0-0", "-1-0", strings.Repeat("9", 200),
		}
		w.publishResult(shards[w.random.IntN(len(shards))], fmt.Sprint(seq),
			forgeLine(w.run, seq, fmt.Sprintf("%s-%d", w.run, seq)))
	},
	func(w *foreigner) { // numbers that are not those of the lines
		seq := w.randomRequest()
		seqs := []string{
			"0-4294967295", "5-1", "x", "", "1,1", "0-", "-1", "99999999999999999999", fmt.Sprintf("%d-%d", seq, seq+3),
			strings.Repeat("1,", 30_000), fmt.Sprint(seq + 1),
		}
		w.publishResult(w.randomShard(), seqs[w.random.IntN(len(seqs))],
			forgeLine(w.run, seq, fmt.Sprintf("%s-%d", w.run, seq+7)))
	},
	func(w *foreigner) { // headers that contradict the rest
		seq := w.randomRequest()
		line := forgeLine(w.run, seq, fmt.Sprintf("%s-%d", w.run, seq+7))
		headers := [][]string{
			{proto.HeaderVersion, "3"},
			{proto.HeaderVersion, ""},
			{proto.HeaderShard, "0-99"},
			{proto.HeaderShard, "../x"},
			{proto.HeaderObject, "input-0"},
			{proto.HeaderObject, "../../etc/passwd"},
			{proto.HeaderSource, "input-0"},
			{"X", strings.Repeat("y", 500_000)},
			{"Nats-Rollup", "sub"},
			{"Nats-Msg-Id", "1"},
			{"Nats-TTL", "1s"},
			{"Nats-Expected-Last-Sequence", "0"},
		}

		w.publishResult(w.randomShard(), fmt.Sprint(seq), line, headers[w.random.IntN(len(headers))]...)
	},
	func(w *foreigner) { // payloads that are not lines
		texts := []string{
			"", "\n", "null\n", "{}\n", "[]\n", "\x00\xff\n", `{"custom_id":1}` + "\n",
			`{"promptmill":{"index":"` + forged + `"}}` + "\n",
			strings.Repeat("[", 200_000) + "\n", strings.TrimSuffix(forgeLine(w.run, 0, w.run+"-1"), "\n"),
			strings.Repeat(forgeLine(w.run, 0, w.run+"-1"), 500),
		}
		w.publishResult(w.randomShard(), fmt.Sprint(w.randomRequest()), texts[w.random.IntN(len(texts))])
	},
	func(w *foreigner) { // marks
		marks := []string{
			"returned 99999999999=1", "returned x", "returned =", "isolated", "isolated -1", "isolated x", "nonsense",
			"returned " + strings.Repeat("1=1 ", 20_000),
			fmt.Sprintf("returned %d=1000", uint64(w.deployment.shape.requests)+w.randomRequest()),
		}
		w.publishResult(w.randomShard(), "", "", proto.HeaderDelivery, marks[w.random.IntN(len(marks))])
	},
	func(w *foreigner) { // announcements
		values := []string{
			"{", "null", "[]", "1", "", "\xff", `{"name":"` + strings.Repeat("x", 100_000) + `"}`,
			`{"name":"\u001b]0;x\u0007","models":["\u001b[2J"],"server":"\u0000"}`,
			`{"name":"w","concurrency":-5,"in_flight":-9223372036854775808,"done":9223372036854775807,"requests_per_second":1e308,"latency_seconds":-1e308,"ready":true,"models":["m"],"since":"0001-01-01T00:00:00Z"}`,
			`{"name":"w","runs":{"a":{"requests":9223372036854775807,"energy_joules":1e308},"../x":{}},"gpu":[{"index":-1,"power_watts":-1e300}],"ready":true,"models":null}`,
			`{"name":"w","models":[` + strings.TrimSuffix(strings.Repeat(`"m",`, 100_000), ",") + `]}`,
			strings.Repeat(`{"gpu":[`, 50_000),
		}

		keys := []string{"w", forged, "x.y", "=", "-"}
		w.sendRequest("$KV."+proto.PresenceBucket+".worker."+keys[w.random.IntN(len(keys))],
			values[w.random.IntN(len(values))])
	},
	func(w *foreigner) { // shards of others: done, handed back, given up
		ends := []string{"+ACK", "-NAK", "+TERM", "+WPI"}
		n := w.random.IntN(40) + 1
		w.conn.Publish(fmt.Sprintf("$JS.ACK.%s.%s.1.%d.%d.%d.0", proto.WorkStream(w.run), proto.ConsumerName(modelName),
			n, n, time.Now().UnixNano()), []byte(ends[w.random.IntN(len(ends))]))
	},
}

// readersDeeds are the acts of a foreign reader. It may look at manifests and results, and
// keep its position; nothing that it sends may come elsewhere.
var readersDeeds = []func(*foreigner){
	func(w *foreigner) { // a result, by the answer to a question
		seq := w.randomRequest()
		line := forgeLine(w.run, seq, fmt.Sprintf("%s-%d", w.run, seq))
		m := nats.NewMsg("$KV." + proto.ReadersBucket + "." + w.run + "." + forged)
		m.Data = []byte(line)
		m.Header.Set(proto.HeaderVersion, proto.Version)
		m.Header.Set(proto.HeaderShard, "0-0")
		m.Header.Set(proto.HeaderIndexes, fmt.Sprint(seq))
		w.conn.PublishMsg(m)
		w.aimReply("KV_"+proto.ReadersBucket, `{"last_by_subj":"`+m.Subject+`"}`, proto.ResultsSubject(w.run, "0-0"))
	},
	func(w *foreigner) { // a manifest, in the same way
		answer := w.sendRequest("$JS.API.DIRECT.GET.KV_"+proto.RunsBucket,
			`{"last_by_subj":"$KV.`+proto.RunsBucket+`.`+w.run+`"}`)
		if answer == nil || !strings.Contains(string(answer.Data), `"in_progress"`) {
			return
		}

		subject := "$KV." + proto.ReadersBucket + ".x." + forged
		w.conn.Publish(subject, []byte(strings.Replace(string(answer.Data), `"in_progress"`, `"cancelling"`, 1)))
		w.aimReply("KV_"+proto.ReadersBucket, `{"last_by_subj":"`+subject+`"}`, "$KV."+proto.RunsBucket+"."+w.run)
	},
	func(w *foreigner) { // a manifest or a result sent as it is
		w.conn.Publish("$KV."+proto.RunsBucket+"."+w.run, []byte(`{}`))
		w.publishLine(w.randomRequest(), forged)
	},
	func(w *foreigner) { // answers that delete or make things, if their subject is a request
		for _, goal := range []string{
			"$JS.API.STREAM.DELETE." + proto.WorkStream(w.run), "$JS.API.STREAM.PURGE." + proto.ResultsStream(w.run),
			proto.WorkSubject(w.run, modelName, "0-9"),
		} {
			w.aimReply(proto.ResultsStream(w.run), `{"seq":1}`, goal)
			w.sendRequest(goal, "")
		}
	},
	func(w *foreigner) { // the prompts
		for _, stream := range []string{proto.WorkStream(w.run), "OBJ_" + proto.ObjectsBucket(w.run)} {
			for _, question := range []string{`{"seq":1,"next_by_subj":">"}`, `{"seq":2}`} {
				for _, by := range []string{"$JS.API.DIRECT.GET.", "$JS.API.STREAM.MSG.GET."} {
					if answer := w.sendRequest(by+stream, question); answer != nil &&
						answer.Header.Get(proto.HeaderShard) != "" {
						w.deployment.mu.Lock()
						w.deployment.foreignShards++
						w.deployment.mu.Unlock()
					}
				}
			}
		}
	},
	func(w *foreigner) { // many positions, and large ones
		for range 20 {
			w.sendRequest(fmt.Sprintf("$KV.%s.%s.%s%d", proto.ReadersBucket, w.run, forged, w.random.IntN(10_000)),
				strings.Repeat("x", 1+w.random.IntN(60_000)))
		}
	},
	func(w *foreigner) { // consumers that stay, and that deliver elsewhere
		name := fmt.Sprintf("x%d", w.random.IntN(1000))
		for _, bucket := range []string{proto.RunsBucket, proto.PresenceBucket, proto.ReadersBucket} {
			for _, more := range []string{
				`"durable_name":"` + name + `"`,
				`"deliver_subject":"` + proto.WorkSubject(w.run, modelName, "0-1") + `"`,
			} {
				w.sendRequest(fmt.Sprintf("$JS.API.CONSUMER.CREATE.KV_%s.%s.$KV.%s.>", bucket, name, bucket),
					fmt.Sprintf(`{"stream_name":"KV_%s","config":{"name":%q,"filter_subject":"$KV.%s.>","deliver_policy":"all","ack_policy":"none",%s}}`,
						bucket, name, bucket, more))
			}
		}
	},
}

// aimReply asks a stream for a message, to be sent to a subject.
func (w *foreigner) aimReply(stream, question, subject string) {
	m := nats.NewMsg("$JS.API.DIRECT.GET." + stream)
	m.Data, m.Reply = []byte(question), subject
	w.conn.PublishMsg(m)
}

// checkForeign wants no mark of a foreign client in any output, no prompt read by a reader,
// and commands that list the bus.
func (a *auditor) checkForeign() {
	if a.foreignShards > 0 {
		a.found.add("a foreign reader read %d shards", a.foreignShards)
	}

	for _, args := range [][]string{{"workers"}, {"status", "a"}, {"status"}, {"list"}} {
		code, said := -1, ""
		// a bus that was away at the end is back soon
		for late := time.Now().Add(settleTime); code != 0 && time.Now().Before(late); {
			code, said = a.runCommand(30*time.Second, "reader-bus", proto.RoleReader, args...)
		}

		if code != 0 {
			a.found.add("promptmill %s: exit code %d: %s", strings.Join(args, " "), code, errorText(said))
		}
	}

	missing := a.shape.workerNames()
	for late := time.Now().Add(settleTime); len(missing) > 0 &&
		time.Now().Before(late); bus.Sleep(a.stop, 200*time.Millisecond) {
		text, err := a.runPromptmill(30*time.Second, "reader-bus", proto.RoleReader, "workers")
		if err == nil {
			missing = slices.DeleteFunc(a.shape.workerNames(), func(name string) bool {
				return strings.Contains(string(text), name)
			})
		}
	}

	if len(missing) > 0 {
		a.found.add("promptmill workers does not show %v", missing)
	}
}
