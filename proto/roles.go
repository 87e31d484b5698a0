package proto

import "slices"

// Role is what a connection may do on the bus. Each is a user with just the subjects
// that it needs ([Role.Permissions]).
type Role string

// The roles. A collector owns runs: it may do what a producer and a reader may, and
// delete.
const (
	RoleProducer  Role = "producer"  // makes runs, publishes their shards, pauses and cancels them
	RoleWorker    Role = "worker"    // takes shards and stores results
	RoleCollector Role = "collector" // takes results off the bus, cleans up
	RoleReader    Role = "reader"    // looks on: state of runs, and results
)

// Roles are all roles.
func Roles() []Role { return []Role{RoleProducer, RoleWorker, RoleCollector, RoleReader} }

// Covers reports whether a connection of role r may do what one of another role may.
// Everybody may look on.
func (r Role) Covers(other Role) bool {
	return r == other || other == RoleReader || r == RoleCollector && other == RoleProducer
}

// InboxPrefix begins the subjects of answers to a role. Nobody else may listen there.
func (r Role) InboxPrefix() string { return "_INBOX_" + string(r) }

// Permissions are subject patterns, in the words of a NATS server's configuration.
type Permissions struct {
	Publish   []string
	Deny      []string // exceptions of Publish
	Subscribe []string
}

// CollectorConsumer names the collector's consumer of a results stream. The name is
// fixed, so that other roles can be kept off it.
const CollectorConsumer = "collector"

// Permissions are the subjects that a role needs. A stream's name is one token, so a
// pattern cannot say "the work streams" but only "any stream"; what tells the roles
// apart is the verb, and the subjects that follow the stream's name.
//
// They guard against mistakes and leaked strings, not against an attacker: NATS does
// not check where the answer to a request goes, nor a header that rolls up a stream.
func (r Role) Permissions() Permissions {
	look := slices.Concat(
		readBucket(RunsBucket), readBucket(PresenceBucket),
		[]string{
			"$JS.API.STREAM.INFO.*",
			"$JS.API.DIRECT.GET.*", "$JS.API.DIRECT.GET.*.pm.*.results.*", // results of a shard, or all in order
			"$JS.API.DIRECT.GET.*.$O.*.M.*", // what an object is called and how long it is
		})
	p := Permissions{Publish: look, Subscribe: []string{r.InboxPrefix() + ".>"}}
	add := func(patterns ...string) { p.Publish = append(p.Publish, patterns...) }
	produce := func() {
		add("$JS.API.INFO", "$JS.API.STREAM.CREATE.*",
			"$JS.API.CONSUMER.CREATE.*.*.pm.*.work.*.*", "$JS.API.CONSUMER.INFO.*.*",
			"$KV."+RunsBucket+".*", "pm.*.work.*.*", "$O.*.C.*", "$O.*.M.*")
	}
	read := func() {
		p.Publish = append(p.Publish, readBucket(ReadersBucket)...)
		add("$KV." + ReadersBucket + ".>")
		p.Subscribe = append(p.Subscribe, "pm.*.results.>") // as they come, for programs of other languages
	}
	switch r {
	case RoleProducer:
		produce()
	case RoleWorker:
		add("$JS.API.CONSUMER.INFO.*.*", "$JS.API.CONSUMER.MSG.NEXT.*.*", "$JS.ACK.>",
			"pm.*.results.*", "$O.*.C.*", "$O.*.M.*", "$KV."+PresenceBucket+".worker.*")
		p.Deny = []string{"$JS.API.CONSUMER.MSG.NEXT.*." + CollectorConsumer}
	case RoleCollector:
		produce()
		read()
		add("$JS.API.CONSUMER.CREATE.*."+CollectorConsumer, "$JS.API.CONSUMER.MSG.NEXT.*."+CollectorConsumer,
			"$JS.API.CONSUMER.DELETE.*.*", "$JS.API.STREAM.PURGE.*", "$JS.API.STREAM.DELETE.*",
			"pm.*.results.*", "$KV."+PresenceBucket+".collector.*")
	case RoleReader:
		read()
	}
	return p
}

// readBucket are the subjects for looking at a key-value bucket and watching it.
func readBucket(bucket string) []string {
	stream := "KV_" + bucket
	return []string{
		"$JS.API.STREAM.INFO." + stream,
		"$JS.API.DIRECT.GET." + stream + ".$KV." + bucket + ".>",
		"$JS.API.CONSUMER.CREATE." + stream + ".*.$KV." + bucket + ".>",
		"$JS.API.CONSUMER.INFO." + stream + ".*",
		"$JS.API.CONSUMER.DELETE." + stream + ".*",
		"$JS.FC." + stream + ".>",
	}
}
