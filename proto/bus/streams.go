package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/promptmill/promptmill/proto"
)

// AckWait is the time that a shard stays with a worker that does not extend it. Workers extend it
// every AckWait/3.
const AckWait = 30 * time.Second

// WorkStreamConfig is the stream of a run's shards: a work queue that refuses new
// shards when it is full.
func WorkStreamConfig(run string, l Limits) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        proto.WorkStream(run),
		Description: "promptmill: shards of run " + run,
		Subjects:    []string{"pm." + run + ".work.>"},
		Retention:   jetstream.WorkQueuePolicy,
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardNew,
		MaxBytes:    l.WorkBytes,
		Replicas:    max(1, l.Replicas),
		// No direct gets: a client that may ask for them may ask any stream that answers them.
	}
}

// ResultsStreamConfig is the stream of a run's results, open to any reader.
func ResultsStreamConfig(run string, l Limits) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        proto.ResultsStream(run),
		Description: "promptmill: results of run " + run,
		Subjects:    []string{"pm." + run + ".results.*"},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardNew,
		MaxBytes:    l.ResultsBytes,
		Replicas:    max(1, l.Replicas),
		AllowDirect: true,
		RePublish:   republishStored(),
	}
}

// republishStored has the server publish each message once more when it has stored it, for other
// accounts.
func republishStored() *jetstream.RePublish {
	return &jetstream.RePublish{Source: ">", Destination: proto.StoredPrefix + ">"}
}

// AnswersStreamConfig is the stream of a run's answers that do not fit into a message, open
// to any reader.
func AnswersStreamConfig(run string, l Limits) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        proto.AnswersStream(run),
		Description: "promptmill: large answers of run " + run,
		Subjects:    []string{"pm." + run + ".answers.*"},
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardNew,
		Replicas:    max(1, l.Replicas),
		AllowDirect: true,
	}
}

// ObjectsStreamConfig is the stream behind a run's object store. The library's own allows
// direct gets.
func ObjectsStreamConfig(run string, l Limits) jetstream.StreamConfig {
	bucket := "$O." + proto.ObjectsBucket(run)

	return jetstream.StreamConfig{
		Name:        objectsStream(run),
		Description: "promptmill: input and large requests of run " + run,
		Subjects:    []string{bucket + ".C.>", bucket + ".M.>"},
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardNew,
		Replicas:    max(1, l.Replicas),
		AllowRollup: true, // an object's name is replaced by the next of that name
	}
}

func objectsStream(run string) string { return "OBJ_" + proto.ObjectsBucket(run) }

// ConsumerConfig is the durable consumer of a run's shards for one model. It has no delivery limit
// and no back-off list: a shard that was delivered too often would be stranded, and giving up is
// the worker's decision, written as a result.
func ConsumerConfig(run, model string) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:       proto.ConsumerName(model),
		FilterSubject: proto.WorkFilter(run, model),
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       AckWait,
		MaxDeliver:    -1,
		MaxAckPending: 20_000,
		MaxWaiting:    8_192,
	}
}

// RunStreamConfigs returns the streams of a run.
func RunStreamConfigs(run string, l Limits) []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		ResultsStreamConfig(run, l),
		WorkStreamConfig(run, l),
		AnswersStreamConfig(run, l),
		ObjectsStreamConfig(run, l),
	}
}

// StreamConfigByName returns the configuration of a stream or a bucket of promptmill; false: the
// name is another.
func StreamConfigByName(name string, l Limits) (jetstream.StreamConfig, bool) {
	list := append(BucketConfigs(l), WebhooksConfig(l))
	if rest, ok := strings.CutPrefix(strings.TrimPrefix(name, "OBJ_"), "pm_"); ok {
		if i := strings.LastIndexByte(rest, '_'); i > 0 {
			list = append(list, RunStreamConfigs(rest[:i], l)...)
		}
	}

	for _, cfg := range list {
		if cfg.Name == name {
			return cfg, true
		}
	}

	return jetstream.StreamConfig{}, false
}

// EnsureStreams makes the streams of a run and a consumer for each model, if they
// are missing. Existing ones stay as they are. Where the bus has limits (see
// [RunStore.SetLimits]), new streams are no larger.
func EnsureStreams(ctx context.Context, js jetstream.JetStream, m proto.Manifest, l Limits) error {
	l, err := l.withDefaults().clampToBus(ctx, js)
	if err != nil {
		return err
	}

	if m.Policy.KeepResults {
		l.ResultsBytes = -1 // nothing is purged, so a bound would stop the run for good
	}

	for _, cfg := range RunStreamConfigs(m.Run, l) {
		if err := createStream(ctx, js, cfg); err != nil {
			return fmt.Errorf("create stream %s: %w", cfg.Name, err)
		}
	}

	for _, model := range m.Models() {
		err := retryNoLeader(ctx, func(ctx context.Context) error {
			_, err := js.Consumer(ctx, proto.WorkStream(m.Run), proto.ConsumerName(model))
			if errors.Is(err, jetstream.ErrConsumerNotFound) {
				_, err = js.CreateConsumer(ctx, proto.WorkStream(m.Run), ConsumerConfig(m.Run, model))
			}
			return err
		})
		if err != nil && !errors.Is(err, jetstream.ErrConsumerExists) {
			return fmt.Errorf("create consumer %s: %w", proto.ConsumerName(model), err)
		}
	}

	return nil
}

// FreeResults gives back the room that the bus has set aside for results that an ended run could still get. Its
// results stay. It is for the owner of the bus, and no error if the run has no stream.
func FreeResults(ctx context.Context, js jetstream.JetStream, run string) error {
	return changeResults(ctx, js, run, func(has *jetstream.StreamConfig) { has.MaxBytes = -1 })
}

// BoundResults bounds the results of a run that works again after [FreeResults].
func BoundResults(ctx context.Context, js jetstream.JetStream, run string, l Limits) error {
	l, err := l.withDefaults().clampToBus(ctx, js)
	if err != nil {
		return err
	}

	return changeResults(ctx, js, run, func(has *jetstream.StreamConfig) {
		if has.MaxBytes <= 0 {
			has.MaxBytes = l.ResultsBytes
		}
	})
}

// changeResults changes the results stream of a run.
func changeResults(
	ctx context.Context, js jetstream.JetStream, run string, change func(*jetstream.StreamConfig),
) error {
	err := updateStream(ctx, js, proto.ResultsStream(run), func(has *jetstream.StreamConfig, _ jetstream.StreamState) {
		change(has)
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}

	return err
}

// ResetConsumers makes every shard that is out with a worker available again at once. It is for
// the only user of a bus, whose own earlier workers are known to be gone.
func ResetConsumers(ctx context.Context, js jetstream.JetStream, m proto.Manifest) error {
	for _, model := range m.Models() {
		err := retryNoLeader(ctx, func(ctx context.Context) error {
			return js.DeleteConsumer(ctx, proto.WorkStream(m.Run), proto.ConsumerName(model))
		})
		if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) &&
			!errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("delete consumer %s: %w", proto.ConsumerName(model), err)
		}
	}

	return nil
}

// DeleteStreams removes a run's streams from the bus, and the positions of its readers.
func DeleteStreams(ctx context.Context, js jetstream.JetStream, run string) error {
	for _, cfg := range RunStreamConfigs(run, Limits{}) {
		if err := DeleteStream(ctx, js, cfg.Name); err != nil {
			return err
		}
	}

	err := PurgeStream(ctx, js, "KV_"+proto.ReadersBucket,
		jetstream.WithPurgeSubject("$KV."+proto.ReadersBucket+"."+run+".>"))
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("delete positions of readers of run %s: %w", run, err)
	}

	return nil
}

// OrphanedStreams returns the streams of a run that has no manifest any more, and which have some
// age by the clock of the bus: the streams of a run may be made just before its manifest.
func OrphanedStreams(
	ctx context.Context, js jetstream.JetStream, run string, age time.Duration,
) (names []string, err error) {
	for _, cfg := range RunStreamConfigs(run, Limits{}) {
		stream, err := FindStream(ctx, js, cfg.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}

		if info := stream.CachedInfo(); info.TimeStamp.Sub(info.Created) >= age {
			names = append(names, cfg.Name)
		}
	}

	return names, nil
}
