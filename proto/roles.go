package proto

import "slices"

// Role is a set of rights on the bus. Each is a user with only the subjects that it needs
// ([Role.Permissions]).
type Role string

// The roles. A collector owns runs: it has the rights of a producer and a reader, and may also
// delete.
const (
	RoleProducer  Role = "producer"  // makes runs, publishes their shards, pauses and cancels them
	RoleWorker    Role = "worker"    // takes shards and stores results
	RoleCollector Role = "collector" // takes results off the bus, cleans up
	RoleReader    Role = "reader"    // reads the state of runs, and results
)

// Roles are all roles.
func Roles() []Role { return []Role{RoleProducer, RoleWorker, RoleCollector, RoleReader} }

// Covers reports whether role r has all rights of another. Each role may read the state of runs.
func (r Role) Covers(other Role) bool {
	return r == other || other == RoleReader || r == RoleCollector && other == RoleProducer
}

// InboxPrefix begins the subjects of replies to a role. No other role may subscribe there.
func (r Role) InboxPrefix() string { return "_INBOX_" + string(r) }

// Permissions are subject patterns, in the words of a NATS server's configuration.
type Permissions struct {
	// Publish lists the subjects that the role may publish to. No two of them match the same
	// subject.
	Publish []string
	// Deny lists the exceptions of Publish.
	Deny []string
	// Subscribe lists the subjects that the role may subscribe to.
	Subscribe []string
	// Import lists the subjects of Subscribe whose messages come from the account of the streams, as
	// they are stored ([StoredPrefix]). A message that the role publishes matches one subject of
	// Publish, and goes to that account.
	Import []string
}

// CollectorConsumer names the collector's consumer of a results stream. The name is
// fixed, so that other roles can be kept off it.
const CollectorConsumer = "collector"

// CollectorConsumers are the names under which a collector makes its consumer, one after
// the other: a node of a cluster that dies keeps the name of the consumer that it had.
var CollectorConsumers = []string{
	CollectorConsumer, CollectorConsumer + "-2", CollectorConsumer + "-3", CollectorConsumer + "-4",
}

// Permissions returns the subjects that a role needs. A stream's name is one token, so a pattern
// cannot say "the work streams" but only "any stream"; the roles differ by the verb, and by the
// subjects that follow the stream's name. The streams of results, of answers and of the
// buckets allow a direct get, the only request of a reader; the other streams do not.
//
// Only the role that owns runs may make a consumer: a push consumer sends its messages to any
// subject that its maker names.
func (r Role) Permissions() Permissions {
	wake := "$KV." + RunsBucket + ".*" // notice of a changed manifest, see bus.RunStore.WatchAll
	p := Permissions{
		Publish: slices.Concat(
			readBucket(RunsBucket), readBucket(PresenceBucket),
			[]string{
				// The account's info. Without it the server answers all of the API in the
				// account of the role, which has no JetStream beside its imports.
				"$JS.API.INFO",
				"$JS.API.STREAM.INFO.*",
				"$JS.API.DIRECT.GET.*", "$JS.API.DIRECT.GET.*.pm.*.results.*", // results of a shard, or all in order
			}),
		Import: []string{wake},
	}

	add := func(patterns ...string) {
		for _, pattern := range patterns {
			if !slices.Contains(p.Publish, pattern) {
				p.Publish = append(p.Publish, pattern)
			}
		}
	}

	produce := func() {
		add("$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.MSG.GET.*",
			"$JS.API.CONSUMER.CREATE.*.*.pm.*.work.*.*", "$JS.API.CONSUMER.INFO.*.*",
			wake, "pm.*.work.*.*", "$O.*.C.*", "$O.*.M.*")
	}

	read := func() {
		add(readBucket(ReadersBucket)...)
		add("$KV." + ReadersBucket + ".>")
		p.Import = append(p.Import, "pm.*.results.>") // as they come, for programs of other languages
	}
	switch r {
	case RoleProducer:
		produce()
	case RoleWorker:
		add("$JS.API.CONSUMER.INFO.*.*", "$JS.API.CONSUMER.MSG.NEXT.*.*", "$JS.ACK.>", "$JS.API.STREAM.MSG.GET.*",
			"pm.*.results.*", "pm.*.answers.*", "$KV."+PresenceBucket+".worker.*")
		for _, name := range CollectorConsumers {
			p.Deny = append(p.Deny, "$JS.API.CONSUMER.MSG.NEXT.*."+name)
		}
	case RoleCollector:
		produce()
		read()

		for _, name := range CollectorConsumers {
			add("$JS.API.CONSUMER.CREATE.*."+name, "$JS.API.CONSUMER.MSG.NEXT.*."+name)
		}

		add(readBucket(WebhooksBucket)...)
		add("$KV." + WebhooksBucket + ".>")

		add("$JS.API.CONSUMER.DELETE.*.*", "$JS.API.STREAM.PURGE.*", "$JS.API.STREAM.DELETE.*",
			"pm.*.results.*", "pm.*.answers.*", "$KV."+PresenceBucket+".collector.*")
	case RoleReader:
		read()
	}

	p.Subscribe = append([]string{r.InboxPrefix() + ".>"}, p.Import...)

	return p
}

// readBucket are the subjects for getting the values of a key-value bucket.
func readBucket(bucket string) []string {
	// Not the stream's name: NATS 2.11.0 then refuses DIRECT.GET of it without a subject.
	return []string{"$JS.API.DIRECT.GET.*.$KV." + bucket + ".>"}
}
