package bus_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
)

const (
	producer  = proto.RoleProducer
	worker    = proto.RoleWorker
	collector = proto.RoleCollector
	reader    = proto.RoleReader
)

// deed is a message that does something to the bus, and all roles that may send it.
type deed struct {
	what    string
	subject string // no two deeds have the same
	payload string
	may     []proto.Role
}

// deeds are all things done to the run "r", of which ack acknowledges a shard.
func deeds(ack string) []deed {
	var (
		model  = proto.ConsumerName("m")
		runs   = "KV_" + proto.RunsBucket
		all    = proto.Roles()
		list   []deed
		nobody []proto.Role
		add    = func(what, subject, payload string, may ...proto.Role) {
			list = append(list, deed{what, subject, payload, may})
		}
	)

	add("publish a shard", proto.WorkSubject("r", "m", "0-1"), "forged", producer, collector)
	add("publish a result", proto.ResultsSubject("r", "0-1"), "forged", worker, collector)
	add("write a manifest", "$KV.promptmill_runs.r", "forged", producer, collector)
	add("announce a worker", "$KV.promptmill_presence.worker.x", `{"name":"x"}`, worker)
	add("announce a collector", "$KV.promptmill_presence.collector.r", `{"host":"x"}`, collector)
	add("remember a reader's position", "$KV.promptmill_readers.r.me", "1", collector, reader)
	add("store a chunk of an object", "$O.pm_r_objects.C.x", "x", producer, collector)
	add("store an object", "$O.pm_r_objects.M.eA==", "{}", producer, collector)
	add("store a large answer", "pm.r.answers.x", "x", worker, collector)

	add("take a shard", "$JS.API.CONSUMER.MSG.NEXT.pm_r_work."+model, `{"no_wait":true}`, worker)
	for _, name := range proto.CollectorConsumers {
		add("take the collector's results as "+name, "$JS.API.CONSUMER.MSG.NEXT.pm_r_results."+name,
			`{"no_wait":true}`, collector)
	}

	add("acknowledge a shard", ack, "+ACK", worker)

	add("make a stream", "$JS.API.STREAM.CREATE.forged", `{"name":"forged","subjects":["forged"]}`, producer, collector)
	for _, s := range []string{
		"pm_r_work", "pm_r_results", "pm_r_answers", "OBJ_pm_r_objects", runs, "KV_promptmill_presence",
		"KV_promptmill_readers",
	} {
		add("purge "+s, "$JS.API.STREAM.PURGE."+s, "", collector)
		add("delete "+s, "$JS.API.STREAM.DELETE."+s, "", collector)
		add("change "+s, "$JS.API.STREAM.UPDATE."+s, `{"name":"`+s+`","max_msgs":1}`, nobody...)
		add("delete a message of "+s, "$JS.API.STREAM.MSG.DELETE."+s, `{"seq":1}`, nobody...)
		add("read all of "+s, "$JS.API.STREAM.MSG.GET."+s, `{"seq":1}`, producer, worker, collector)
		add("copy all of "+s, "$JS.API.STREAM.SNAPSHOT."+s, `{"deliver_subject":"x"}`, nobody...)
	}

	// A consumer made by another could take shards away, or list them.
	config := func(stream, name, filter string) string {
		return fmt.Sprintf(`{"stream_name":%q,"config":{"name":%q,"filter_subject":%q,"ack_policy":"explicit"}}`,
			stream, name, filter)
	}

	create := "$JS.API.CONSUMER.CREATE."
	add("make a consumer of shards", create+"pm_r_work.x.pm.r.work.x.*", config("pm_r_work", "x", "pm.r.work.x.*"),
		producer, collector)
	add("make a consumer of all shards", create+"pm_r_work.x", config("pm_r_work", "x", ""), nobody...)
	add("make a nameless consumer of shards",
		create+"pm_r_work", `{"stream_name":"pm_r_work","config":{"ack_policy":"explicit"}}`, nobody...)
	add("make a durable consumer of shards", "$JS.API.CONSUMER.DURABLE.CREATE.pm_r_work.x",
		`{"stream_name":"pm_r_work","config":{"durable_name":"x","ack_policy":"explicit"}}`, nobody...)
	add("make a consumer of results", create+"pm_r_results.x.pm.r.results.*",
		config("pm_r_results", "x", "pm.r.results.*"), nobody...)

	for _, name := range proto.CollectorConsumers {
		add("make the collector's consumer "+name, create+"pm_r_results."+name,
			config("pm_r_results", name, ""), collector)
	}

	add("delete the consumer of shards", "$JS.API.CONSUMER.DELETE.pm_r_work."+model, "", collector)
	add("delete the collector's consumer", "$JS.API.CONSUMER.DELETE.pm_r_results.collector", "", collector)
	add("pause the consumer of shards",
		"$JS.API.CONSUMER.PAUSE.pm_r_work."+model, `{"pause_until":"2100-01-01T00:00:00Z"}`, nobody...)
	add("watch manifests", create+runs+".x.$KV.promptmill_runs.>",
		config(runs, "x", "$KV.promptmill_runs.>"), nobody...)
	add("stop watching manifests", "$JS.API.CONSUMER.DELETE."+runs+".x", "", collector)

	add("list all streams", "$JS.API.STREAM.LIST", "", nobody...)
	add("step down", "$JS.API.STREAM.LEADER.STEPDOWN.pm_r_work", "", nobody...)
	add("ask the server", "$SYS.REQ.SERVER.PING", "", nobody...)

	for _, role := range all {
		add("answer to the "+string(role), role.InboxPrefix()+".x.y", "forged", nobody...)
	}

	add("say anything", "forged", "x", nobody...)

	return list
}

// What is not said to be allowed is refused, and does nothing.
func TestRolesCanDoNothingElse(t *testing.T) {
	t.Parallel()

	for _, role := range proto.Roles() {
		t.Run(string(role), func(t *testing.T) {
			t.Parallel()

			b := newBus(t)
			results, err := b.admin.Stream(t.Context(), proto.ResultsStream("r"))
			must(t, err)

			for _, name := range proto.CollectorConsumers {
				_, err = results.CreateConsumer(t.Context(), jetstream.ConsumerConfig{
					Name:      name,
					AckPolicy: jetstream.AckExplicitPolicy,
				})
				must(t, err)
			}

			list := deeds(b.admin.fetch(t, proto.WorkStream("r"), proto.ConsumerName("m")).Reply())
			c := b.as(t, role)
			before := b.state(t)

			for _, d := range list {
				if slices.Contains(d.may, role) {
					continue
				}

				must(t, c.Conn().PublishRequest(d.subject, c.Conn().NewInbox(), []byte(d.payload)))
				if err := c.refused(t); err == nil ||
					!strings.Contains(err.Error(), "Publish to "+strconv.Quote(d.subject)) {
					t.Errorf("the %s can %s (the last refusal: %v)", role, d.what, err)
				}
			}

			if diff := cmp.Diff(before, b.state(t)); diff != "" {
				t.Errorf("a refused request changed the bus (-before +after):\n%s", diff)
			}

			// After the refusals, since these requests change the bus.
			c = b.as(t, role)
			for _, d := range list {
				if !slices.Contains(d.may, role) {
					continue
				}

				// The answer may be an error. It is waited for lest the server ends in the middle.
				if _, err := c.Conn().Request(d.subject, []byte(d.payload), 5*time.Second); err != nil {
					t.Fatalf("the %s cannot %s: %v (refused: %v)", role, d.what, err, c.refused(t))
				}
			}
		})
	}
}

func TestRolesHearNothingElse(t *testing.T) {
	t.Parallel()

	b := newBus(t)
	may := map[string][]proto.Role{"pm.r.results.*": {collector, reader}, "pm.*.results.>": {collector, reader}}
	for _, subject := range []string{
		">", "*", "*.>", "pm.>", "pm.*.>", "pm.r.*.>", "pm.r.work.>", "$KV.>", "$O.>", "$JS.>", "$JS.API.>",
		"$JS.ACK.>", "$JS.EVENT.>", "$SYS.>",
		"_INBOX.>", "_INBOX_*.>", admin.InboxPrefix() + ".>",
	} {
		may[subject] = nil
	}

	for _, role := range proto.Roles() {
		may[role.InboxPrefix()+".>"] = []proto.Role{role}
	}

	for _, role := range proto.Roles() {
		t.Run(string(role), func(t *testing.T) {
			t.Parallel()

			allowed, c := b.as(t, role), b.as(t, role)
			for subject, roles := range may {
				if slices.Contains(roles, role) {
					_, err := allowed.Conn().SubscribeSync(subject)
					must(t, err)
					if err := allowed.refused(t); err != nil {
						t.Fatalf("the %s does not hear %s: %v", role, subject, err)
					}
					continue
				}

				_, err := c.Conn().SubscribeSync(subject)
				must(t, err)
				if err := c.refused(t); err == nil ||
					!strings.Contains(err.Error(), "Subscription to "+strconv.Quote(subject)) {
					t.Errorf("the %s hears %s (the last that was refused: %v)", role, subject, err)
				}
			}
		})
	}
}

// state is all that there is on the bus, by name of stream and consumer.
func (b *testBus) state(t *testing.T) map[string]string {
	t.Helper()

	all := map[string]string{}
	streams := b.admin.ListStreams(t.Context())
	for s := range streams.Info() {
		republish := s.Config.RePublish // a pointer, which would differ each time
		s.Config.RePublish = nil
		all[s.Config.Name] = fmt.Sprintf("%+v, %+v, messages %d to %d, %d of them",
			s.Config, republish, s.State.FirstSeq, s.State.LastSeq, s.State.Msgs)
		stream, err := b.admin.Stream(t.Context(), s.Config.Name)
		must(t, err)

		consumers := stream.ListConsumers(t.Context())
		for c := range consumers.Info() {
			all[s.Config.Name+"/"+c.Name] = fmt.Sprintf("delivered %d, acknowledged %d, out %d, waiting %d",
				c.Delivered.Consumer, c.AckFloor.Consumer, c.NumAckPending, c.NumWaiting)
		}

		must(t, consumers.Err())
	}

	must(t, streams.Err())

	return all
}
